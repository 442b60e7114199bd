use anyhow::Result;
use serde_json::{Value, json};

use super::Phase;
use super::load::{Load, Seen};
use crate::bench::machine;
use crate::bench::measure::median;
use crate::bench::report::spread;
use crate::evidence::keep;

/// What clients saw of one phase.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub contestant: &'static str,
    pub phase: Phase,
    pub seen: Seen,
    /// What they saw for as long after a checkpoint with nothing beside them.
    pub idle: Seen,
    /// What the backup took, in seconds.
    pub backup_s: f64,
}

#[derive(Debug)]
pub struct Report {
    pub date: String,
    pub revision: String,
    pub machine: Value,
    pub postgres: String,
    pub cluster_bytes: u64,
    pub runs: usize,
    /// Name, version, options, and how a gentle backup is asked for.
    pub contestants: Vec<(&'static str, String, String, &'static str)>,
    pub loads: Vec<(Load, Vec<Measured>)>,
}

impl Report {
    pub fn write(&self) -> Result<()> {
        let gigabytes = (self.cluster_bytes as f64 / 1e9).round();
        keep(&format!("bench-{}-impact-{gigabytes}gb", self.date), &self.markdown(), &self.json())
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# A live database during backups, {}\n\n{}. {:.2} GB of {}, pgbench's TPC-B-like script. {} \
             runs each, in turn; medians, ranges in brackets. Watched for the first 20 s of each backup, or all of it, and \
             for as long a time without one, after a checkpoint too. Seawall is {}.\n\n",
            self.date,
            machine::in_words(&self.machine),
            self.cluster_bytes as f64 / 1e9,
            self.postgres,
            self.runs,
            self.revision
        );
        for (name, version, options, gentle) in &self.contestants {
            text.push_str(&format!("* **{name} {version}**: {options}. Gentle: {gentle}.\n"));
        }
        for (load, measured) in &self.loads {
            text.push_str(&format!(
                "\n## {load}\n\n| | transactions/s | of idle | p50, ms | p99, ms | backup, s |\n\
                 |---|---|---|---|---|---|\n"
            ));
            text.push_str(&idle_row(measured));
            for (name, ..) in &self.contestants {
                for phase in [Phase::Backup, Phase::Gentle] {
                    text.push_str(&row(name, phase, measured));
                }
            }
        }
        text
    }

    fn json(&self) -> Value {
        let measured = |one: &Measured| {
            json!({
                "contestant": one.contestant, "phase": format!("{:?}", one.phase),
                "transactions_per_s": one.seen.per_s, "p50_ms": one.seen.p50_ms, "p99_ms": one.seen.p99_ms,
                "idle_transactions_per_s": one.idle.per_s, "idle_p50_ms": one.idle.p50_ms,
                "idle_p99_ms": one.idle.p99_ms, "backup_s": one.backup_s,
            })
        };
        let loads = self.loads.iter().map(|(load, all)| {
            json!({"load": load.to_string(), "measured": all.iter().map(measured).collect::<Vec<_>>()})
        });
        json!({
            "benchmark": "impact", "date": self.date, "revision": self.revision,
            "machine": self.machine, "postgres": self.postgres, "cluster_bytes": self.cluster_bytes,
            "loads": loads.collect::<Vec<_>>(),
        })
    }
}

/// What clients saw of all the idle times.
fn idle_row(measured: &[Measured]) -> String {
    let seen: Vec<Seen> = measured.iter().map(|one| one.idle).collect();
    format!("| nothing beside it | {} | |\n", columns(&seen, None))
}

/// What they saw of one kind of backup. All idle times together are what it is compared with: they
/// differ more from each other than from turn to turn.
fn row(name: &str, phase: Phase, measured: &[Measured]) -> String {
    let of = |one: &&Measured| one.contestant == name && one.phase == phase;
    let of: Vec<&Measured> = measured.iter().filter(of).collect();
    let seen: Vec<Seen> = of.iter().map(|one| one.seen).collect();
    let idle = median(&measured.iter().map(|one| one.idle.per_s).collect::<Vec<_>>());
    let what = if phase == Phase::Gentle { "gentle backup" } else { "backup" };
    let lasted = spread(&of.iter().map(|one| one.backup_s).collect::<Vec<_>>(), 1);
    format!("| {name}: {what} | {} | {lasted} |\n", columns(&seen, Some(idle)))
}

/// Rate, its part of the idle one, and times.
fn columns(seen: &[Seen], idle_per_s: Option<f64>) -> String {
    let of = |value: fn(&Seen) -> f64| seen.iter().map(value).collect::<Vec<f64>>();
    let per_s = of(|seen| seen.per_s);
    let part = idle_per_s.map(|idle| format!("{:.0} %", median(&per_s) / idle * 100.0));
    format!(
        "{} | {} | {} | {}",
        spread(&per_s, 0),
        part.unwrap_or_default(),
        spread(&of(|seen| seen.p50_ms), 1),
        spread(&of(|seen| seen.p99_ms), 1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backup_stands_beside_all_idle_times() {
        let seen = |per_s, p99_ms| Seen { per_s, p50_ms: 1.0, p99_ms };
        let measured = |contestant, seen_by, idle_per_s| Measured {
            contestant,
            phase: Phase::Backup,
            seen: seen_by,
            idle: seen(idle_per_s, 10.0),
            backup_s: 7.0,
        };
        let all = [
            measured("A", seen(800.0, 15.0), 500.0),
            measured("B", seen(1.0, 1.0), 1000.0),
            measured("B", seen(3.0, 1.0), 1500.0),
        ];
        assert_eq!(
            row("A", Phase::Backup, &all),
            "| A: backup | 800 | 80 % | 1.0 | 15.0 | 7.0 |\n"
        );
        assert_eq!(
            idle_row(&all),
            "| nothing beside it | 1000 (500–1500) |  | 1.0 (1.0–1.0) | 10.0 (10.0–10.0) | |\n"
        );
    }
}
