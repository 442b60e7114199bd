//! Writers that never stop committing, and a ledger of what was acknowledged to them.
//!
//! The ledger lives in the test, outside PostgreSQL. Afterwards [`LedgerLog::verify_prefix`]
//! compares the rows of a restored cluster with it: what must be there, what must not, and what
//! may go either way because its commit was under way at the bound.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seawall_core::Lsn;

use crate::process::wait_until;
use crate::{PgCluster, PgConnection, PsqlSession};

mod log;

pub use log::{Bound, Committed, Entry, LedgerLog, Moment, Row, Verdict};

/// How writers behave.
#[derive(Debug, Clone, Copy)]
pub struct LedgerOptions {
    /// How many sessions write.
    pub writers: u32,
    /// Hexadecimal digits in each row, different in every row.
    pub payload_bytes: usize,
    /// Rest between two transactions of a writer.
    pub pause: Duration,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self { writers: 4, payload_bytes: 200, pause: Duration::from_millis(1) }
    }
}

/// Running writers. They outlive crashes and restarts of the server: a writer whose
/// acknowledgement was lost asks the server, once it is back, what became of its commit.
#[derive(Debug)]
pub struct Ledger {
    connection: PgConnection,
    writers: Vec<Writer>,
    stop: Arc<AtomicBool>,
    payload_bytes: usize,
}

/// The table, unless another is named.
const TABLE: &str = "ledger";

#[derive(Debug)]
struct Writer {
    shared: Arc<Mutex<Shared>>,
    thread: JoinHandle<()>,
}

/// What a writer's thread and the test both see.
#[derive(Debug, Default)]
struct Shared {
    entries: Vec<Entry>,
    psql_pid: Option<u32>,
}

impl Shared {
    fn acknowledged(&self) -> u64 {
        let last = self.entries.iter().rev().find(|entry| entry.is_acknowledged());
        last.map_or(0, |entry| entry.seq)
    }

    fn in_flight(&self) -> Option<u64> {
        self.entries.last().filter(|entry| !entry.is_acknowledged()).map(|entry| entry.seq)
    }
}

impl Ledger {
    /// Makes the table and starts writers with the default options.
    ///
    /// # Errors
    /// The server is down.
    pub fn start(cluster: &PgCluster, writers: u32) -> Result<Self> {
        Self::start_with(cluster, LedgerOptions { writers, ..LedgerOptions::default() })
    }

    /// Makes the table and starts writers.
    ///
    /// # Errors
    /// The server is down, or already has a ledger.
    pub fn start_with(cluster: &PgCluster, options: LedgerOptions) -> Result<Self> {
        cluster.psql(&format!(
            "CREATE TABLE {TABLE} (writer int, seq bigint, xid bigint DEFAULT txid_current(), \
             payload text, PRIMARY KEY (writer, seq))"
        ))?;
        Ok(Self::start_in(cluster, TABLE, options))
    }

