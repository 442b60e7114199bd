//! `pg_waldump` and the reader agree on every record of a real server's log, whatever the server
//! did: every kind of index, prepared transactions and subtransactions, DDL, records over 64 MiB,
//! and records that a kill tore and the server then gave up.

mod acts;
mod compare;
mod evidence;
mod indexes;
mod log;
mod story;
#[path = "../wal_support/waldump.rs"]
mod waldump;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use compare::Seen;
use evidence::Evidence;
use seawall_testkit::faults::Random;
use seawall_testkit::{PgBin, PgCluster, StopMode};
use story::{Length, Story};

/// The seed of CI.
const SEED: u64 = 20_260_101;

/// A record is to be longer than this.
const LONG_RECORD_BYTES: u64 = 64 << 20;

/// Seen in every story of any length, on every major; the rest is evidence.
const ALWAYS: [&str; 48] = [
    "XLOG CHECKPOINT_ONLINE",
    "XLOG CHECKPOINT_SHUTDOWN",
    "XLOG SWITCH",
    "XLOG BACKUP_END",
    "XLOG PARAMETER_CHANGE",
    "XLOG RESTORE_POINT",
    "XLOG FPW_CHANGE",
    "XLOG FPI",
    "XLOG OVERWRITE_CONTRECORD",
    "Transaction COMMIT",
    "Transaction ABORT",
    "Transaction PREPARE",
    "Transaction COMMIT_PREPARED",
    "Transaction ABORT_PREPARED",
    "Transaction ASSIGNMENT",
    "Transaction INVALIDATION",
    "Storage CREATE",
    "Storage TRUNCATE",
    "Database CREATE_FILE_COPY",
    "Database CREATE_WAL_LOG",
    "Database DROP",
    "Tablespace CREATE",
    "Tablespace DROP",
    "MultiXact CREATE_ID",
    "RelMap UPDATE",
    "Standby RUNNING_XACTS",
    "Heap INSERT",
    "Heap HOT_UPDATE",
    "Heap HEAP_CONFIRM",
    "Heap TRUNCATE",
    "Heap INPLACE",
    "Heap LOCK",
    "Heap2 MULTI_INSERT",
    "Heap2 REWRITE",
    "Heap2 NEW_CID",
    "Btree SPLIT_R",
    "Btree DEDUP",
    "Btree UNLINK_PAGE",
    "Hash SPLIT_ALLOCATE_PAGE",
    "Hash ADD_OVFL_PAGE",
    "Gin SPLIT",
    "Gin INSERT_LISTPAGE",
    "Gist PAGE_SPLIT",
    "SPGist PICKSPLIT",
    "BRIN DESUMMARIZE",
    "Sequence LOG",
    "ReplicationOrigin SET",
    "LogicalMessage MESSAGE",
];

#[test]
fn pg_waldump_and_the_reader_agree_on_every_record() -> Result<()> {
    let major = *majors_with_waldump()?.first().unwrap_or(&15);
    tell(major, Random::new(SEED), Length::Short).map(drop)
}

#[test]
#[ignore = "long: cargo xtask soak waldump"]
fn they_agree_on_long_stories_of_every_major() -> Result<()> {
    let mut evidence = Evidence::from_environment(SEED)?;
    let majors = majors_with_waldump()?;
    let mut seeds = Random::new(evidence.seed);
    for (round, major) in (0..evidence.rounds).zip(majors.iter().cycle()) {
        let seed = seeds.next_u64();
        let began = Instant::now();
        let seen = tell(*major, Random::new(seed), Length::Long)?;
        let seconds = began.elapsed().as_secs();
        eprintln!("round {round}: {major}, seed {seed}: {} records, {seconds} s", seen.records);
        evidence.add(&PgBin::find(*major)?.version()?, &seen);
    }
    evidence.write()
}

/// The majors that come with `pg_waldump`, of those that know `STRATEGY` of `CREATE DATABASE`.
fn majors_with_waldump() -> Result<Vec<u16>> {
    let known = PgBin::installed().into_iter().filter(|major| *major >= 15);
    let with = |major: &u16| PgBin::find(*major).is_ok_and(|bin| bin.program("pg_waldump").is_ok());
    let majors: Vec<u16> = known.filter(with).collect();
    ensure!(!majors.is_empty(), "no PostgreSQL from 15 on with pg_waldump: run cargo xtask setup");
    Ok(majors)
}

/// Lets a server live through a story and compares all of its log.
fn tell(major: u16, mut random: Random, length: Length) -> Result<Seen> {
    let segment_mb = match length {
        Length::Short => 1,
        Length::Long => 1 << (2 * random.below(3)),
    };
    let mut cluster = PgCluster::builder(major)
        .without_fsync()
        .wal_segment_mb(segment_mb)
        .config("wal_level", "logical")
        .config("max_prepared_transactions", "20")
        .config("track_commit_timestamp", "on")
        .config("max_wal_size", "4GB")
        // Nothing is removed before it was compared.
        .config("wal_keep_size", "1TB")
        // A long record is written in many steps, so that a kill finds it unfinished.
        .config("wal_buffers", "64kB")
        .start()?;
    let torn = Story { cluster: &mut cluster, random, length }.tell()?;
    cluster.stop(StopMode::Fast)?;
    let seen = compare::whole_log(&cluster, segment_mb)?;
    check_coverage(&seen, torn)?;
    Ok(seen)
}

fn check_coverage(seen: &Seen, torn: u64) -> Result<()> {
    let missing: Vec<&str> =
        ALWAYS.into_iter().filter(|operation| !seen.operations.contains_key(*operation)).collect();
    ensure!(missing.is_empty(), "never seen: {missing:?}\n{:#?}", seen.operations);
    ensure!(seen.longest_bytes > LONG_RECORD_BYTES, "longest record: {} bytes", seen.longest_bytes);
    ensure!(seen.most_subxids > 64, "no transaction of many subtransactions");
    ensure!(seen.images > 0 && seen.images_to_verify > 0, "no page images of both kinds");
    let overwritten = seen.operations.get("XLOG OVERWRITE_CONTRECORD").copied();
    ensure!(overwritten == Some(torn), "{torn} records torn, {overwritten:?} given up");
    ensure!(seen.overwriting_pages == torn, "{} pages overwrite a record", seen.overwriting_pages);
    Ok(())
}

/// Counts by name.
type Counts = BTreeMap<String, u64>;
