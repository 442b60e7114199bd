//! Backups that lead on from another one: they read and store what changed, and are page by page what
//! a full one is.

mod support;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use seawall_core::Lsn;
use seawall_pgdata::checksum::page_checksum;
use seawall_testkit::faults::{self, Random};
use seawall_testkit::oracles::Dump;
use seawall_testkit::pages::same_pages;
use seawall_testkit::{PgCluster, StopMode};
use serde_json::Value;
use support::{Protected, open_restored, prove_same_content, tells};

const SHOP: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text, at int); \
    INSERT INTO orders SELECT g, md5(g::text) || md5((g + 1)::text), g % 97 FROM generate_series(1, 60000) g; \
    CREATE INDEX ON orders (at); CREATE SEQUENCE numbers; VACUUM";

/// More than is looked at where nothing changed.
const STILL: &str = "CREATE TABLE still (id int, note text) WITH (fillfactor = 10); \
    INSERT INTO still SELECT g, md5(g::text) || md5((g + 1)::text) FROM generate_series(1, 120000) g; \
    VACUUM still";

fn backup(house: &Protected, arguments: &[&str]) -> Result<Value> {
    let arguments = ["backup", "--json"].iter().chain(arguments).copied();
    house.command(arguments).succeed()?.json()
}

fn start(report: &Value) -> Result<Lsn> {
    Ok(report["start_lsn"].as_str().context("no start LSN")?.parse()?)
}

fn id(report: &Value) -> Result<&str> {
    report["id"].as_str().with_context(|| format!("id of {report}"))
}

fn number(report: &Value, key: &str) -> Result<u64> {
    report[key].as_u64().with_context(|| format!("{key} of {report}"))
}

#[test]
fn a_second_backup_reads_and_stores_what_changed_and_restores_to_the_same() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql(&format!("{SHOP}; {STILL}"))?;
    let first = backup(&house, &[])?;
    ensure!(first["kind"] == "full" && first["parent"].is_null(), "{first}");
    house.pg.psql(
        "UPDATE orders SET note = 'paid' WHERE id IN (7, 30000); SELECT setval('numbers', 7); \
         INSERT INTO orders SELECT g, 'new', 0 FROM generate_series(60001, 60400) g",
    )?;
    let second = backup(&house, &[])?;
    ensure!(second["kind"] == "incremental" && second["parent"] == first["id"], "{second}");
    let (all, read) = (number(&second, "cluster_bytes")?, number(&second, "read_bytes")?);
    ensure!(read * 10 < all * 9, "read {read} of {all}");
    let [before, added] = [&first, &second].map(|report| number(report, "stored_bytes"));
    let (before, added) = (before?, added?);
    ensure!(added * 4 < before, "added {added} to {before}");
    house.command(["verify"]).succeed()?;
    house.archive_everything()?;
    let dump = Dump::take_without_tablespaces(house.pg.connection())?;
    for (room, report) in [("second", &second), ("first", &first)] {
        house.restore(room, ["--latest", "--backup", id(report)?]).succeed()?;
        prove_same_content(&house.room(room), &dump)?;
    }
    Ok(())
}

#[test]
fn a_parent_can_be_named_and_one_that_is_of_no_use_is_refused() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql("CREATE TABLE t AS SELECT 1 AS a")?;
    let first = backup(&house, &[])?;
    let second = backup(&house, &[])?;
    ensure!(second["parent"] == first["id"], "{second}");
    let third = backup(&house, &["--parent", id(&first)?])?;
    ensure!(third["parent"] == first["id"], "{third}");
    let fourth = backup(&house, &["--parent", "latest~1"])?;
    ensure!(fourth["parent"] == second["id"], "{fourth}");
    let told = house.command(["backup", "--parent", "20200101"]).fail(3)?;
    tells(&told, "SW0601")?;
    house.command(["backup", "--parent", "latest", "--full"]).fail(2)?;
    // Whose files are laid out otherwise is nobody's parent.
    let full = backup(&house, &["--full"])?;
    ensure!(full["kind"] == "full" && full["parent"].is_null(), "{full}");
    Ok(())
}

