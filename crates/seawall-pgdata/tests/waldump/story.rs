//! What a server lives through: every act in an order drawn by lot, beside a writer of its own,
//! long records, and kills in the middle of such.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use seawall_core::Lsn;
use seawall_testkit::faults::Random;
use seawall_testkit::process::Running;
use seawall_testkit::{PgCluster, PgConnection};

use crate::acts::{ACTS, Act};

/// A record that is to be torn: long enough for a kill to come in time.
const TORN_BYTES: u64 = 48 << 20;

/// How often a kill is tried before the test gives up on tearing a record.
const ATTEMPTS: u32 = 20;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Each act once, and one torn record.
    Short,
    /// Each act three times with more rows, and three torn records.
    Long,
}

pub struct Story<'a> {
    pub cluster: &'a mut PgCluster,
    pub random: Random,
    pub length: Length,
}

impl Story<'_> {
    /// Tells it; returns how many records were torn, one in each chapter.
    pub fn tell(&mut self) -> Result<u64> {
        let chapters = if self.length == Length::Long { 3 } else { 1 };
        for chapter in 0..chapters {
            let writer = Writer::start(self.cluster.connection(), chapter)?;
            self.play_acts(chapter)?;
            writer.stop()?;
            self.tear_a_record()?;
        }
        self.emit_a_long_record()?;
        // Something has to follow it.
        self.cluster.psql("CREATE TABLE after_all AS SELECT 1")?;
        Ok(chapters)
    }

    fn play_acts(&mut self, chapter: u64) -> Result<()> {
        let mut acts: Vec<(&str, Act)> = ACTS.to_vec();
        let rows = if self.length == Length::Long { 20_000 } else { 4000 };
        while !acts.is_empty() {
            let at = usize::try_from(self.random.below(acts.len() as u64))?;
            let (name, act) = acts.swap_remove(at);
            let rows = rows + self.random.below(rows);
            let play = act(self.cluster, &mut self.random, rows, chapter);
            play.with_context(|| format!("act {name}, chapter {chapter}"))?;
        }
        Ok(())
    }

    /// Kills the server in the middle of a record, until one is given up when it starts again.
    fn tear_a_record(&mut self) -> Result<()> {
        for attempt in 0..ATTEMPTS {
            self.cluster.psql("CHECKPOINT")?;
            let before = self.cluster.current_lsn()?;
            self.kill_while_writing(before)?;
            // A start with other settings is noted in the log.
            self.cluster.set("max_connections", &(101 + attempt).to_string())?;
            self.cluster.start()?;
            // Where the server goes on tells whether the kill came before the record's end.
            if self.cluster.current_lsn()?.0 < before.0 + TORN_BYTES {
                return Ok(());
            }
        }
        bail!("no record was torn in {ATTEMPTS} kills")
    }

    /// Kills the server when it has written some of a record that begins at `before`.
    fn kill_while_writing(&mut self, before: Lsn) -> Result<()> {
        let written = self.random.below(TORN_BYTES / 4) + (64 << 10);
        let mut observer = self.cluster.connection().session()?;
        let mut client = self.cluster.connection().client("psql")?;
        let emit =
            format!("SELECT pg_logical_emit_message(false, 'torn', repeat('x', {TORN_BYTES}))");
        client.args(["-XAtq", "-d", "postgres", "-c", &emit]);
        let emitting = Running::start(&mut client, None)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        let far_enough =
            format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{before}') > {written}");
        while observer.run(&far_enough)? != ["t"] {
            ensure!(Instant::now() < deadline, "the record is not being written");
        }
        self.cluster.kill9()?;
        emitting.wait(Duration::from_secs(30)).map(drop)
    }

    fn emit_a_long_record(&mut self) -> Result<()> {
        let bytes = (64 << 20) + 1 + self.random.below(1 << 20);
        let emit = format!(
            "SELECT pg_logical_emit_message(false, 'long', repeat('long', {bytes} / 4 + 1))"
        );
        self.cluster.psql(&emit).map(drop)
    }
}

/// A session that keeps committing, so that others' records lie between those of each act.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Writer {
    fn start(connection: &PgConnection, chapter: u64) -> Result<Self> {
        let mut session = connection.session()?;
        session.run(&format!("CREATE TABLE busy_{chapter} (id serial PRIMARY KEY, t text)"))?;
        let insert = format!(
            "BEGIN; INSERT INTO busy_{chapter} (t) VALUES ('a'); SAVEPOINT s; \
             INSERT INTO busy_{chapter} (t) VALUES ('b'); ROLLBACK TO s; \
             UPDATE busy_{chapter} SET t = t || 'c' WHERE id % 50 = 0 AND length(t) < 50; COMMIT"
        );
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let connection = connection.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match session.run(&insert) {
                    // With an act that rewrites a catalogue; it ended the session, not the story.
                    Err(error) if error.to_string().contains("40P01") => {
                        session = connection.session()?;
                    }
                    result => drop(result?),
                }
                thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        });
        Ok(Self { stop, thread })
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => bail!("the writer panicked"),
        }
    }
}
