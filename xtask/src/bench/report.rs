//! What was measured, for people and for programs.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::machine;
use super::measure::{Taken, median};
use super::options::JOBS;
use super::turn::Cache;
use crate::evidence::keep;

/// What one tool's runs took, in order.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    pub backups: Vec<Taken>,
    pub restores: Vec<Taken>,
}

/// What reading, compressing and writing alone took.
#[derive(Debug, Default)]
pub struct Floors {
    pub read: Vec<Taken>,
    pub compress: Vec<Taken>,
    pub write: Vec<Taken>,
}

/// One benchmark.
#[derive(Debug)]
pub struct Report {
    pub date: String,
    pub revision: String,
    pub machine: Value,
    pub postgres: String,
    pub size_gb: u32,
    pub cluster_bytes: u64,
    pub jobs: usize,
    pub cache: Cache,
    /// Name, version and options; the reference first, Seawall second.
    pub contestants: Vec<(&'static str, String, String)>,
    /// In the same order.
    pub runs: Vec<Runs>,
    pub floors: Floors,
}

/// A line of the table.
struct Row {
    work: &'static str,
    unit: &'static str,
    decimals: usize,
    values: fn(&Runs) -> Vec<f64>,
    /// The most Seawall may take, where there is such a number.
    limit: Option<Limit>,
}

#[derive(Clone, Copy)]
enum Limit {
    /// As a part of what the reference takes.
    Ratio(f64),
    Absolute(f64),
}

pub fn of(taken: &[Taken], value: fn(&Taken) -> f64) -> Vec<f64> {
    taken.iter().map(value).collect()
}

const ROWS: [Row; 7] = [
    Row {
        work: "full backup",
        unit: "s",
        decimals: 2,
        values: |runs| of(&runs.backups, |taken| taken.seconds),
        limit: Some(Limit::Ratio(0.65)),
    },
    Row {
        work: "repository size added",
        unit: "MB",
        decimals: 1,
        values: |runs| of(&runs.backups, |taken| taken.bytes_added as f64 / 1e6),
        limit: Some(Limit::Ratio(1.08)),
    },
    Row {
        work: "backup: processor",
        unit: "s",
        decimals: 2,
        values: |runs| of(&runs.backups, |taken| taken.cpu_seconds),
        limit: None,
    },
    Row {
        work: "backup: peak memory",
        unit: "MB",
        decimals: 1,
        values: |runs| of(&runs.backups, |taken| taken.peak_resident_bytes as f64 / 1e6),
        limit: Some(Limit::Absolute(150.0)),
    },
    Row {
        work: "restore",
        unit: "s",
        decimals: 2,
        values: |runs| of(&runs.restores, |taken| taken.seconds),
        limit: Some(Limit::Ratio(0.55)),
    },
    Row {
        work: "restore: processor",
        unit: "s",
        decimals: 2,
        values: |runs| of(&runs.restores, |taken| taken.cpu_seconds),
        limit: None,
    },
    Row {
        work: "restore: peak memory",
        unit: "MB",
        decimals: 1,
        values: |runs| of(&runs.restores, |taken| taken.peak_resident_bytes as f64 / 1e6),
        limit: Some(Limit::Absolute(150.0)),
    },
];

impl Report {
    /// Prints the table and keeps it, with every run, under `docs/evidence`.
    pub fn write(&self) -> Result<()> {
        let cache = if self.cache == Cache::Cold { "-cold" } else { "" };
        let jobs = if self.jobs == JOBS { String::new() } else { format!("-{}-jobs", self.jobs) };
        let name = format!("bench-{}-full-restore-{}gb{cache}{jobs}", self.date, self.size_gb);
        keep(&name, &self.markdown(), &self.json())
    }

    fn markdown(&self) -> String {
        let [reference, ours] = self.contestants.as_slice() else { return String::new() };
        let mut text = format!("# Full backup and restore, {}\n\n", self.date);
        let cache = if self.cache == Cache::Cold { "dropped before every run" } else { "warm" };
        let runs = self.runs.first().map_or(0, |runs| runs.backups.len());
        let gigabytes = self.cluster_bytes as f64 / 1e9;
        text.push_str(&format!(
            "{}. {gigabytes:.2} GB of {}. Page cache {cache}. {runs} runs each, in turn; medians, \
             ranges in brackets.\n\n",
            machine::in_words(&self.machine),
            self.postgres
        ));
        for (name, version, options) in &self.contestants {
            let of = if *name == ours.0 { format!(" ({})", self.revision) } else { String::new() };
            writeln!(text, "* **{name} {version}**{of}: {options}.").ok();
        }
        writeln!(
            text,
            "\n| | {} | {} | ratio | at most |\n|---|---|---|---|---|",
            reference.0, ours.0
        )
        .ok();
        for row in &ROWS {
            text.push_str(&self.row(row));
        }
        text.push_str(&self.floor_lines());
        text
    }

