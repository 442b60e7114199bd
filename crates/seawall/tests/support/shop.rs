//! A shop whose orders are written all the time, and what can go wrong with its table.

#![allow(dead_code, reason = "each test program uses its own part")]

use anyhow::{Context, Result, bail, ensure};
use seawall_testkit::ledger::{self, Bound, LedgerOptions};
use seawall_testkit::{Ledger, PgCluster};

use crate::guide::{RESTORING, Room, Shell, code, free_port, with};
use crate::support::{LIMIT, Protected};

/// Each order gets its item by a trigger; views stand on views.
const SCHEMA: &str = r#"
CREATE ROLE clerk;
CREATE SCHEMA shop;
CREATE TABLE shop.orders (
    id bigserial PRIMARY KEY, writer int, seq bigint, xid bigint DEFAULT txid_current(), payload text,
    twice bigint GENERATED ALWAYS AS (seq * 2) STORED, total int DEFAULT 1, UNIQUE (writer, seq));
CREATE TABLE shop."order items" (
    id bigserial PRIMARY KEY, order_id bigint NOT NULL REFERENCES shop.orders ON DELETE CASCADE);
CREATE VIEW shop.recent AS SELECT id, writer FROM shop.orders WHERE seq > 5;
CREATE VIEW shop."Writers" AS SELECT writer, count(*) FROM shop.recent GROUP BY writer;
CREATE FUNCTION shop.pack() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO shop."order items" (order_id) VALUES (NEW.id); RETURN NEW; END';
CREATE TRIGGER pack AFTER INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.pack();
GRANT USAGE ON SCHEMA shop TO clerk;
GRANT SELECT, INSERT ON shop.orders TO clerk;
GRANT USAGE ON SEQUENCE shop.orders_id_seq TO clerk;
GRANT SELECT ON shop."Writers" TO clerk;
CREATE PUBLICATION feed FOR TABLE shop.orders;
"#;

/// What must hold of the orders, each with the query that says so.
const WHOLE: [(&str, &str); 7] = [
    (
        "a primary key",
        "SELECT count(*) = 1 FROM pg_constraint WHERE conrelid = 'shop.orders'::regclass AND contype = 'p'",
    ),
    (
        "the foreign key of the items, validated",
        "SELECT count(*) = 1 FROM pg_constraint WHERE conrelid = 'shop.\"order items\"'::regclass \
         AND confrelid = 'shop.orders'::regclass AND convalidated",
    ),
    (
        "an item of each order, and no other",
        "SELECT (SELECT count(*) FROM shop.orders) = (SELECT count(DISTINCT order_id) FROM shop.\"order items\")",
    ),
    (
        "the view on the view, and its grant",
        "SET ROLE clerk; SELECT count(*) > 0 FROM shop.\"Writers\"",
    ),
    (
        "a sequence beyond the highest number",
        "SELECT nextval(pg_get_serial_sequence('shop.orders', 'id')) > max(id) FROM shop.orders",
    ),
    ("the clerk's right to write", "SELECT has_table_privilege('clerk', 'shop.orders', 'INSERT')"),
    (
        "its place in the publication",
        "SELECT count(*) = 1 FROM pg_publication_tables WHERE tablename = 'orders'",
    ),
];

/// The table as SQL writes it.
pub const ORDERS: &str = "shop.orders";

/// Makes the shop and opens it.
pub fn open(pg: &PgCluster) -> Result<Ledger> {
    pg.psql(SCHEMA)?;
    let running =
        Ledger::start_in(pg, ORDERS, LedgerOptions { writers: 2, ..LedgerOptions::default() });
    running.wait_for(20, LIMIT)?;
    Ok(running)
}

/// Proves that the table is back with all that belongs to it, and all that was acknowledged to its
/// writers, who go on.
pub fn prove_whole(pg: &PgCluster, running: Ledger) -> Result<()> {
    running.wait_for(10, LIMIT)?;
    let log = running.stop()?;
    for (what, query) in WHOLE {
        let answer = pg.psql(query).with_context(|| what.to_owned())?;
        ensure!(answer == "t", "{what}: {answer}");
    }
    let rows = ledger::read_rows_in(pg.connection(), ORDERS)?;
    let verdict = log.verify_prefix(&rows, &Bound::Everything)?;
    ensure!(verdict.required >= 60, "{verdict:?}");
    Ok(())
}

