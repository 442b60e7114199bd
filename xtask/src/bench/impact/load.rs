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

/// How long it works on afterwards: what it has logged by then reaches back far enough.
const COOL_DOWN: Duration = Duration::from_secs(3);

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

/// The transactions that ended while something was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// When each ended, counted from the beginning, and what it took in µs.
    transactions: Vec<(Duration, u64)>,
    /// How long it was done.
    pub lasted: Duration,
}

impl Watched {
    /// What clients saw at the beginning, for so long.
    pub fn within(&self, window: Duration) -> Result<Seen> {
        let ended = self.transactions.iter().filter(|(ended, _)| *ended < window);
        let mut took_us: Vec<u64> = ended.map(|(_, took_us)| *took_us).collect();
        ensure!(!took_us.is_empty(), "pgbench did nothing");
        took_us.sort_unstable();
        let part = |percent: usize| {
            let index = (took_us.len() * percent / 100).min(took_us.len() - 1);
            took_us.get(index).map_or(f64::NAN, |us| *us as f64 / 1e3)
        };
        let per_s = took_us.len() as f64 / window.as_secs_f64();
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
    let mut transactions = Vec::new();
    for line in log.lines() {
        let (ended, us) = transaction(line).with_context(|| format!("pgbench logged {line}"))?;
        if from <= ended && ended < to {
            transactions.push((ended - from, us));
        }
    }
    Ok(Watched { transactions, lasted: to - from })
}

/// When a transaction ended, and what it took in µs: `client number µs script seconds µs`, and more
/// with a rate, where waiting for a free client is part of what it took (pgbench's manual, "Per-
/// Transaction Logging").
fn transaction(line: &str) -> Option<(Duration, u64)> {
    let mut fields = line.split(' ').skip(2);
    let took_us = fields.next()?.parse().ok()?;
    let seconds: u64 = fields.nth(1)?.parse().ok()?;
    let us: u64 = fields.next()?.parse().ok()?;
    Some((Duration::from_secs(seconds) + Duration::from_micros(us), took_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_between_two_moments_are_counted_and_the_slowest_is_not_the_p99_of_many() {
        let mut log = "0 1 9000000 0 99 999999\n".to_owned();
        for number in 0..1000 {
            let took_us = if number < 20 { 50_000 } else { 1000 };
            log.push_str(&format!("0 {number} {took_us} 0 10{} {}\n", number % 10, number));
        }
        log.push_str("0 2 9000000 0 110 0\n0 3 90");
        let log = whole_lines(&log);
        let seconds = Duration::from_secs;
        let watched = watched(&log, seconds(100), seconds(110)).unwrap();
        let seen = watched.within(seconds(10)).unwrap();
        assert_eq!(seen, Seen { per_s: 100.0, p50_ms: 1.0, p99_ms: 50.0 });
        assert_eq!(watched.within(seconds(5)).unwrap().per_s, 100.0);
        assert!(watched.within(Duration::ZERO).is_err());
    }

    #[test]
    fn what_is_not_pgbench_s_log_is_refused() {
        let hour = Duration::from_secs(3600);
        assert!(watched("0 1 x 0 5 5\n", Duration::ZERO, hour).is_err());
    }
}
