//! A backup after one that died, when what the dead one left is of no use.

#[path = "restore/house.rs"]
#[allow(dead_code, reason = "it is the house of the restore tests")]
mod house;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use house::{House, LIMIT};
use jiff::Timestamp;
use seawall_core::{BackupId, Code, Error, Hint, Lsn, Progress, Stage, TimelineId, Ulid};
use seawall_engine::Crew;
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::{Content, Entry, EntryKind, Page};
use seawall_repo::pack::PackInfo;
use seawall_repo::records::{About, Pin, PinRole};

/// An attempt of this host before it was started anew: nothing but its silence tells that it died.
fn dead_attempt(id: BackupId, start_lsn: Lsn) -> Result<Pin> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").context("hostname")?;
    let pack = PackInfo { id: id.0, length_bytes: 1000, footer_hash: Default::default() };
    let entry = Entry {
        path: b"base/1/1259".to_vec().into(),
        kind: EntryKind::File,
        mode: 0o600,
        size_bytes: Some(8192),
        modified_us: Some(1),
        content: Some(Content::Blob { pack: id.0, frame: 0, offset: 0, hashes: vec![1; 8] }),
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
        packs: vec![pack],
        maps: Vec::new(),
        files: Page(vec![entry]),
        backups: Vec::new(),
        process_started: None,
        namespaces: None,
        manifests: Vec::new(),
        ended_us: None,
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
        let resumed = backup.kept().find_map(|(_, kept)| kept.resumed);
        ensure!(resumed.is_none() && backup.read_bytes > 0, "{backup:?}");
        ensure!(house.line.attempts().await?.is_empty(), "the dead attempt is fenced");
    }
    Ok(())
}

/// A line beside that of the house, with an attempt that began three days ago, and its unfinished
/// object; `pin` makes of the usual record what the attempt writes.
async fn other_line(house: &House, pin: impl Fn(Pin) -> Pin) -> Result<Other> {
    let repository = house.line.repository();
    let other = repository.line(&"other".parse()?, house.line.id())?;
    let about = house.line.about().await?.context("the line")?;
    other.create(&About { cluster: "other".to_owned(), ..about }).await?;
    let id = BackupId::new(Timestamp::now(), 3)?;
    let mut records = Vec::new();
    for number in 0..2 {
        let path = other.paths().path(&LineObject::Pin(id.0, number))?;
        repository.create_record(&path, &pin(dead_attempt(id, Lsn(0x100))?)).await?;
        records.push(path.to_string());
    }
    written_before(house, &records[0], 3 * DAY)?;
    let manifest = other.paths().path(&LineObject::Manifest(Ulid(3)))?;
    let directory = house.repository.join(manifest.parent().to_string());
    fs::create_dir_all(&directory)?;
    for (name, days) in [("its-own", 2), ("left-behind", 4)] {
        let path = directory.join(format!("{name}.seawall-tmp"));
        fs::write(&path, "unfinished")?;
        let name = path.strip_prefix(&house.repository)?.to_string_lossy().into_owned();
        written_before(house, &name, days * DAY)?;
    }
    Ok(Other { records, directory })
}

struct Other {
    /// The names of the attempt's records.
    records: Vec<String>,
    directory: PathBuf,
}

impl Other {
    /// Whether its unfinished object is there, and one that is older than the attempt.
    fn is_there(&self) -> (bool, bool) {
        let is_there = |name| self.directory.join(format!("{name}.seawall-tmp")).exists();
        (is_there("its-own"), is_there("left-behind"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_many_days_keeps_its_unfinished_object_from_another_s_sweep() -> Result<()> {
    let house = House::new().await?;
    let other = other_line(&house, |pin| Pin { host: "db2".to_owned(), ..pin }).await?;
    house.backup().await?;
    ensure!(other.is_there() == (true, false), "heard of a moment ago: {:?}", other.is_there());

    // An hour later nothing was heard of it again: it died.
    written_before(&house, &other.records[1], 60 * MINUTE)?;
    house.backup().await?;
    ensure!(other.is_there() == (false, false), "what a dead writer left is swept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_process_is_seen_keeps_its_unfinished_object_however_long_it_is_silent()
-> Result<()> {
    let house = House::new().await?;
    // One process, stopped for a day and longer, as on a suspended machine.
    let mut process = Command::new("sleep").arg("600").spawn()?;
    let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let boot_id = line("/proc/sys/kernel/random/boot_id")?;
    let namespace = |name: &str| fs::read_link(format!("/proc/self/ns/{name}"));
    let namespaces = [namespace("pid")?, namespace("time").unwrap_or_default()]
        .map(|link| link.to_string_lossy().into_owned());
    let namespaces = namespaces.join(" ").trim_end().to_owned();
    let stat = line(&format!("/proc/{}/stat", process.id()))?;
    let (_, fields) = stat.rsplit_once(')').context("its state")?;
    let started = fields.split_whitespace().nth(19).context("its start")?.parse()?;
    let other = other_line(&house, |pin| Pin {
        boot_id: boot_id.clone(),
        namespaces: Some(namespaces.clone()),
        process_id: process.id(),
        process_started: Some(started),
        ..pin
    })
    .await?;
    written_before(&house, &other.records[1], 2 * DAY)?;
    house.backup().await?;
    ensure!(other.is_there() == (true, false), "its process runs: {:?}", other.is_there());

    process.kill()?;
    process.wait()?;
    written_before(&house, &other.records[1], Duration::ZERO)?;
    house.backup().await?;
    ensure!(other.is_there() == (false, false), "its process is gone: {:?}", other.is_there());
    Ok(())
}

/// Tells when copying has begun.
struct Copying(tokio::sync::Notify);

impl Progress for Copying {
    fn stage(&self, stage: Stage, _: Option<u64>) {
        if stage == Stage::Copying {
            self.0.notify_one();
        }
    }

    fn advance(&self, _: u64) {}

    fn note(&self, _: &Hint) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_of_one_process_see_each_other_and_one_that_was_dropped_is_over() -> Result<()>
{
    let house = House::new().await?;
    let (copying, crew) = (Copying(tokio::sync::Notify::new()), Crew::new("50kB/s".parse()?));
    let first = house.backup_by(crew.clone(), &copying);
    let second = async {
        copying.0.notified().await;
        house.backup().await
    };
    let refused = tokio::select! {
        first = first => anyhow::bail!("too fast to be seen: {first:?}"),
        refused = second => refused.expect_err("the first one runs"),
    };
    let code = refused.downcast_ref::<Error>().context("an error of Seawall")?.code();
    ensure!(code == Code::BackupRunning, "{refused:#}");
    crew.ended().await;
    house.backup().await?;
    ensure!(house.line.attempts().await?.is_empty(), "the dropped one is fenced");
    Ok(())
}