/// What may happen to a database between two backups; each leaves it able to go on.
const STEPS: &[&str] = &[
    "UPDATE orders SET note = note || '!' WHERE id % 997 = {n}",
    "DELETE FROM orders WHERE id BETWEEN {n} * 50 AND {n} * 50 + 300",
    "INSERT INTO orders SELECT g, 'again', {n} FROM generate_series(100000 + {n} * 100, 100099 + {n} * 100) g ON CONFLICT DO NOTHING",
    "DELETE FROM orders WHERE id > 40000 AND {n} % 2 = 0",
    "VACUUM orders",
    "VACUUM FULL orders",
    "CLUSTER orders USING orders_pkey",
    "REINDEX TABLE orders",
    "TRUNCATE extra",
    "INSERT INTO extra SELECT g, repeat('x', 200) FROM generate_series(1, 3000) g",
    "DELETE FROM extra; VACUUM extra; INSERT INTO extra SELECT g, repeat('z', 150) FROM generate_series(1, 900 * {n}) g",
    "CREATE TABLE IF NOT EXISTS extra_{n} AS TABLE orders",
    "DROP TABLE IF EXISTS extra_{n}",
    "ALTER TABLE extra SET UNLOGGED",
    "ALTER TABLE extra SET LOGGED",
    "SELECT setval('numbers', 10 + {n})",
    "SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE {n} % 3 = 0",
    "SELECT lo_from_bytea(0, decode(repeat('ab', 9000), 'hex'))",
    "CREATE DATABASE other_{n} TEMPLATE template0 {strategy}",
    "DROP DATABASE IF EXISTS other_{n}",
    "CHECKPOINT",
    "SELECT pg_switch_wal()",
    "BEGIN; SAVEPOINT a; UPDATE orders SET at = at + 1 WHERE id = {n}; ROLLBACK TO a; UPDATE orders SET at = 0 WHERE id = {n} + 1; COMMIT",
    "BEGIN; UPDATE orders SET at = 7 WHERE id % 50 = {n}; PREPARE TRANSACTION 'later'; SELECT pg_switch_wal(); COMMIT PREPARED 'later'",
    "CREATE INDEX IF NOT EXISTS extra_hash ON extra USING hash (b)",
    "CREATE INDEX IF NOT EXISTS orders_brin ON orders USING brin (at)",
    "CREATE INDEX IF NOT EXISTS spots_gist ON spots USING gist (at)",
    "INSERT INTO spots SELECT point(g, {n}), ARRAY[g, {n}] FROM generate_series(1, 500) g",
    "CREATE INDEX IF NOT EXISTS spots_spgist ON spots USING spgist (at)",
    "CREATE INDEX IF NOT EXISTS spots_gin ON spots USING gin (tags)",
    "SELECT count(*) FROM orders WHERE at = {n}",
];

/// A cluster to which random things happen.
struct History {
    house: Protected,
    random: Random,
    major: u16,
}

impl History {
    fn begin(major: u16, seed: u64) -> Result<Self> {
        let shape = PgCluster::builder(major).config("autovacuum", "off");
        let house = Protected::with(shape.config("max_prepared_transactions", "2"), false)?;
        house.pg.psql(SHOP)?;
        house.pg.psql(
            "CREATE TABLE extra (a int, b text); CREATE TABLE spots (at point, tags int[]); \
             INSERT INTO extra SELECT g, repeat('y', 100) FROM generate_series(1, 2000) g",
        )?;
        Ok(Self { house, random: Random::new(seed), major })
    }

    fn step(&mut self) -> Result<()> {
        let n = self.random.below(8).to_string();
        let at = usize::try_from(self.random.below(STEPS.len() as u64))?;
        let strategy = match (self.major, self.random.below(2)) {
            (..15, _) => "",
            (_, 0) => "STRATEGY file_copy",
            (_, _) => "STRATEGY wal_log",
        };
        let sql = STEPS.get(at).context("no step")?.replace("{n}", &n);
        let sql = sql.replace("{strategy}", strategy);
        self.house.pg.psql(&sql).with_context(|| sql.clone())?;
        Ok(())
    }
}

