//! pgbench, and what its log says of some seconds.

use std::fmt;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use seawall_testkit::PgConnection;
use seawall_testkit::process::Running;

/// Connections that are full of work.
const CLIENTS: &str = "8";

/// pgbench's threads.
const THREADS: &str = "2";

/// How long it works before it is watched.
const WARM_UP: Duration = Duration::from_secs(3);

/// How long it works on afterwards: what waited meanwhile is done by then, and logged.
const COOL_DOWN: Duration = Duration::from_secs(10);

/// How much is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// All it can do.
    All,
    /// So many transactions, begun whether the ones before are done or not: what waits counts.
    Rate { per_s: f64 },
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "{CLIENTS} clients, as fast as they can"),
            Self::Rate { per_s } => write!(f, "{CLIENTS} clients, {per_s:.0} transactions/s asked"),
        }
    }
}

/// What clients saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Transactions a second.
    pub per_s: f64,
    /// What half of them took at most, in ms.
    pub p50_ms: f64,
    /// What 99 of 100 took at most, in ms.
    pub p99_ms: f64,
}

/// The transactions before, while and after something was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    transactions: Vec<Transaction>,
    /// When it began, since 1970.
    from: Duration,
    /// How long it was done.
    pub lasted: Duration,
}

/// A line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Transaction {
    /// When it was asked for, since 1970.
    asked: Duration,
    /// When it ended.
    ended: Duration,
}

impl Watched {
    /// What clients saw at the beginning, for so long: what ended meanwhile counts for the rate, and
    /// what was asked for meanwhile for the times, whenever it ended.
    pub fn within(&self, window: Duration) -> Result<Seen> {
        let inside = |time: Duration| self.from <= time && time < self.from + window;
        let asked = self.transactions.iter().filter(|one| inside(one.asked));
        let mut took: Vec<Duration> = asked.map(|one| one.ended - one.asked).collect();
        ensure!(!took.is_empty(), "pgbench did nothing");
        took.sort_unstable();
        let part = |percent: usize| {
            let index = (took.len() * percent / 100).min(took.len() - 1);
            took.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
        };
        let ended = self.transactions.iter().filter(|one| inside(one.ended)).count();
        let per_s = ended as f64 / window.as_secs_f64();
        Ok(Seen { per_s, p50_ms: part(50), p99_ms: part(99) })
    }
}

impl Load {
    /// Has pgbench work while something is done beside it.
    pub fn watch(
        self,
        server: &PgConnection,
        room: &Path,
        beside: impl FnOnce() -> Result<()>,
    ) -> Result<Watched> {
        let logs = room.join("pgbench");
        if logs.exists() {
            fs::remove_dir_all(&logs)?;
        }
        fs::create_dir(&logs)?;
        let mut pgbench = server.client("pgbench")?;
        pgbench.args(["--no-vacuum", "--time", "36000", "--client", CLIENTS, "--jobs", THREADS]);
        pgbench.args(["--log", "--log-prefix"]).arg(logs.join("log"));
        if let Self::Rate { per_s } = self {
            pgbench.args(["--rate", &format!("{per_s:.0}")]);
        }
        let mut running = Running::start(pgbench.arg("postgres"), None)?;
        sleep(WARM_UP);
        let from = SystemTime::now();
        beside()?;
        let to = SystemTime::now();
        sleep(COOL_DOWN);
        ensure!(!running.has_ended()?, "pgbench ended: {}", running.stderr_so_far());
        running.kill9()?;
        drop(running);
        let mut text = String::new();
        for log in fs::read_dir(&logs)? {
            text.push_str(&whole_lines(&fs::read_to_string(log?.path())?));
        }
        watched(&text, since_epoch(from)?, since_epoch(to)?)
    }
}

fn since_epoch(time: SystemTime) -> Result<Duration> {
    time.duration_since(UNIX_EPOCH).context("the clock is before 1970")
}

/// A log without the line that was being written.
fn whole_lines(log: &str) -> String {
    log.rfind('\n').map(|end| log.get(..=end).unwrap_or_default().to_owned()).unwrap_or_default()
}

/// What the log says of the time between two moments.
fn watched(log: &str, from: Duration, to: Duration) -> Result<Watched> {
    let parse = |line: &str| transaction(line).with_context(|| format!("pgbench logged {line}"));
    let transactions = log.lines().map(parse).collect::<Result<Vec<_>>>()?;
    let caught_up = transactions.iter().any(|one| one.asked >= to);
    ensure!(caught_up, "pgbench has not caught up with what was asked for");
    Ok(Watched { transactions, from, lasted: to - from })
}

/// `client number µs script seconds µs`: what it took and when it ended. More follows with a rate,
/// where waiting for a free client is part of what it took (pgbench's manual, "Per-Transaction
/// Logging").
fn transaction(line: &str) -> Option<Transaction> {
    let mut fields = line.split(' ').skip(2);
    let took = Duration::from_micros(fields.next()?.parse().ok()?);
    let seconds = Duration::from_secs(fields.nth(1)?.parse().ok()?);
    let ended = seconds + Duration::from_micros(fields.next()?.parse().ok()?);
    Some(Transaction { asked: ended.checked_sub(took)?, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of the log, of a transaction that ended so many ms after second 100.
    fn line(ended_ms: u64, took_ms: u64) -> String {
        let (seconds, ms) = (100 + ended_ms / 1000, ended_ms % 1000);
        format!("0 1 {} 0 {seconds} {}\n", took_ms * 1000, ms * 1000)
    }

    #[test]
    fn the_slowest_of_many_is_not_their_p99_and_what_was_before_and_after_does_not_count() {
        let mut log = line(0, 9000) + &line(10_500, 1);
        for number in 0..1000 {
            log.push_str(&line(60 + number * 9, if number < 20 { 50 } else { 1 }));
        }
        log.push_str("0 3 90");
        let seconds = Duration::from_secs;
        let watched = watched(&whole_lines(&log), seconds(100), seconds(110)).unwrap();
        let seen = watched.within(seconds(10)).unwrap();
        assert_eq!(seen, Seen { per_s: 100.1, p50_ms: 1.0, p99_ms: 50.0 });
        assert!(watched.within(Duration::ZERO).is_err());
    }

    #[test]
    fn what_was_asked_for_meanwhile_counts_though_it_ended_later() {
        let log = line(500, 100) + &line(3000, 2500) + &line(3500, 400);
        let seconds = Duration::from_secs;
        let watched = watched(&log, seconds(100), seconds(101)).unwrap();
        let seen = watched.within(seconds(1)).unwrap();
        assert_eq!(seen, Seen { per_s: 1.0, p50_ms: 2500.0, p99_ms: 2500.0 });
    }

    #[test]
    fn what_is_not_pgbench_s_log_or_does_not_reach_far_enough_is_refused() {
        let (before, after) = (Duration::from_secs(90), Duration::from_secs(102));
        assert!(watched("0 1 x 0 105 5\n", before, after).is_err());
        assert!(watched(&line(3000, 2500), before, after).is_err());
        assert!(watched(&line(3000, 1000), before, after).is_ok());
    }
}
