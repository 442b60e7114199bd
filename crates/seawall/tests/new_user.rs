//! A new user's three stages, by the guide: protected, a table lost while others write, the machine
//! lost. Each prints how long it took.

#[path = "support/guide.rs"]
mod guide;
#[path = "support/shop.rs"]
mod shop;
mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guide::{RESTORING, Room, Shell, code, free_port, with};
use seawall_testkit::ledger::{self, Bound, LedgerLog};
use seawall_testkit::{Ledger, PgCluster, TestDir};
use serde_json::Value;
use shop::{Dropped, Rescue, prove_whole};
use support::{LIMIT, Protected, open_restored, quiet_cluster, seawall};

/// What a set-up may take, the first backup included.
const SET_UP: Duration = Duration::from_secs(60);

/// Plays a stage and prints how long it took.
fn stage<T>(what: &str, play: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let began = Instant::now();
    let done = play().with_context(|| what.to_owned())?;
    let took = began.elapsed();
    eprintln!("{what}: {:.1} s", took.as_secs_f64());
    Ok((done, took))
}

#[test]
fn a_new_user_gets_protected_and_has_a_lost_table_and_a_lost_machine_back() -> Result<()> {
    let pg = quiet_cluster()?.start()?;
    // Where a server that takes its place will listen.
    let sockets = TestDir::new()?;
    pg.owner().chown(sockets.path())?;
    pg.set("port", &free_port()?.to_string())?;
    pg.set("unix_socket_directories", &sockets.path().display().to_string())?;
    let running = shop::open(&pg)?;

    let (mut house, took) = stage("set-up", || set_up(pg))?;
    ensure!(took < SET_UP, "{took:?}");

    house.pg.psql("DROP TABLE shop.orders CASCADE")?;
    stage("a table back", || table_back(&house))?;
    prove_whole(&house.pg, running)?;

    let log = last_words(&mut house)?;
    let mut machine = NewMachine::buy(&house)?;
    stage("the machine back, from the repository alone", || {
        machine.without_the_disk(&house, &log)
    })?;
    stage("the machine back, with its disk", || machine.with_the_disk(&house, &log))?;
    Ok(())
}

/// `init`, what it prints, a restart, `check`, `backup`.
fn set_up(pg: PgCluster) -> Result<Protected> {
    let house = Protected::named(pg, seawall()?, "machine")?;
    checked(&house.command(["check"]).run()?.stdout)?;
    house.command(["backup"]).succeed()?;
    Ok(house)
}

/// What `check` may find besides depends on the machine of the test: everything is on one disk.
fn checked(output: &str) -> Result<()> {
    ensure!(output.contains("ok WAL arrives in repository primary"), "{output}");
    Ok(())
}

fn table_back(house: &Protected) -> Result<()> {
    let mut rescue = Rescue::begin(house, None)?;
    let guide = Dropped::read()?;
    let listed = rescue.shell.enter(&guide.list)?.succeed()?;
    for took in
        ["view shop.recent", "view shop.\"Writers\"", "constraint order items_order_id_fkey"]
    {
        ensure!(listed.contains(took), "no {took} in: {listed}");
    }
    for step in [&guide.find, &guide.begin, &guide.transaction, &guide.validate] {
        rescue.shell.enter(step)?.succeed()?;
    }
    guide.compare_and_complete(&mut rescue)?;
    rescue.end()
}

/// The machine dies with commits that are archived and commits that are not.
fn last_words(house: &mut Protected) -> Result<LedgerLog> {
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(20, LIMIT)?;
    house.archive_everything()?;
    running.wait_for(20, LIMIT)?;
    house.pg.kill9()?;
    let log = running.stop()?;
    // Its configuration, and the key in it, were on the disk that may be read or not.
    let settings = house.places.config.parent().context("etc")?;
    fs::rename(settings, settings.with_file_name("lost"))?;
    Ok(log)
}

/// Another machine: the storage is mounted there, and the kit was kept.
struct NewMachine {
    directory: TestDir,
    shell: Shell,
}

