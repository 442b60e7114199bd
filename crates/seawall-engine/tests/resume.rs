//! A backup after one that died, when what the dead one left is of no use.

#[path = "restore/house.rs"]
#[allow(dead_code, reason = "it is the house of the restore tests")]
mod house;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use house::{House, LIMIT};
use jiff::Timestamp;
use seawall_core::{BackupId, Lsn, TimelineId};
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{Content, Entry, EntryKind};
use seawall_repo::pack::PackInfo;
use seawall_repo::records::{NumberedPack, Pin, PinRole};

/// An attempt of this host before it was started anew.
fn dead_attempt(id: BackupId, start_lsn: Lsn) -> Result<Pin> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").context("hostname")?;
    let info = PackInfo { id: id.0, length_bytes: 1000, footer_hash: Default::default() };
    let entry = Entry {
        path: b"base/1/1259".to_vec().into(),
        kind: EntryKind::File,
        mode: 0o600,
        size_bytes: Some(8192),
        modified_us: Some(1),
        content: Some(Content::Blob { pack: 0, frame: 0, offset: 0, hashes: vec![1; 8] }),
        link_target: None,
    };
    Ok(Pin {
        role: PinRole::Writer,
        host: host.trim().to_owned(),
        boot_id: "another boot".to_owned(),
        process_id: 1,
        time_us: 0,
        purpose: "backup".to_owned(),
        start_lsn,
        start_timeline: TimelineId(1),
        copied_until: start_lsn,
        packs: vec![NumberedPack { index: 0, info }],
        maps: Vec::new(),
        entries: vec![entry],
        backups: Vec::new(),
        process_started: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_proven_of_a_dead_attempt_keeps_no_backup_from_being_made() -> Result<()> {
    let house = House::new().await?;
    let first = house.backup().await?;
    // One whose WAL is long gone, and one whose packs are.
    for (number, start_lsn) in [(1, Lsn(0x100)), (2, first.start_lsn)] {
        let id = BackupId::new(Timestamp::now(), number)?;
        let path = house.line.paths().path(&LineObject::Pin(id.0, 0))?;
        let pin = dead_attempt(id, start_lsn)?;
        house.line.repository().create_record(&path, &pin).await?;
        let begun = Instant::now();
        let backup = house.backup().await?;
        ensure!(begun.elapsed() < LIMIT / 2, "it waited for WAL that cannot come");
        ensure!(backup.resumed.is_none() && backup.read_bytes > 0, "{backup:?}");
        ensure!(house.line.attempts().await?.is_empty(), "the dead attempt is fenced");
    }
    Ok(())
}
