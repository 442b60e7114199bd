//! A test that CI plays in a few rounds, played in many.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::bench::machine;
use crate::bench::options::number;
use crate::command::{capture, cargo, step};
use crate::evidence::keep;

/// A test whose rounds are drawn by lot.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// What it is called here.
    pub name: &'static str,
    /// The crate that the test is of.
    pub package: &'static str,
    /// Its test program.
    pub program: &'static str,
    /// The test in it.
    pub test: &'static str,
    /// What every round proves, for the evidence.
    pub proves: &'static str,
    /// What is counted, for the evidence.
    pub counts: &'static str,
    /// How many rounds unless told otherwise.
    pub rounds: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    rounds: u64,
    seed: Option<u64>,
}

impl Options {
    fn parse(sweep: &Sweep, arguments: &[&str]) -> Result<Self> {
        let mut options = Self { rounds: sweep.rounds, seed: None };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{argument} needs a value"))?;
            match *argument {
                "--rounds" => options.rounds = number(argument, value)?,
                "--seed" => options.seed = Some(number(argument, value)?),
                other => bail!("soak {}: no option {other}", sweep.name),
            }
        }
        Ok(options)
    }
}

impl Sweep {
    /// Plays it and writes the evidence.
    pub fn main(&self, arguments: &[&str]) -> Result<()> {
        self.main_with(arguments, |_| Ok(()))
    }

    /// The same, after what only this test needs was prepared and told to it.
    pub fn main_with(
        &self,
        arguments: &[&str],
        prepare: fn(&mut Command) -> Result<()>,
    ) -> Result<()> {
        let options = Options::parse(self, arguments)?;
        let file = std::env::temp_dir().join(format!("seawall-soak-{}", std::process::id()));
        let mut test = cargo()?;
        test.args(["test", "--locked", "--package", self.package, "--test", self.program]);
        test.args(["--", "--exact", "--nocapture", "--include-ignored", self.test]);
        test.env("SEAWALL_ROUNDS", options.rounds.to_string()).env("SEAWALL_EVIDENCE", &file);
        if let Some(seed) = options.seed {
            test.env("SEAWALL_SEED", seed.to_string());
        }
        prepare(&mut test)?;
        step(&format!("{} rounds of {}", options.rounds, self.test), &mut test)?;
        let seen = fs::read(&file).context("the test wrote no evidence")?;
        fs::remove_file(file)?;
        self.report(&serde_json::from_slice(&seen)?)
    }

    fn report(&self, seen: &Value) -> Result<()> {
        let (date, revision) = (machine::today()?, machine::revision()?);
        let machine = machine::describe(&std::env::temp_dir())?;
        let rustc = capture(Command::new("rustc").arg("--version"))?;
        let text = self.markdown(seen, &date, &revision, &machine)?;
        let json = json!({
            "soak": self.name, "date": date, "revision": revision, "machine": machine,
            "rustc": rustc.trim(), "seen": seen,
        });
        keep(&format!("soak-{date}-{}", self.name), &text, &json)
    }

    fn markdown(
        &self,
        seen: &Value,
        date: &str,
        revision: &str,
        machine: &Value,
    ) -> Result<String> {
        let field = |name: &str| seen.get(name).with_context(|| format!("no {name} in {seen}"));
        let (seed, rounds, seconds) = (field("seed")?, field("rounds")?, field("seconds")?);
        let postgres = field("postgres")?.as_str().context("no version")?;
        let mut text = format!(
            "# Soak: {}, {date}\n\n{} rounds from seed {} in {} s, none failed. Revision {revision}, {postgres}; {}.\n\n{}\n\n| what | {} |\n|---|---|\n",
            self.name,
            rounds,
            seed,
            seconds,
            machine::in_words(machine),
            self.proves,
            self.counts
        );
        for (what, count) in field("counts")?.as_object().context("no counts")? {
            text.push_str(&format!("| {what} | {count} |\n"));
        }
        text.push_str(&format!(
            "\nAgain: `cargo xtask soak {} --rounds {rounds} --seed {seed}`\n",
            self.name
        ));
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWEEP: Sweep = Sweep {
        name: "storms",
        package: "c",
        program: "p",
        test: "t",
        proves: "It holds.",
        counts: "rounds",
        rounds: 100,
    };

    #[test]
    fn rounds_and_seed_can_be_chosen() {
        let (rounds, seed) = (100, None);
        assert_eq!(Options::parse(&SWEEP, &[]).unwrap(), Options { rounds, seed });
        let chosen = Options::parse(&SWEEP, &["--seed", "7", "--rounds", "3"]).unwrap();
        assert_eq!(chosen, Options { rounds: 3, seed: Some(7) });
        assert!(Options::parse(&SWEEP, &["--seed"]).is_err());
        assert!(Options::parse(&SWEEP, &["--sead", "7"]).is_err());
    }

    #[test]
    fn the_evidence_says_how_to_play_it_again() {
        let seen = json!({
            "seed": 7, "rounds": 3, "seconds": 1, "postgres": "PostgreSQL 15", "counts": {"a": 3}
        });
        let text = SWEEP.markdown(&seen, "2026-01-01", "abc", &json!({})).unwrap();
        assert!(text.contains("| a | 3 |"));
        assert!(text.ends_with("`cargo xtask soak storms --rounds 3 --seed 7`\n"));
    }
}