    fn row(&self, row: &Row) -> String {
        let [reference, ours] = self.runs.as_slice() else { return String::new() };
        let (reference, ours) = ((row.values)(reference), (row.values)(ours));
        let ratio = median(&ours) / median(&reference);
        let limit = match row.limit {
            None => String::new(),
            Some(Limit::Ratio(most)) => verdict(format!("{most} ×"), ratio <= most),
            Some(Limit::Absolute(most)) => {
                verdict(format!("{most} {}", row.unit), ours.iter().all(|value| *value <= most))
            }
        };
        let (work, unit) = (row.work, row.unit);
        let shown = |values: &[f64]| spread(values, row.decimals);
        format!(
            "| {work}, {unit} | {} | {} | {ratio:.2} × | {limit} |\n",
            shown(&reference),
            shown(&ours)
        )
    }

    fn floor_lines(&self) -> String {
        let seconds = |taken: &[Taken]| spread(&of(taken, |taken| taken.seconds), 2);
        let compressed = median(&of(&self.floors.compress, |taken| taken.bytes_added as f64 / 1e6));
        format!(
            "\nFloors: reading every file, two readers: {} s; all of it through one `zstd -1 -T2`: {} s \
             ({compressed:.1} MB); writing as many bytes past the page cache, synced: {} s.\n",
            seconds(&self.floors.read),
            seconds(&self.floors.compress),
            seconds(&self.floors.write)
        )
    }

    fn json(&self) -> Value {
        let list = |taken: &[Taken]| taken.iter().map(|one| one.to_json()).collect::<Vec<_>>();
        let contestants: Vec<Value> = self
            .contestants
            .iter()
            .zip(&self.runs)
            .map(|((name, version, options), runs)| {
                json!({
                    "name": name, "version": version, "options": options,
                    "backups": list(&runs.backups), "restores": list(&runs.restores),
                })
            })
            .collect();
        json!({
            "benchmark": "full-restore", "date": self.date, "revision": self.revision,
            "machine": self.machine, "postgres": self.postgres, "size_gb": self.size_gb,
            "cluster_bytes": self.cluster_bytes, "cold": self.cache == Cache::Cold, "jobs": self.jobs, "contestants": contestants,
            "floors": {
                "read": list(&self.floors.read), "compress": list(&self.floors.compress),
                "write": list(&self.floors.write),
            },
        })
    }
}

fn verdict(limit: String, held: bool) -> String {
    if held { limit } else { format!("{limit} **missed**") }
}

/// A median and, of several values, their range.
pub fn spread(values: &[f64], decimals: usize) -> String {
    let middle = median(values);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.len() < 2 {
        return format!("{middle:.decimals$}");
    }
    format!("{middle:.decimals$} ({least:.decimals$}–{most:.decimals$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(seconds: f64, bytes_added: u64, peak_resident_bytes: u64) -> Taken {
        Taken { seconds, cpu_seconds: 1.0, peak_resident_bytes, bytes_added }
    }

    fn report() -> Report {
        let runs = |backups: [Taken; 3], restores: [Taken; 3]| Runs {
            backups: backups.to_vec(),
            restores: restores.to_vec(),
        };
        let slow = [taken(9.0, 100, 1), taken(10.0, 100, 1), taken(12.0, 100, 1)];
        let quick = [taken(5.0, 109, 1), taken(6.0, 109, 151_000_000), taken(7.0, 109, 1)];
        Report {
            date: "2026-01-02".to_owned(),
            revision: "abc".to_owned(),
            machine: json!({"cores": 2}),
            postgres: "postgres (PostgreSQL) 15.20".to_owned(),
            size_gb: 2,
            cluster_bytes: 2_100_000_000,
            jobs: 2,
            cache: Cache::Warm,
            contestants: vec![
                ("A", "1".to_owned(), "x".to_owned()),
                ("B", "2".to_owned(), "y".to_owned()),
            ],
            runs: vec![runs(slow, slow), runs(quick, slow)],
            floors: Floors::default(),
        }
    }

    #[test]
    fn a_limit_that_is_not_held_is_said_to_be_missed() {
        let text = report().markdown();
        let line = |work: &str| text.lines().find(|line| line.starts_with(work)).unwrap();
        assert_eq!(
            line("| full backup"),
            "| full backup, s | 10.00 (9.00–12.00) | 6.00 (5.00–7.00) | 0.60 × | 0.65 × |"
        );
        assert!(line("| repository size").ends_with("1.09 × | 1.08 × **missed** |"));
        // One run over the limit is one too many.
        assert!(line("| backup: peak memory").ends_with("150 MB **missed** |"));
        assert!(line("| restore, s").ends_with("1.00 × | 0.55 × **missed** |"));
    }

    #[test]
    fn every_run_is_kept() {
        let json = report().json();
        assert_eq!(json["contestants"][1]["backups"][1]["seconds"], 6.0);
        assert_eq!(json["contestants"][0]["restores"].as_array().unwrap().len(), 3);
    }
}