/// Backups that lead on from each other, between random changes. Each is compared with a full one of
/// the same moment.
fn history(major: u16, seed: u64, backups: u64) -> Result<()> {
    let mut history = History::begin(major, seed)?;
    let mut parent = id(&backup(&history.house, &[])?)?.to_owned();
    for round in 0..backups {
        for _ in 0..5 {
            history.step().with_context(|| format!("seed {seed}, round {round}"))?;
        }
        let doing = || format!("seed {seed}, round {round}");
        let house = &history.house;
        let incremental = backup(house, &["--parent", &parent]).with_context(doing)?;
        let full = backup(house, &["--full"]).with_context(doing)?;
        ensure!(incremental["parent"] == parent, "{}: {incremental}", doing());
        for (room, report) in [("one", &incremental), ("other", &full)] {
            house.restore(room, ["--backup-only", "--backup", id(report)?]).succeed()?;
        }
        let (one, other) = (house.room("one"), house.room("other"));
        let pages = same_pages(&one, &other, start(&incremental)?).with_context(doing)?;
        ensure!(pages > 1000, "only {pages} pages were compared");
        fs::remove_dir_all(one)?;
        fs::remove_dir_all(other)?;
        id(&incremental)?.clone_into(&mut parent);
    }
    history.house.command(["verify"]).succeed()?;
    Ok(())
}

macro_rules! histories {
    ($($name:ident: $major:literal),+) => {$(
        #[test]
        fn $name() -> Result<()> {
            let seeds = 0..1 + support::rounds();
            seeds.map(|seed| history($major, 20_261_128 + 100 * seed + $major, 4)).collect()
        }
    )+};
}

histories! {
    each_backup_of_a_random_history_is_page_by_page_what_a_full_one_is_on_12: 12,
    each_backup_of_a_random_history_is_page_by_page_what_a_full_one_is_on_13: 13,
    each_backup_of_a_random_history_is_page_by_page_what_a_full_one_is_on_14: 14,
    each_backup_of_a_random_history_is_page_by_page_what_a_full_one_is_on_15: 15,
    each_backup_of_a_random_history_is_page_by_page_what_a_full_one_is_on_16: 16,
    each_backup_of_a_random_history_is_page_by_page_what_a_full_one_is_on_17: 17,
    each_backup_of_a_random_history_is_page_by_page_what_a_full_one_is_on_18: 18
}

#[test]
fn a_page_that_rots_where_nothing_changed_is_told_and_kept_as_it_was() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql(
        "CREATE TABLE small AS SELECT g AS a FROM generate_series(1, 500) g; \
         CREATE TABLE large AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 20000) g; CHECKPOINT",
    )?;
    let files = ["small", "large"]
        .map(|table| house.pg.psql(&format!("SELECT pg_relation_filepath('{table}')")));
    let [small, large] = files;
    let (small, large) = (small?, large?);
    backup(&house, &[])?;
    house.pg.stop(StopMode::Fast)?;
    for (file, block) in [(&small, 1), (&large, 77)] {
        faults::flip_bit(&house.pg.data_directory().join(file), block * 8192 + 5000)?;
    }
    house.pg.start()?;

    let output = house.command(["backup", "--json"]).fail(6)?;
    let report = output.json()?;
    ensure!(report["page_errors"] == 0 && report["damaged_beside"] == 2, "{report}");
    tells(&output, "SW0403")?;
    for file in [&small, &large] {
        ensure!(output.stderr.contains(file.as_str()), "{file}: {}", output.stderr);
    }
    let shown = house.command(["show", "latest"]).run()?.stdout;
    ensure!(shown.contains(&large) && shown.contains("block 77"), "{shown}");
    let status = house.command(["status"]).fail(2)?;
    ensure!(status.stdout.contains(" --full"), "{}", status.stdout);

    // The next one keeps them too.
    house.command(["backup"]).fail(6)?;
    house.archive_everything()?;
    house.restore("room", ["--latest", "--backup", "latest"]).succeed()?;
    let restored = open_restored(&house.room("room"))?;
    let sums = "SELECT (SELECT sum(a) FROM small), (SELECT count(b) FROM large)";
    ensure!(restored.psql(sums)? == "125250|20000");
    Ok(())
}