/// Somebody at work with the guide's section about one table.
#[derive(Debug)]
pub struct Rescue<'h> {
    house: &'h Protected,
    /// Where the guide is typed.
    pub shell: Shell,
    clone: Room,
}

impl<'h> Rescue<'h> {
    /// Follows the guide until the clone runs; `target` is what it says for the mistake, the
    /// transaction that the plan names if there is none.
    pub fn begin(house: &'h Protected, target: Option<&str>) -> Result<Self> {
        let [first, restore] = &code(RESTORING, "## One table back")?[..] else {
            bail!("the section begins in another way")
        };
        let clone = Room::new(house.room("before"), house.pg.bin().clone());
        let directory = clone.directory.display().to_string();
        let config = Some(house.places.config.as_path());
        let mut shell = Shell::open(&house.seawall, house.pg.bin(), &house.places.rooms, config)?;

        let socket = house.pg.connection().socket_directory().display().to_string();
        let places = [
            ("/run/postgresql", socket.as_str()),
            ("dbname=app", "dbname=postgres"),
            ("/var/lib/postgresql/before", &directory),
        ];
        let plan = shell.enter(&with(first, &places)?)?.succeed()?;
        let target = match target {
            Some(target) => target.to_owned(),
            None => {
                let (_, named) = plan.rsplit_once("`--before ").with_context(|| plan.clone())?;
                format!("--before {}", named.split('`').next().context("its end")?)
            }
        };
        let port = free_port()?.to_string();
        let (restore, variable) = restore.split_once('\n').context("two lines")?;
        let places = [
            ("/var/lib/postgresql/before", directory.as_str()),
            ("--before xid:1004502", &target),
            ("5433", &port),
        ];
        shell.enter(&with(restore, &places)?)?.succeed()?;
        let (socket, port) = clone.listens()?;
        let places = [
            ("/run/postgresql", socket.as_str()),
            ("5433", &port),
            ("dbname=app", "dbname=postgres"),
        ];
        shell.enter(&with(variable, &places)?)?.succeed()?;
        Ok(Self { house, shell, clone })
    }

    /// Follows the guide to its end.
    pub fn end(mut self) -> Result<()> {
        let [discard] = &code(RESTORING, "### Afterwards")?[..] else { bail!("more than discard") };
        let directory = self.clone.directory.display().to_string();
        self.shell
            .enter(&with(discard, &[("/var/lib/postgresql/before", &directory)])?)?
            .succeed()?;
        ensure!(!self.clone.directory.exists());
        ensure!(self.house.pg.psql("SELECT 1")? == "1");
        Ok(())
    }
}

/// The guide's lines about a table that was dropped.
#[derive(Debug)]
pub struct Dropped {
    /// Lists what went with it.
    pub list: String,
    /// Finds what comes with it.
    pub find: String,
    /// How the transaction begins.
    pub begin: String,
    /// The transaction.
    pub transaction: String,
    /// Begins the transaction where the application has made the table anew.
    pub begin_aside: String,
    /// Copies what was written to that one.
    pub copy_aside: String,
    /// Validates the foreign keys.
    pub validate: String,
    /// Compares with the clone.
    pub compare: String,
}

impl Dropped {
    /// Reads the guide.
    pub fn read() -> Result<Self> {
        let blocks = code(RESTORING, "### The table was dropped")?;
        let [list, find, transaction, begin_aside, copy_aside, validate, compare] = &blocks[..]
        else {
            bail!("another number of steps: {blocks:#?}")
        };
        let (begin, transaction) = transaction.split_once('\n').context("two lines")?;
        let columns = [("customer, total", "writer, seq, xid, payload")];
        Ok(Self {
            list: list.clone(),
            find: find.clone(),
            begin: begin.to_owned(),
            transaction: transaction.to_owned(),
            begin_aside: begin_aside.clone(),
            copy_aside: with(copy_aside, &columns)?,
            validate: validate.clone(),
            compare: compare.clone(),
        })
    }

    /// What comparing says is missing, run as it stands; then nothing is.
    pub fn compare_and_complete(&self, rescue: &mut Rescue<'_>) -> Result<()> {
        let told = rescue.shell.enter(&self.compare)?.fail("ALTER PUBLICATION feed ADD TABLE")?;
        let missing = told.lines().filter_map(|line| line.strip_prefix("< "));
        let missing: Vec<&str> = missing.filter(|line| !line.starts_with("--")).collect();
        rescue.house.pg.psql(&missing.join("\n"))?;
        rescue.shell.enter(&self.compare)?.succeed().map(drop)
    }
}
