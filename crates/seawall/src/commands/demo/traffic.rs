//! Writers that commit without a break, and the ledger of what PostgreSQL acknowledged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use seawall_core::{Code, Error, Result};
use seawall_pgwire::{Config, Connection, PgError};
use sha2::{Digest, Sha256};

use crate::run;

/// What the writers write into.
pub const TABLE: &str = "create schema shop; create table shop.orders \
     (id bigint primary key, writer int not null, item text not null, cents bigint not null)";

const WRITERS: i64 = 3;

/// Between two orders, so that a demo of seconds does not fill a disk.
const PAUSE: Duration = Duration::from_millis(1);

/// `undefined_table`: the accident has happened.
const UNDEFINED_TABLE: &str = "42P01";

const ITEMS: [&str; 5] = ["anchor", "lantern", "rope", "sextant", "oilskin"];

/// An order, but for its id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    writer: i64,
    item: String,
    cents: i64,
}

/// Orders by id.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    orders: BTreeMap<i64, Order>,
}

impl Ledger {
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// How many orders `other` does not have, or has otherwise.
    pub fn missing_from(&self, other: &Self) -> usize {
        self.orders.iter().filter(|(id, order)| other.orders.get(id) != Some(order)).count()
    }

    /// A checksum over every column of every order, short enough to compare by eye.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for (id, Order { writer, item, cents }) in &self.orders {
            hasher.update(format!("{id}|{writer}|{item}|{cents}\n"));
        }
        hasher.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Running writers.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Result<Ledger>>>,
}

impl Traffic {
    /// Starts the writers.
    pub fn start(config: &Config) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (1..=WRITERS).map(|writer| {
            let (stop, config) = (Arc::clone(&stop), config.clone());
            thread::spawn(move || run::runtime()?.block_on(write(writer, &config, &stop)))
        });
        Self { writers: writers.collect(), stop }
    }

    /// Waits until the writers have noticed that their table is gone. What they noted is the ledger.
    ///
    /// # Errors
    /// That of a writer that could not go on.
    pub fn finish(mut self) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        for writer in std::mem::take(&mut self.writers) {
            let died = |_| Error::new(Code::Internal, "a writer died");
            ledger.orders.extend(writer.join().map_err(died)??.orders);
        }
        Ok(ledger)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn write(writer: i64, config: &Config, stop: &AtomicBool) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    let mut next = writer * 1_000_000_000;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut connection) = Connection::connect(config).await else {
            // The server restarts.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        match write_in(&mut connection, writer, &mut next, &mut ledger, stop).await {
            Err(error) if error.sqlstate() == Some(UNDEFINED_TABLE) => break,
            // An order whose acknowledgement was lost is looked for before the next one.
            Err(_) => settle(config, writer, &mut next, &mut ledger, stop).await,
            Ok(()) => {}
        }
    }
    Ok(ledger)
}

async fn write_in(
    connection: &mut Connection,
    writer: i64,
    next: &mut i64,
    ledger: &mut Ledger,
    stop: &AtomicBool,
) -> Result<(), PgError> {
    while !stop.load(Ordering::Relaxed) {
        let order = order(writer, *next);
        let sql = format!(
            "insert into shop.orders values ({next}, {writer}, '{}', {})",
            order.item, order.cents
        );
        connection.simple_query(&sql).await?;
        ledger.orders.insert(*next, order);
        *next += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// A connection that breaks during a commit leaves open whether it happened: the table knows.
async fn settle(
    config: &Config,
    writer: i64,
    next: &mut i64,
    ledger: &mut Ledger,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        let asked = async {
            let mut connection = Connection::connect(config).await?;
            let sql = format!("select count(*) from shop.orders where id = {next}");
            connection.query_value::<i64>(&sql).await
        };
        match asked.await {
            Ok(0) => return,
            Ok(_) => {
                ledger.orders.insert(*next, order(writer, *next));
                *next += 1;
                return;
            }
            Err(error) if error.sqlstate() == Some(UNDEFINED_TABLE) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn order(writer: i64, id: i64) -> Order {
    let item = usize::try_from(id).ok().and_then(|id| ITEMS.get(id % ITEMS.len()));
    Order {
        writer,
        item: item.copied().unwrap_or_default().to_owned(),
        cents: 100 + id * 7919 % 9_900,
    }
}

/// Reads every order of a server.
///
/// # Errors
/// Those of the connection.
pub async fn read_ledger(config: &Config) -> Result<Ledger> {
    let mut connection = Connection::connect(config).await?;
    let mut ledger = Ledger::default();
    for row in connection.query_rows("select id, writer, item, cents from shop.orders").await? {
        let order =
            Order { writer: row.get("writer")?, item: row.get("item")?, cents: row.get("cents")? };
        ledger.orders.insert(row.get("id")?, order);
    }
    connection.close().await;
    Ok(ledger)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(ids: std::ops::Range<i64>) -> Ledger {
        Ledger { orders: ids.map(|id| (id, order(1, id))).collect() }
    }

    #[test]
    fn a_missing_or_changed_order_is_noticed_both_by_row_and_by_digest() {
        let (all, fewer) = (ledger(0..10), ledger(0..9));
        assert_eq!((all.missing_from(&fewer), fewer.missing_from(&all)), (1, 0));
        assert_ne!(all.digest(), fewer.digest());
        let mut changed = all.clone();
        changed.orders.insert(3, order(2, 3));
        assert_eq!((all.missing_from(&changed), changed.missing_from(&all)), (1, 1));
        assert_ne!(all.digest(), changed.digest());
        assert_eq!(all.digest(), ledger(0..10).digest());
    }
}