impl NewMachine {
    fn buy(house: &Protected) -> Result<Self> {
        let directory = TestDir::new()?;
        let kit = directory.join("main-recovery-kit.txt");
        fs::copy(&house.places.kit, &kit)?;
        house.pg.owner().chown(directory.path())?;
        house.pg.owner().chown(&kit)?;
        let shell = Shell::open(&house.seawall, house.pg.bin(), directory.path(), None)?;
        Ok(Self { directory, shell })
    }

    /// Follows the guide into a directory; `end` is what is typed after its line.
    fn restore(&mut self, into: &Path, end: &str) -> Result<String> {
        let [lines] = &code(RESTORING, "## On a new machine")?[..] else { bail!("more steps") };
        let into = into.display().to_string();
        let lines = with(lines, &[("/var/lib/postgresql/15/main", &into), ("--start", end)])?;
        self.shell.enter(&lines)?.succeed()
    }

    /// All that the repository has: up to the commit that the plan says is its last.
    fn without_the_disk(&mut self, house: &Protected, log: &LedgerLog) -> Result<()> {
        let into = self.directory.join("alone");
        let kit = "--kit ./main-recovery-kit.txt";
        let plan =
            format!("seawall restore main {kit} --into ./planned --dry-run --json 2>/dev/null");
        let plan: Value = serde_json::from_str(&self.shell.enter(&plan)?.succeed()?)?;
        let xid = plan["last_commit_kept"]["xid"].as_u64().context("no last commit")?;
        self.restore(&into, "--yes")?;
        let restored = open_restored(&into)?;
        let rows = ledger::read_rows(restored.connection())?;
        let verdict = log.verify_prefix(&rows, &Bound::Xid { xid, inclusive: true })?;
        ensure!(verdict.required >= 30 && verdict.forbidden > 0, "{verdict:?}");
        ensure!(house.pg.postmaster_pid().is_none());
        Ok(())
    }

    /// All that was acknowledged: its last seconds are pushed from the old disk. Then it is
    /// production, protected like the old one.
    fn with_the_disk(&mut self, house: &Protected, log: &LedgerLog) -> Result<()> {
        let [push] = &code(RESTORING, "### The last seconds of a lost machine")?[..] else {
            bail!("more steps")
        };
        let old = house.pg.data_directory().display().to_string();
        // Segments that the server kept for later use are refused.
        let pushed = self.shell.enter(&with(push, &[("/mnt/old", &old)])?)?;

        let room = Room::new(self.directory.join("main"), house.pg.bin().clone());
        let printed = self.restore(&room.directory, "--start --yes")?;
        let (socket, port) = room.listens()?;
        let psql = format!("psql -XAtq -v ON_ERROR_STOP=1 -h {socket} -p {port} -d postgres");
        let query = format!("{psql} -c 'SELECT writer, seq, xid, payload FROM ledger'");
        let rows = self.shell.enter(&query)?.succeed()?;
        let rows: Result<Vec<_>> =
            rows.lines().filter(|line| !line.is_empty()).map(str::parse).collect();
        let verdict = log.verify_prefix(&rows?, &Bound::Everything);
        let verdict = verdict.with_context(|| pushed.output)?;
        ensure!(verdict.required >= 70, "{verdict:?}");

        let told: Vec<&str> =
            printed.lines().filter_map(|line| line.strip_prefix("  seawall ")).collect();
        let [init, backup] = &told[..] else { bail!("not init and backup: {printed}") };
        self.shell.enter("export SEAWALL_CONFIG=$PWD/etc/seawall.toml")?.succeed()?;
        self.shell.enter(&format!("set -o pipefail; seawall {init} | {psql}"))?.succeed()?;
        room.pg_ctl(&["restart"])?;
        self.shell.enter(&format!("seawall {backup}"))?.succeed()?;
        let output = self.shell.enter("seawall check")?.output;
        ensure!(!output.contains("no complete backup"), "{output}");
        checked(&output)
    }
}
