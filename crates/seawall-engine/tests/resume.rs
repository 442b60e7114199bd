//! A backup after one that died, when what the dead one left is of no use.

#[path = "restore/house.rs"]
#[allow(dead_code, reason = "it is the house of the restore tests")]
mod house;

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use house::{House, LIMIT};
use jiff::Timestamp;
use seawall_core::{BackupId, Code, Error, Lsn, TimelineId};
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{Content, Entry, EntryKind};
use seawall_repo::pack::PackInfo;
use seawall_repo::records::{About, NumberedPack, Pin, PinRole};

/// An attempt of this host before it was started anew: nothing but its silence tells that it died.
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
        namespaces: None,
    })
}

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Makes a file of the repository as old as that, by the clock of the store.
fn written_before(house: &House, name: &str, age: Duration) -> Result<()> {
    let file = fs::File::options().append(true).open(house.repository.join(name))?;
    Ok(file.set_modified(SystemTime::now() - age)?)
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
        let refused = house.backup().await.expect_err("it was heard of a moment ago");
        let code = refused.downcast_ref::<Error>().context("an error of Seawall")?.code();
        ensure!(code == Code::BackupRunning, "{refused:#}");
        written_before(&house, path.as_str(), 6 * MINUTE)?;
        let begun = Instant::now();
        let backup = house.backup().await?;
        ensure!(begun.elapsed() < LIMIT / 2, "it waited for WAL that cannot come");
        ensure!(backup.resumed.is_none() && backup.read_bytes > 0, "{backup:?}");
        ensure!(house.line.attempts().await?.is_empty(), "the dead attempt is fenced");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_many_days_keeps_its_unfinished_files_from_another_s_sweep() -> Result<()> {
    let house = House::new().await?;
    let repository = house.line.repository();
    let other = repository.line(&"other".parse()?, house.line.id())?;
    let about = house.line.about().await?.context("the line")?;
    other.create(&About { cluster: "other".to_owned(), ..about }).await?;
    // It began three days ago, on another host, and was heard of just now.
    let id = BackupId::new(Timestamp::now(), 3)?;
    for number in 0..2 {
        let path = other.paths().path(&LineObject::Pin(id.0, number))?;
        let pin = Pin { host: "db2".to_owned(), ..dead_attempt(id, Lsn(0x100))? };
        repository.create_record(&path, &pin).await?;
        if number == 0 {
            written_before(&house, path.as_str(), 3 * DAY)?;
        }
    }
    let manifest = other.paths().path(&LineObject::Backup(id, 0))?;
    let directory = house.repository.join(manifest.parent().to_string());
    fs::create_dir_all(&directory)?;
    for (name, days) in [("its-own", 2), ("left-behind", 4)] {
        let path = directory.join(format!("{name}.seawall-tmp"));
        fs::write(&path, "unfinished")?;
        let name = path.strip_prefix(&house.repository)?.to_string_lossy().into_owned();
        written_before(&house, &name, days * DAY)?;
    }
    house.backup().await?;
    ensure!(directory.join("its-own.seawall-tmp").exists(), "a running backup lost its manifest");
    ensure!(!directory.join("left-behind.seawall-tmp").exists(), "older than any writer");
    Ok(())
}
