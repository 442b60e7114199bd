//! What the long stories saw, for `docs/evidence`.

use std::env;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::Counts;
use crate::compare::Seen;

/// Counts over all rounds.
#[derive(Debug)]
pub struct Evidence {
    /// Where the random numbers start: `SEAWALL_SEED`.
    pub seed: u64,
    /// How many stories: `SEAWALL_ROUNDS`.
    pub rounds: u64,
    began: Instant,
    versions: Counts,
    counts: Counts,
}

impl Evidence {
    pub fn from_environment(seed: u64) -> Result<Self> {
        Ok(Self {
            seed: number("SEAWALL_SEED")?.unwrap_or(seed),
            rounds: number("SEAWALL_ROUNDS")?.unwrap_or(3),
            began: Instant::now(),
            versions: Counts::new(),
            counts: Counts::new(),
        })
    }

    pub fn add(&mut self, version: &str, seen: &Seen) {
        *self.versions.entry(version.to_owned()).or_default() += 1;
        let totals = [
            ("all records", seen.records),
            ("all records over 64 MiB", seen.long_records),
            ("all page images", seen.images),
            ("all page images for verification", seen.images_to_verify),
            ("all records across segments", seen.across_segments),
            (&format!("all records of {version}"), seen.records),
        ];
        let operations = seen.operations.iter().map(|(name, count)| (name.as_str(), *count));
        for (name, count) in totals.into_iter().chain(operations) {
            *self.counts.entry(name.to_owned()).or_default() += count;
        }
        let longest = self.counts.entry("bytes of the longest record".to_owned()).or_default();
        *longest = (*longest).max(seen.longest_bytes);
    }

    /// Tells it to standard error, and as JSON to the file `SEAWALL_EVIDENCE` names.
    pub fn write(&self) -> Result<()> {
        let versions: Vec<&str> = self.versions.keys().map(String::as_str).collect();
        let evidence = serde_json::json!({
            "seed": self.seed,
            "rounds": self.rounds,
            "seconds": self.began.elapsed().as_secs(),
            "postgres": versions.join(", "),
            "counts": self.counts,
        });
        let text = serde_json::to_string_pretty(&evidence)?;
        eprintln!("{text}");
        match env::var_os("SEAWALL_EVIDENCE") {
            Some(file) => Ok(fs::write(file, text)?),
            None => Ok(()),
        }
    }
}

fn number(name: &str) -> Result<Option<u64>> {
    let Ok(text) = env::var(name) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{name}={text}"))
}
