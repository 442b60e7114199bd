//! The end of recovery: it comes when all is replayed that was meant to be, whatever the archive
//! answers, and whoever dies.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seawall_testkit::process::wait_until;
use seawall_testkit::{PgBin, PgCluster};
use support::{LIMIT, Protected, archive_everything, open_restored, quiet_cluster, tells};

const ROWS: &str = "SELECT string_agg(i::text, ',' ORDER BY i) FROM t";

/// A `restore_command` that writes down what it is asked for and runs the restore's own; one request
/// meets an accident first.
struct Requests {
    script: PathBuf,
    log: PathBuf,
}

impl Requests {
    /// `accident` is a line of shell, run when the request of that name, or of that number from 1
    /// on, has come.
    fn of(room: &Path, place: &Path, at: &str, accident: &str) -> Result<Self> {
        let text = fs::read_to_string(room.join("postgresql.auto.conf"))?;
        let own = text.lines().find_map(|line| line.strip_prefix("restore_command = '"));
        let own = own.and_then(|own| own.strip_suffix('\'')).context("no restore_command")?;
        let own = own.replace("''", "'").replace("%f", "\"$1\"").replace("%p", "\"$2\"");
        let (script, log) = (place.join("requests.sh"), place.join("requests.log"));
        let lines = format!(
            "#!/bin/sh\necho \"$1\" >> {log}\nnumber=$(wc -l < {log})\n\
             if [ \"$1\" = \"{at}\" ] || [ \"$number\" = \"{at}\" ]; then\n{accident}\nfi\n\
             exec {own}\n",
            log = log.display()
        );
        fs::write(&script, lines)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        fs::write(&log, "")?;
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666))?;
        Ok(Self { script, log })
    }

    fn command(&self) -> String {
        format!("{} %f %p", self.script.display())
    }

    fn asked(&self) -> Result<Vec<String>> {
        Ok(fs::read_to_string(&self.log)?.lines().map(str::to_owned).collect())
    }
}

/// Takes a repository away, and brings it back.
struct Away {
    repository: PathBuf,
    away: PathBuf,
}

impl Away {
    fn of(house: &Protected) -> Self {
        let repository = house.places.repository.clone();
        Self { away: repository.with_extension("away"), repository }
    }

    fn go(&self) -> Result<()> {
        Ok(fs::rename(&self.repository, &self.away)?)
    }

    fn come_back(&self) -> Result<()> {
        Ok(fs::rename(&self.away, &self.repository)?)
    }

    fn shell(&self) -> String {
        format!("mv {} {}", self.repository.display(), self.away.display())
    }
}

/// The processes of the server that a process has started.
fn children(pid: u32) -> Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(child) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if parent == Some(pid.to_string().as_str()) {
            let title = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            found.push((child, String::from_utf8_lossy(&title).into_owned()));
        }
    }
    Ok(found)
}

/// Stops the process that replays, while it asks for nothing.
fn hold_replay(standby: &PgCluster) -> Result<Pid> {
    let postmaster = standby.postmaster_pid().context("it does not run")?;
    let mut held = None;
    wait_until("replay that asks for nothing", LIMIT, || {
        let all = children(postmaster)?;
        let startup = all.iter().find(|(_, title)| title.contains("startup"));
        let pid = startup.context("no startup process")?.0;
        let process = Pid::from_raw(i32::try_from(pid)?);
        kill(process, Signal::SIGSTOP)?;
        if children(pid)?.is_empty() {
            held = Some(process);
            return Ok(true);
        }
        kill(process, Signal::SIGCONT)?;
        Ok(false)
    })?;
    held.context("not held")
}

/// A standby that has replayed row 1, of a primary that has archived row 2 since, with its
/// repository away.
struct Lagging {
    standby: PgCluster,
    directory: PathBuf,
    away: Away,
    house: Protected,
}

impl Lagging {
    fn new() -> Result<Self> {
        let house = Protected::start()?;
        house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
        house.backup()?;
        house.archive_everything()?;
        house.restore("standby", ["--as", "standby"]).succeed()?;
        let directory = house.room("standby");
        let standby = PgCluster::open(house.pg.bin().major(), &directory)
            .config("wal_retrieve_retry_interval", "200ms")
            .start()?;
        wait_until("the row", LIMIT, || Ok(standby.psql(ROWS)? == "1"))?;
        let held = hold_replay(&standby)?;
        house.pg.psql("INSERT INTO t VALUES (2)")?;
        house.archive_everything()?;
        let away = Away::of(&house);
        away.go()?;
        kill(held, Signal::SIGCONT)?;
        Ok(Self { standby, directory, away, house })
    }
}