/// Changes a byte of a page as a server would that keeps no log.
fn change_unlogged(file: &Path, block: u32, lsn: Lsn) -> Result<()> {
    let mut content = fs::read(file)?;
    let (pages, _) = content.as_chunks_mut::<8192>();
    let page = pages.get_mut(block as usize).context("no such page")?;
    let (high, low) = ((lsn.0 >> 32) as u32, (lsn.0 & 0xffff_ffff) as u32);
    page[0..4].copy_from_slice(&high.to_le_bytes());
    page[4..8].copy_from_slice(&low.to_le_bytes());
    page[8191] ^= 1;
    let checksum = page_checksum(page, block);
    page[8..10].copy_from_slice(&checksum.to_le_bytes());
    Ok(fs::write(file, content)?)
}

#[test]
fn a_block_that_changed_without_a_record_is_an_incident_and_its_file_is_taken_whole() -> Result<()>
{
    let mut house = Protected::start()?;
    house.pg.psql(
        "CREATE TABLE large AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 20000) g; \
         CREATE TABLE small AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 300) g; VACUUM; CHECKPOINT",
    )?;
    let mut files = Vec::new();
    for table in ["small", "large"] {
        files.push(house.pg.psql(&format!("SELECT pg_relation_filepath('{table}')"))?);
    }
    backup(&house, &[])?;
    house
        .pg
        .psql("CREATE TABLE other (a int); INSERT INTO other VALUES (1); SELECT pg_switch_wal()")?;
    let lsn = house.pg.current_lsn()?;
    house.pg.stop(StopMode::Fast)?;
    for (file, block) in files.iter().zip([1, 99]) {
        change_unlogged(&house.pg.data_directory().join(file), block, lsn)?;
    }
    house.pg.start()?;
    let now = house.pg.psql("SELECT md5(string_agg(b, '' ORDER BY a)) FROM large")?;

    let output = house.command(["backup", "--json"]).fail(6)?;
    let report = output.json()?;
    ensure!(
        report["kind"] == "incremental" && report["unmarked_blocks"] == 2,
        "{report}\n{}",
        output.stderr
    );
    tells(&output, "SW0411")?;
    for file in &files {
        ensure!(output.stderr.contains(file.as_str()), "{file}: {}", output.stderr);
    }
    house.archive_everything()?;
    house.restore("room", ["--latest", "--backup", "latest"]).succeed()?;
    let restored = open_restored(&house.room("room"))?;
    ensure!(restored.psql("SELECT md5(string_agg(b, '' ORDER BY a)) FROM large")? == now);

    // It stays told until everything was read.
    backup(&house, &[])?;
    let told = house.command(["status", "--json"]).fail(2)?.stdout;
    ensure!(told.contains("SW0411"), "{told}");
    backup(&house, &["--full"])?;
    let told = house.command(["status", "--json"]).run()?.stdout;
    ensure!(!told.contains("SW0411"), "{told}");
    Ok(())
}

#[test]
fn a_change_without_a_record_is_found_when_its_turn_comes_however_long_ago_it_was() -> Result<()> {
    let mut house = Protected::start()?;
    // Several shares: pieces that follow each other are in different ones.
    house.pg.psql(&format!("{STILL}; CHECKPOINT"))?;
    let file = house.pg.psql("SELECT pg_relation_filepath('still')")?;
    let mut shares = 0;
    for block in [0, 128] {
        backup(&house, &["--full"])?;
        house.pg.psql("SELECT txid_current(), pg_switch_wal()")?;
        let lsn = house.pg.current_lsn()?;
        house.pg.stop(StopMode::Fast)?;
        change_unlogged(&house.pg.data_directory().join(&file), block, lsn)?;
        house.pg.start()?;
        let report = house.command(["backup", "--json"]).run()?.json()?;
        shares = report["destinations"][0]["audit"]["of"].as_u64().context("no audit")?;
        if report["unmarked_blocks"] == 0 {
            break;
        }
        ensure!(block == 0, "both pieces are in one share");
    }
    ensure!(shares > 1, "all is one share");
    for _ in 1..shares {
        if house.command(["backup"]).run()?.code() == Some(6) {
            return Ok(());
        }
    }
    anyhow::bail!("it was not found in {shares} backups")
}

