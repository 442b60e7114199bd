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
             compared with as long a time without one, after a checkpoint too. Seawall is {}.\n\n",
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
                "\n## {load}\n\n| | transactions/s | idle | | p99, ms | idle | | backup, s |\n\
                 |---|---|---|---|---|---|---|---|\n"
            ));
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

/// One of the numbers measured.
type Field = fn(&Measured) -> f64;

fn row(name: &str, phase: Phase, measured: &[Measured]) -> String {
    let values = |value: Field| {
        let of = |one: &&Measured| one.contestant == name && one.phase == phase;
        measured.iter().filter(of).map(value).collect::<Vec<f64>>()
    };
    let what = if phase == Phase::Gentle { "gentle backup" } else { "backup" };
    format!(
        "| {name}: {what} | {} | {} | {:.0} % | {} | {} | {:.2} × | {} |\n",
        spread(&values(|one| one.seen.per_s), 0),
        spread(&values(|one| one.idle.per_s), 0),
        median(&values(|one| one.seen.per_s / one.idle.per_s * 100.0)),
        spread(&values(|one| one.seen.p99_ms), 1),
        spread(&values(|one| one.idle.p99_ms), 1),
        median(&values(|one| one.seen.p99_ms / one.idle.p99_ms)),
        spread(&values(|one| one.backup_s), 1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backup_stands_beside_its_own_idle_time() {
        let seen = |per_s, p99_ms| Seen { per_s, p50_ms: 1.0, p99_ms };
        let measured = |contestant, seen| Measured {
            contestant,
            phase: Phase::Backup,
            seen,
            idle: Seen { per_s: 1000.0, p50_ms: 1.0, p99_ms: 10.0 },
            backup_s: 7.0,
        };
        let all = [measured("A", seen(800.0, 15.0)), measured("B", seen(1.0, 1.0))];
        assert_eq!(
            row("A", Phase::Backup, &all),
            "| A: backup | 800 | 1000 | 80 % | 15.0 | 10.0 | 1.50 × | 7.0 |\n"
        );
    }
}