#[test]
fn a_standby_whose_archive_is_away_is_not_promoted_short_of_its_end() -> Result<()> {
    let mut site = Lagging::new()?;
    let refused = site.house.command(["promote", "--yes"]).arg(&site.directory).fail(5)?;
    tells(&refused, "SW0611")?;
    tells(&refused, "--without-archive")?;
    ensure!(site.standby.psql("SELECT pg_is_in_recovery()")? == "t");

    // PostgreSQL itself, asked by somebody who does not know: it waits, and can be read.
    site.standby.psql("SELECT pg_promote(false)")?;
    wait_until("a word in the log", LIMIT, || {
        Ok(site.standby.logs()?.contains("the standby waits for it, promotion or not"))
    })
    .with_context(|| site.standby.logs().unwrap_or_default())?;
    ensure!(site.standby.psql(ROWS)? == "1");
    ensure!(site.standby.psql("SELECT pg_is_in_recovery()")? == "t");
    site.away.come_back()?;
    site.standby.wait_promoted(LIMIT)?;
    ensure!(site.standby.psql(ROWS)? == "1,2");
    Ok(())
}

/// It has another way to its WAL, which an answer of `wal fetch` leads it to.
#[test]
fn a_standby_that_streams_does_not_wait_for_an_archive_that_is_away() -> Result<()> {
    let mut house = Protected::start()?;
    house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
    house.backup()?;
    house.archive_everything()?;
    house.restore("standby", ["--as", "standby"]).succeed()?;
    let standby = PgCluster::open(house.pg.bin().major(), house.room("standby"))
        .config("wal_retrieve_retry_interval", "200ms")
        .config("primary_conninfo", &house.pg.connection_string())
        .start()?;
    let streams = "SELECT count(*) FROM pg_stat_wal_receiver";
    wait_until("streaming", LIMIT, || Ok(standby.psql(streams)? == "1"))?;
    let away = Away::of(&house);
    away.go()?;
    house.pg.restart()?;
    house.pg.psql("INSERT INTO t VALUES (2)")?;
    wait_until("the row", LIMIT, || Ok(standby.psql(ROWS)? == "1,2"))
        .with_context(|| standby.logs().unwrap_or_default())?;
    away.come_back()
}

#[test]
fn a_promotion_without_the_archive_says_what_it_leaves_out() -> Result<()> {
    let mut site = Lagging::new()?;
    let promote = ["promote", "--without-archive", "--yes"];
    let promoted = site.house.command(promote).arg(&site.directory).succeed()?;
    tells(&promoted, "leaves out: whatever was archived after LSN")?;
    site.standby.wait_promoted(LIMIT)?;
    ensure!(site.standby.psql(ROWS)? == "1");
    ensure!(!site.directory.join("seawall.promote").exists());
    Ok(())
}

/// Nobody has to wait ten minutes for a server that is dead.
#[test]
fn a_server_that_dies_under_a_promotion_is_noticed_and_is_still_a_standby() -> Result<()> {
    let mut site = Lagging::new()?;
    site.away.come_back()?;
    wait_until("the rows", LIMIT, || Ok(site.standby.psql(ROWS)? == "1,2"))?;
    let held = hold_replay(&site.standby)?;
    let promotion = site.house.command(["promote", "--yes"]).arg(&site.directory).spawn()?;
    wait_until("the promotion", LIMIT, || Ok(site.directory.join("promote").exists()))?;
    site.standby.kill9()?;
    // Whatever is left of it.
    kill(held, Signal::SIGKILL).ok();
    let output = promotion.wait(LIMIT)?;
    ensure!(output.code() == Some(1), "{output:?}");
    tells(&output, "no server runs in")?;
    site.standby.start()?;
    ensure!(site.standby.psql("SELECT pg_is_in_recovery()")? == "t");
    Ok(())
}

/// A restore to just before the table is dropped.
fn restore_before_the_drop(house: &Protected, room: &str) -> Result<PathBuf> {
    let xid = fs::read_to_string(house.places.rooms.join("xid"))?;
    house.restore(room, ["--before", &format!("xid:{xid}")]).succeed()?;
    Ok(house.room(room))
}

fn lose_a_table(house: &Protected) -> Result<()> {
    house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
    house.backup()?;
    house.pg.psql("INSERT INTO t VALUES (2)")?;
    let said = house.pg.psql("BEGIN; SELECT txid_current(); DROP TABLE t; COMMIT")?;
    let xid = said.lines().find(|line| line.parse::<u64>().is_ok()).context("no xid")?;
    fs::write(house.places.rooms.join("xid"), xid)?;
    house.archive_everything()
}