#[test]
fn after_an_incident_everything_is_compared_once_and_the_doubted_backup_replaces_none() -> Result<()>
{
    let mut house = Protected::start()?;
    house.pg.psql(&format!("{STILL}; CHECKPOINT"))?;
    let file = house.pg.psql("SELECT pg_relation_filepath('still')")?;
    backup(&house, &[])?;
    house.pg.psql("SELECT txid_current(), pg_switch_wal()")?;
    let lsn = house.pg.current_lsn()?;
    house.pg.stop(StopMode::Fast)?;
    let path = house.pg.data_directory().join(&file);
    for block in [0, 128] {
        change_unlogged(&path, block, lsn)?;
    }
    house.pg.start()?;
    let doubted = house.command(["backup", "--json"]).fail(6)?.json()?;
    ensure!(doubted["unmarked_blocks"] == 1, "{doubted}");
    let text = fs::read_to_string(&house.places.config)?;
    let policy = "retention = { last = 1 }\n[repository.primary]";
    fs::write(&house.places.config, text.replace("[repository.primary]", policy))?;
    let planned = house.command(["prune", "--dry-run", "--json"]).run()?.json()?;
    let fates = planned.pointer("/repositories/0/lines/0/plan/backups").and_then(Value::as_array);
    let fates = fates.with_context(|| format!("{planned}"))?;
    ensure!(fates.len() == 2 && fates.iter().all(|it| it["fate"] == "keep"), "{planned}");
    // The next one leads on from it, and has the blocks that it had not looked at.
    let next = backup(&house, &[])?;
    ensure!(next["parent"] == doubted["id"], "{next}");
    house.restore("room", ["--backup-only", "--backup", id(&next)?]).succeed()?;
    ensure!(fs::read(house.room("room").join(&file))? == fs::read(&path)?, "a block is older");
    Ok(())
}

#[test]
fn a_backup_whose_notes_cannot_be_read_or_whose_objects_were_found_gone_is_no_parent() -> Result<()>
{
    let house = Protected::start()?;
    house.pg.psql("CREATE TABLE t AS SELECT g AS a FROM generate_series(1, 20000) g")?;
    let full = backup(&house, &[])?;
    let packs = |house: &Protected| -> Result<Vec<std::path::PathBuf>> {
        let all = support::files(&house.places.repository)?;
        Ok(all.into_iter().filter(|path| path.to_string_lossy().contains("/pack/")).collect())
    };
    let of_the_full_one = packs(&house)?;
    house.pg.psql("UPDATE t SET a = 0 WHERE a = 7")?;
    let shares = backup(&house, &[])?;
    ensure!(shares["kind"] == "incremental", "{shares}");
    // Only the older one is looked at; the newer one needs the pack too.
    let away = house.room("away");
    let pack = of_the_full_one.first().context("no pack")?;
    fs::rename(pack, &away)?;
    house.command(["verify", "--backup", id(&full)?]).fail(4)?;
    fs::rename(&away, pack)?;
    let next = backup(&house, &[])?;
    ensure!(next["kind"] == "full", "{next}");
    let why = next["destinations"][0]["why"].as_str().context("no reason")?;
    ensure!(why.contains("was found damaged"), "{why}");

    house.command(["verify"]).succeed()?;
    let notes = support::files(&house.places.repository)?;
    let about = next["ulid"].as_str().context("no ulid")?;
    let note =
        notes.iter().find(|path| path.to_string_lossy().contains(&format!("/events/{about}/")));
    faults::flip_bit(note.context("no note")?, 70)?;
    let last = backup(&house, &[])?;
    ensure!(last["state"] == "complete", "{last}");
    ensure!(last["parent"] != next["id"], "{last}");
    Ok(())
}