    /// Starts writers in a table that is there, with the ledger's columns `writer`, `seq`, `xid`
    /// and `payload` among its own; `table` is its name as SQL writes it. While it is gone they
    /// try again.
    #[must_use]
    pub fn start_in(cluster: &PgCluster, table: &str, options: LedgerOptions) -> Self {
        let connection = cluster.connection().clone();
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..options.writers)
            .map(|number| {
                let shared = Arc::new(Mutex::new(Shared::default()));
                let writing = Writing {
                    number,
                    options,
                    table: table.to_owned(),
                    connection: connection.clone(),
                    shared: Arc::clone(&shared),
                    stop: Arc::clone(&stop),
                };
                Writer { shared, thread: thread::spawn(move || writing.run()) }
            })
            .collect();
        Self { connection, writers, stop, payload_bytes: options.payload_bytes }
    }

    /// Waits until every writer has had `more` transactions acknowledged from now on.
    ///
    /// # Errors
    /// Not in time.
    pub fn wait_for(&self, more: u64, timeout: Duration) -> Result<()> {
        let goals: Vec<u64> =
            self.writers.iter().map(|writer| lock(&writer.shared).acknowledged() + more).collect();
        wait_until("acknowledged transactions", timeout, || {
            let mut pairs = self.writers.iter().zip(&goals);
            Ok(pairs.all(|(writer, goal)| lock(&writer.shared).acknowledged() >= *goal))
        })
    }

    /// A moment between transactions to restore to: what was acknowledged before it, then the
    /// server's position and clock.
    ///
    /// # Errors
    /// The server is down.
    pub fn mark(&self) -> Result<Moment> {
        let acknowledged = self.writers.iter().map(|w| lock(&w.shared).acknowledged()).collect();
        let answer = self.connection.psql(
            "SELECT pg_current_wal_insert_lsn(), (extract(epoch FROM t) * 1000000)::bigint, \
             to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"') \
             FROM clock_timestamp() AS t",
        )?;
        let in_flight = self.writers.iter().map(|w| lock(&w.shared).in_flight()).collect();
        let fields: Vec<&str> = answer.split('|').collect();
        let [lsn, time_us, time] = fields.as_slice() else { bail!("unexpected: {answer}") };
        Ok(Moment {
            lsn: lsn.parse()?,
            time_us: time_us.parse()?,
            time: (*time).to_owned(),
            acknowledged,
            in_flight,
        })
    }

    /// Stops the writers and returns what they know.
    ///
    /// # Errors
    /// A writer panicked.
    pub fn stop(mut self) -> Result<LedgerLog> {
        self.stop.store(true, Ordering::Relaxed);
        let mut entries = Vec::new();
        for writer in std::mem::take(&mut self.writers) {
            let finished = |writer: &Writer| Ok(writer.thread.is_finished());
            let limit = Duration::from_secs(5);
            if wait_until("end of a writer", limit, || finished(&writer)).is_err() {
                // Its server does not answer: without psql the thread cannot be stuck.
                if let Some(pid) = lock(&writer.shared).psql_pid {
                    kill(Pid::from_raw(pid.try_into()?), Signal::SIGKILL).ok();
                }
            }
            writer.thread.join().map_err(|_| anyhow!("a writer panicked"))?;
            entries.append(&mut lock(&writer.shared).entries);
        }
        Ok(LedgerLog::new(entries, self.payload_bytes))
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // A test that failed before it stopped the writers: they end at their next transaction.
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One writer at work.
#[derive(Debug)]
struct Writing {
    number: u32,
    options: LedgerOptions,
    table: String,
    connection: PgConnection,
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
}

impl Writing {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            // Whatever broke, the server or the connection, is tried again until told to stop:
            // tests take the server away on purpose.
            if self.write_until_broken().is_err() {
                thread::sleep(Duration::from_millis(20));
            }
            lock(&self.shared).psql_pid = None;
        }
    }

    fn write_until_broken(&self) -> Result<()> {
        let mut session = self.connection.session()?;
        lock(&self.shared).psql_pid = Some(session.pid());
        let mut lsn = insert_lsn(&mut session)?;
        self.settle(&mut session)?;
        while !self.stop.load(Ordering::Relaxed) {
            let seq = self.begin(lsn);
            let payload = payload(self.number, seq, self.options.payload_bytes);
            let rows = session.run(&format!(
                "INSERT INTO {} (writer, seq, payload) VALUES ({}, {seq}, '{payload}') \
                 RETURNING xid",
                self.table, self.number
            ))?;
            let acknowledged_us = now_us();
            let xid = rows.first().context("no xid")?.parse()?;
            // Entered before the position is asked for: an acknowledgement is never forgotten.
            self.acknowledge(xid, acknowledged_us, None);
            lsn = insert_lsn(&mut session)?;
            self.acknowledge(xid, acknowledged_us, Some(lsn));
            thread::sleep(self.options.pause);
        }
        Ok(())
    }

    /// Finds out what became of a commit whose acknowledgement was lost.
    fn settle(&self, session: &mut PsqlSession) -> Result<()> {
        let Some(seq) = lock(&self.shared).in_flight() else { return Ok(()) };
        let rows = session.run(&format!(
            "SELECT xid FROM {} WHERE writer = {} AND seq = {seq}",
            self.table, self.number
        ))?;
        if let Some(xid) = rows.first() {
            let (xid, lsn) = (xid.parse()?, insert_lsn(session)?);
            self.acknowledge(xid, now_us(), Some(lsn));
        }
        Ok(())
    }

    /// Enters the next transaction. One that did not happen is tried again under its old
    /// beginning: its first attempt might still have been committing when it was looked for.
    fn begin(&self, lsn_before: Lsn) -> u64 {
        let mut shared = lock(&self.shared);
        if let Some(seq) = shared.in_flight() {
            return seq;
        }
        let seq = shared.entries.last().map_or(0, |entry| entry.seq) + 1;
        let (writer, sent_us) = (self.number, now_us());
        shared.entries.push(Entry { writer, seq, sent_us, lsn_before, committed: None });
        seq
    }

    fn acknowledge(&self, xid: u64, acknowledged_us: i64, lsn_after: Option<Lsn>) {
        if let Some(entry) = lock(&self.shared).entries.last_mut() {
            entry.committed = Some(Committed { xid, acknowledged_us, lsn_after });
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn insert_lsn(session: &mut PsqlSession) -> Result<Lsn> {
    let rows = session.run("SELECT pg_current_wal_insert_lsn()")?;
    Ok(rows.first().context("no LSN")?.parse()?)
}

/// Microseconds since 1970 by the clock that PostgreSQL on this machine stamps commits with.
fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Reads a restored ledger, past any index: a damaged one must not hide a row.
///
/// # Errors
/// The server is down or has no ledger.
pub fn read_rows(connection: &PgConnection) -> Result<Vec<Row>> {
    read_rows_in(connection, TABLE)
}

/// As [`read_rows`], of the table that [`Ledger::start_in`] was given.
///
/// # Errors
/// The server is down or has no such table.
pub fn read_rows_in(connection: &PgConnection, table: &str) -> Result<Vec<Row>> {
    let text = connection.psql(&format!(
        "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; \
         SELECT writer, seq, xid, payload FROM {table} ORDER BY writer, seq"
    ))?;
    text.lines().map(str::parse).collect()
}

/// What a writer puts into a row: digits that only (writer, seq) determine.
fn payload(writer: u32, seq: u64, length: usize) -> String {
    let mut random = crate::faults::Random::new(u64::from(writer) << 40 | seq);
    let mut text = String::new();
    while text.len() < length {
        text.push_str(&format!("{:016x}", random.next_u64()));
    }
    text.truncate(length);
    text
}