/// PostgreSQL has removed its signal file when it asks for the history of its own timeline.
#[test]
fn the_last_request_of_recovery_needs_no_archive_on_any_major() -> Result<()> {
    for major in PgBin::installed() {
        let house = Protected::with(PgCluster::builder(major).config("autovacuum", "off"), false)?;
        lose_a_table(&house)?;
        let room = restore_before_the_drop(&house, "clone")?;
        let away = Away::of(&house);
        let requests = Requests::of(&room, &house.places.rooms, "00000001.history", &away.shell())?;
        let server = PgCluster::open(major, &room).config("restore_command", &requests.command());
        let mut server = server.start()?;
        server.wait_promoted(LIMIT).with_context(|| format!("PostgreSQL {major}"))?;
        ensure!(server.psql(ROWS)? == "1,2", "{major}");
        let name = server.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
        ensure!(name.starts_with("00000002"), "{major}: {name}");
        ensure!(requests.asked()?.last().is_some_and(|name| name == "00000001.history"));
        away.come_back()?;
    }
    Ok(())
}

/// Its history is in the standby's own keeping.
#[test]
fn a_standby_on_a_later_timeline_takes_over_while_the_archive_goes_away() -> Result<()> {
    let house = Protected::with(quiet_cluster()?, false)?;
    house.pg.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")?;
    house.backup()?;
    house.archive_everything()?;
    house.restore("primary", ["--as", "primary"]).succeed()?;
    let primary = open_restored(&house.room("primary"))?;
    primary.psql("INSERT INTO t VALUES (2)")?;
    archive_everything(&primary)?;
    house.restore("standby", ["--as", "standby"]).succeed()?;
    let room = house.room("standby");
    let away = Away::of(&house);
    let accident = format!("[ -e promote ] || [ -e standby.signal ] || {}", away.shell());
    let requests = Requests::of(&room, &house.places.rooms, "00000002.history", &accident)?;
    let mut standby = PgCluster::open(house.pg.bin().major(), &room)
        .config("restore_command", &requests.command())
        .start()?;
    wait_until("the rows", LIMIT, || Ok(standby.psql(ROWS)? == "1,2"))?;
    house.command(["promote", "--yes"]).arg(&room).succeed()?;
    standby.wait_promoted(LIMIT)?;
    ensure!(!house.places.repository.exists(), "it was not away");
    away.come_back()?;
    let history = fs::read_to_string(room.join("pg_wal/00000003.history"))?;
    let parents: Vec<&str> = history.lines().filter_map(|line| line.split('\t').next()).collect();
    ensure!(parents.iter().filter(|it| !it.is_empty()).count() == 2, "{history}");
    Ok(())
}

/// Whenever the server dies around the end of its recovery, it comes back to where it was to go and
/// not a record further: the table is there.
#[test]
fn a_server_that_is_killed_around_the_end_of_recovery_still_ends_where_it_was_to() -> Result<()> {
    let house = Protected::start()?;
    lose_a_table(&house)?;
    let major = house.pg.bin().major();
    let kill_it = "postmaster=$(head -1 postmaster.pid)\n\
         all=$(ps -o pid= --ppid $postmaster)\nkill -9 $postmaster $all\nexit 255";
    let mut last = usize::MAX;
    let mut at = usize::MAX;
    let mut round = 0;
    while at > last.saturating_sub(4) {
        let room = restore_before_the_drop(&house, &format!("clone-{round}"))?;
        round += 1;
        let moment = at.to_string();
        let requests = Requests::of(&room, &house.places.rooms, &moment, kill_it)?;
        let mut server = PgCluster::open(major, &room)
            .config("restore_command", &requests.command())
            .config("fsync", "off")
            .start()
            .and_then(|mut server| server.wait_promoted(LIMIT).map(|()| server));
        if at == usize::MAX {
            // Undisturbed, to learn what is asked for.
            ensure!(server?.psql(ROWS)? == "1,2");
            last = requests.asked()?.len();
            at = last;
            continue;
        }
        ensure!(server.is_err(), "nobody killed it at request {at}");
        wait_until("the dead", LIMIT, || Ok(!is_used(&room)?))?;
        server = PgCluster::open(major, &room).config("fsync", "off").start();
        let mut server = server.with_context(|| format!("after a kill at request {at}"))?;
        server.wait_promoted(LIMIT)?;
        let rows = server.psql(ROWS).with_context(|| format!("after a kill at request {at}"))?;
        ensure!(rows == "1,2", "{rows} after a kill at request {at}");
        at -= 1;
    }
    Ok(())
}

/// Whether a process works in a directory.
fn is_used(directory: &Path) -> Result<bool> {
    for entry in fs::read_dir("/proc")? {
        if fs::read_link(entry?.path().join("cwd")).is_ok_and(|cwd| cwd == directory) {
            return Ok(true);
        }
    }
    Ok(false)
}
