//! Every segment that a real server has archived as a whole one counts as whole, however it came to
//! be; and nothing else does.

#[path = "../../seawall-repo/tests/archive_support/mod.rs"]
mod archive_support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use archive_support::{Fixture, push};
use seawall_core::{Code, Lsn, SystemId, TimelineId, WalFileName};
use seawall_pgdata::PgMajor;
use seawall_repo::wal::HistoryStored;
use seawall_testkit::process::wait_until;
use seawall_testkit::{Ledger, PgBin, PgCluster};

const LIMIT: Duration = Duration::from_secs(60);

/// Bytes of the test's WAL segments.
const SEGMENT_BYTES: u64 = 1 << 20;

fn archiving(major: u16) -> Result<PgCluster> {
    let mut cluster = PgCluster::builder(major)
        .wal_segment_mb(1)
        .config("autovacuum", "off")
        .config("bgwriter_delay", "10s")
        .config("checkpoint_timeout", "1h")
        .create()?;
    cluster.owner().create_dir(&cluster.scratch().join("archive"), 0o755)?;
    archive_into(&cluster, "on", &cluster.scratch().join("archive"))?;
    cluster.start()?;
    Ok(cluster)
}

fn archive_into(cluster: &PgCluster, mode: &str, to: &Path) -> Result<()> {
    let to = to.display();
    cluster.set("archive_mode", mode)?;
    cluster.set("archive_command", &format!("cp %p {to}/.new && mv {to}/.new {to}/%f"))
}

/// Ends the segment and waits until all before its end is archived.
fn archive_now(cluster: &PgCluster, archive: &Path) -> Result<()> {
    cluster.psql("SELECT pg_create_restore_point('something')")?;
    let end = cluster.switch_wal()?;
    let name = cluster.psql(&format!("SELECT pg_walfile_name('{end}')"))?;
    wait_until("the last segment", LIMIT, || Ok(archive.join(&name).exists()))
}

fn insert_lsn(cluster: &PgCluster) -> Result<Lsn> {
    Ok(cluster.psql("SELECT pg_current_wal_insert_lsn()")?.parse()?)
}

fn message(cluster: &PgCluster, bytes: u64) -> Result<()> {
    cluster
        .psql(&format!("SELECT pg_logical_emit_message(false, 'm', repeat('x', {bytes}))"))
        .map(drop)
}

/// A switch whose record begins 16 bytes before a segment's end. Returns where the segment behind
/// that ends, which it leaves empty.
fn crossing_switch(cluster: &PgCluster) -> Result<Lsn> {
    for _ in 0..20 {
        let now = insert_lsn(cluster)?;
        let end = Lsn(now.0.next_multiple_of(SEGMENT_BYTES));
        match end.0 - now.0 {
            left @ 9000.. => message(cluster, left - left / 250 - 5000)?,
            left @ 2000.. => {
                message(cluster, 504)?;
                let overhead = left - (end.0 - insert_lsn(cluster)?.0) - 504;
                let room = left - 504 - overhead;
                message(cluster, room - overhead - 16)?;
                if insert_lsn(cluster)? == Lsn(end.0 - 16) {
                    let switched: Lsn = cluster.psql("SELECT pg_switch_wal()")?.parse()?;
                    ensure!(switched > end, "{switched} does not cross {end}");
                    return Ok(end.saturating_add(SEGMENT_BYTES));
                }
            }
            _ => message(cluster, 9000)?,
        }
    }
    bail!("no switch crossed a segment's end")
}

/// Pushes what a server archived, histories first as it does, and returns the names of segments
/// that are valid only up to a place within them.
async fn push_all(fixture: &Fixture, archive: &Path) -> Result<Vec<String>> {
    let mut files: Vec<String> = fs::read_dir(archive)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    files.retain(|name| name != ".new" && !name.ends_with(".backup"));
    files.sort_by_key(|name| (!name.ends_with(".history"), name.clone()));
    let mut left = Vec::new();
    for name in files {
        let bytes = fs::read(archive.join(&name))?;
        let file = WalFileName::parse(&name, fixture.archive.segment_size());
        match file.with_context(|| name.clone())? {
            WalFileName::Segment(segment) => {
                let stored = push(&fixture.archive, &name, &bytes).await;
                let stored = stored.with_context(|| format!("{name} is refused"))?;
                left.extend(Some(name).filter(|_| stored.valid_to < segment.end()));
            }
            WalFileName::Partial(_) => _ = push(&fixture.archive, &name, &bytes).await?,
            history => {
                let stored = fixture.archive.store_history(history, &bytes).await?;
                ensure!(matches!(stored, HistoryStored::Stored | HistoryStored::AlreadyThere));
            }
        }
    }
    Ok(left)
}

async fn fixture(cluster: &PgCluster, major: u16) -> Result<Fixture> {
    let system_id = cluster.psql("SELECT system_identifier FROM pg_control_system()")?;
    let major = PgMajor::from_number(u32::from(major)).context("major")?;
    Ok(Fixture::of(SystemId(system_id.parse()?), major).await)
}

