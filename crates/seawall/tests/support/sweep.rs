//! A test that plays many rounds: few in CI, many in `cargo xtask soak`, and the same code.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result};
use seawall_testkit::PgBin;
use serde_json::json;

/// The seed of CI.
const SEED: u64 = 20_260_101;

/// How a sweep is played.
#[derive(Debug)]
pub struct Sweep {
    /// Where its random numbers start: `SEAWALL_SEED`.
    pub seed: u64,
    /// How many rounds: `SEAWALL_ROUNDS`.
    pub rounds: u64,
    began: Instant,
}

impl Sweep {
    /// Reads the environment; `rounds` unless it says otherwise.
    pub fn from_environment(rounds: u64) -> Result<Self> {
        Ok(Self {
            seed: number("SEAWALL_SEED")?.unwrap_or(SEED),
            rounds: number("SEAWALL_ROUNDS")?.unwrap_or(rounds),
            began: Instant::now(),
        })
    }

    /// Tells what was seen: to standard error, and as JSON to the file `SEAWALL_EVIDENCE` names.
    pub fn write_evidence(&self, counts: &BTreeMap<String, u64>) -> Result<()> {
        let postgres = PgBin::find(PgBin::default_major()?)?.version()?;
        let evidence = json!({
            "seed": self.seed,
            "rounds": self.rounds,
            "seconds": self.began.elapsed().as_secs(),
            "postgres": postgres,
            "counts": counts,
        });
        let text = serde_json::to_string_pretty(&evidence)?;
        eprintln!("{text}");
        match env::var_os("SEAWALL_EVIDENCE") {
            Some(file) => Ok(fs::write(file, text)?),
            None => Ok(()),
        }
    }
}

fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &str,
) -> Result<Option<T>> {
    let Ok(text) = env::var(name) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{name}={text}"))
}
