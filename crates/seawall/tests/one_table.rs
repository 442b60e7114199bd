//! One table back, by the guide, line by line, while others write. What the guide says of a plain
//! drop is played by the story of a new user.

#[path = "support/guide.rs"]
mod guide;
#[path = "support/shop.rs"]
mod shop;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use guide::{RESTORING, code};
use seawall_testkit::PgConnection;
use shop::{Dropped, Rescue, prove_whole};
use support::{LIMIT, Protected};

/// An application that makes its table whenever it starts, and starts all the time.
struct Application {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Application {
    fn start(connection: &PgConnection) -> Self {
        let (stop, connection) = (Arc::new(AtomicBool::new(false)), connection.clone());
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                // It fails while the transaction that brings the table back is under way.
                let _ = connection.psql(
                    "CREATE TABLE IF NOT EXISTS shop.orders (id bigserial PRIMARY KEY, writer int, \
                     seq bigint, xid bigint DEFAULT txid_current(), payload text)",
                );
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic");
    }
}

#[test]
fn a_table_that_its_application_made_anew_comes_back_with_the_rows_of_both() -> Result<()> {
    let house = Protected::start()?;
    let running = shop::open(&house.pg)?;
    house.backup()?;
    house.pg.psql("DROP TABLE shop.orders CASCADE")?;
    let application = Application::start(house.pg.connection());
    running.wait_for(10, LIMIT)?;
    // And an item of an order that there never was.
    house.pg.psql("INSERT INTO shop.\"order items\" (order_id) VALUES (-1)")?;

    let mut rescue = Rescue::begin(&house, None)?;
    let guide = Dropped::read()?;
    rescue.shell.enter(&guide.find)?.succeed()?;
    rescue.shell.enter(&guide.begin)?.succeed()?;
    rescue.shell.enter(&guide.transaction)?.fail("relation \"orders\" already exists")?;
    ensure!(house.pg.psql("SELECT to_regclass('shop.recent') IS NULL")? == "t", "half is there");

    rescue.shell.enter(&guide.begin_aside)?.succeed()?;
    rescue.shell.enter(&guide.transaction)?.succeed()?;
    application.stop();
    rescue.shell.enter(&guide.copy_aside)?.succeed()?;
    rescue.shell.enter(&guide.validate)?.fail("Key (order_id)=(-1) is not present")?;
    house.pg.psql("DELETE FROM shop.\"order items\" WHERE order_id = -1")?;
    rescue.shell.enter(&guide.validate)?.succeed()?;
    guide.compare_and_complete(&mut rescue)?;
    prove_whole(&house.pg, running)?;
    rescue.end()
}

/// What a server wrote a moment ago is in no archive, and perhaps that is the mistake.
#[test]
fn a_plan_beside_the_living_server_says_what_it_cannot_know_yet() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql("CREATE TABLE old (i int); CREATE TABLE new (i int)")?;
    house.backup()?;
    house.pg.psql("DROP TABLE old")?;
    house.archive_everything()?;
    let newest = house.pg.psql("BEGIN; DROP TABLE new; SELECT txid_current(); COMMIT")?;
    let told = house.restore("planned", ["--dry-run"]).succeed()?.stdout;
    ensure!(told.contains("not archived  LSN ") && told.contains("pg_switch_wal()"), "{told}");
    ensure!(!told.contains("--partial"), "the server lives: {told}");
    let plan = house.plan([])?;
    ensure!(plan["server"]["is_ahead"] == true, "{plan}");
    ensure!(!plan.to_string().contains(&format!("xid:{}", newest.trim())), "{plan}");

    house.archive_everything()?;
    let plan = house.plan([])?;
    ensure!(plan.to_string().contains(&format!("xid:{}", newest.trim())), "{plan}");
    Ok(())
}

#[test]
fn a_dump_that_breaks_off_brings_nothing() -> Result<()> {
    let house = Protected::start()?;
    let running = shop::open(&house.pg)?;
    house.backup()?;
    house.pg.psql("DROP TABLE shop.orders CASCADE")?;
    let mut rescue = Rescue::begin(&house, None)?;
    let guide = Dropped::read()?;
    rescue.shell.enter(&guide.find)?.succeed()?;
    rescue.shell.enter(&guide.begin)?.succeed()?;

    let broken = "pg_dump() { command pg_dump \"$@\" | sed -n '/^COPY shop.orders/{p;n;p;n;p;q};p'; return 1; }";
    rescue.shell.enter(broken)?.succeed()?;
    let typed = rescue.shell.enter(&guide.transaction)?;
    ensure!(typed.failed.is_some(), "{typed:?}");
    ensure!(house.pg.psql("SELECT to_regclass('shop.orders') IS NULL")? == "t", "half is there");

    rescue.shell.enter("unset -f pg_dump")?.succeed()?;
    rescue.shell.enter(&guide.transaction)?.succeed()?;
    rescue.shell.enter(&guide.validate)?.succeed()?;
    guide.compare_and_complete(&mut rescue)?;
    prove_whole(&house.pg, running)?;
    rescue.end()
}

#[test]
fn deleted_and_changed_rows_come_back_into_a_table_in_use() -> Result<()> {
    let house = Protected::start()?;
    let running = shop::open(&house.pg)?;
    house.backup()?;
    let mistake = "BEGIN; DELETE FROM shop.orders WHERE seq % 3 = 0; \
                   UPDATE shop.orders SET total = 0 WHERE seq % 3 = 1; SELECT txid_current(); COMMIT";
    let xid = house.pg.psql(mistake)?;
    running.wait_for(10, LIMIT)?;

    let mut rescue = Rescue::begin(&house, Some(&format!("--before xid:{xid}")))?;
    let blocks = code(RESTORING, "### Rows were deleted or changed")?;
    let [aside, deleted, changed, rest, tidy] = &blocks[..] else {
        bail!("another number of steps")
    };
    rescue.shell.enter(aside)?.succeed()?;
    let told = rescue.shell.enter(deleted)?.succeed()?;
    ensure!(told.starts_with("INSERT 0 ") && !told.starts_with("INSERT 0 0"), "{told}");
    let told = rescue.shell.enter(changed)?.succeed()?;
    ensure!(told.starts_with("UPDATE ") && !told.starts_with("UPDATE 0"), "{told}");
    let told = rescue.shell.enter(rest)?.succeed()?;
    ensure!(told.contains("(0 rows)"), "{told}");
    rescue.shell.enter(tidy)?.succeed()?;
    ensure!(house.pg.psql("SELECT count(*) FROM shop.orders WHERE total = 0")? == "0");
    prove_whole(&house.pg, running)?;
    rescue.end()
}