/// The archive holds one log without a hole along the timeline, up to `end` at least.
async fn prove_one_log(fixture: &Fixture, timeline: u32, end: Lsn) -> Result<()> {
    let archive = fixture.reopened().await;
    let ancestry = archive.ancestry(TimelineId(timeline)).await?;
    let stretches = archive.coverage(&ancestry, Lsn::INVALID).await?;
    let [stretch] = stretches.as_slice() else { bail!("{stretches:?}") };
    ensure!(stretch.range.end >= end, "{stretch:?} does not reach {end}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_server_has_archived_is_whole_on_every_major() -> Result<()> {
    for major in PgBin::installed() {
        tell(major, story(major).await)?;
    }
    Ok(())
}

fn tell(major: u16, outcome: Result<()>) -> Result<()> {
    outcome.with_context(|| format!("PostgreSQL {major}"))
}

/// Long records, crashes amid writes, switches, among them one that crosses into a segment, and a
/// setting that changes.
async fn story(major: u16) -> Result<()> {
    let mut server = archiving(major)?;
    let archive = server.scratch().join("archive");
    message(&server, 3_000_000)?;
    let crossed = crossing_switch(&server)?;
    server.psql("SELECT pg_switch_wal()")?;
    let running = Ledger::start(&server, 2)?;
    running.wait_for(60, LIMIT)?;
    server.kill9()?;
    server.start()?;
    running.wait_for(60, LIMIT)?;
    running.stop()?;
    server.set("max_connections", "60")?;
    server.restart()?;
    message(&server, 1_500_000)?;
    archive_now(&server, &archive)?;
    let end = insert_lsn(&server)?;
    let end = Lsn(end.0 - end.0 % SEGMENT_BYTES);
    ensure!(end > crossed);

    let fixture = fixture(&server, major).await?;
    let left = push_all(&fixture, &archive).await?;
    ensure!(left.is_empty(), "not whole: {left:?}");
    prove_one_log(&fixture, 1, end).await?;

    // Cut anywhere, none of them is whole any more: the rest as never written, or as a recycled file
    // has it.
    let name = WalFileName::Segment(fixture.archive.segment_at(TimelineId(1), Lsn(end.0 - 1)));
    let before = WalFileName::Segment(
        fixture.archive.segment_at(TimelineId(1), Lsn(end.0 - 1 - SEGMENT_BYTES)),
    );
    let name = [name, before].map(|name| name.to_string());
    let full = fs::read(archive.join(&name[1]))?;
    let other = Fixture::of(fixture.archive.system_id(), fixture.archive.major()).await;
    for cut in [full.len() / 2, full.len() - 8192] {
        let (mut zeroed, mut recycled) = (full.clone(), full.clone());
        zeroed[cut..].fill(0);
        recycled[cut..].copy_from_slice(&fs::read(archive.join(&name[0]))?[cut..]);
        for damaged in [zeroed, recycled] {
            let error = push(&other.archive, &name[1], &damaged).await.err();
            ensure!(error.as_ref().map(seawall_core::Error::code) == Some(Code::WalDamaged));
        }
    }
    Ok(())
}

/// With `archive_mode = always` a standby has the segment archived in which its primary's timeline
/// ended, under its plain name, whatever stands behind.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_standby_archives_of_a_timeline_that_was_left_is_taken() -> Result<()> {
    let major = PgBin::default_major()?;
    let primary = archiving(major)?;
    let archive = primary.scratch().join("archive");
    let mut middle = primary.standby()?;
    let mut last = middle.standby()?;
    let of_last = last.scratch().join("archive");
    last.owner().create_dir(&of_last, 0o755)?;
    archive_into(&last, "always", &of_last)?;
    last.restart()?;
    message(&primary, 2_500_000)?;
    primary.psql("CREATE TABLE t AS SELECT g FROM generate_series(1, 3000) g")?;
    let caught_up = primary.current_lsn()?;
    for standby in [&middle, &last] {
        wait_until("a standby", LIMIT, || {
            let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{caught_up}'");
            Ok(standby.psql(&sql)? == "t")
        })?;
    }
    middle.promote()?;
    middle.psql("CREATE TABLE after AS SELECT g FROM generate_series(1, 20000) g")?;
    archive_now(&middle, &archive)?;
    let end = insert_lsn(&middle)?;
    let end = Lsn(end.0 - end.0 % SEGMENT_BYTES);
    let name = middle.psql(&format!("SELECT pg_walfile_name('{}')", Lsn(end.0 - 1)))?;
    wait_until("the last standby's archive", LIMIT, || Ok(of_last.join(&name).exists()))?;

    let fixture = fixture(&middle, major).await?;
    let left = push_all(&fixture, &of_last).await?;
    ensure!(left.len() == 1, "one segment ends where its timeline does: {left:?}");
    prove_one_log(&fixture, 2, end).await?;
    // What the two primaries archived is the same.
    let left = push_all(&fixture, &archive).await?;
    ensure!(left.is_empty(), "not whole: {left:?}");
    prove_one_log(&fixture, 2, end).await
}
