use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use super::turn::Cache;
use crate::paths;

/// The number of workers that the numbers of the design are for.
pub const JOBS: usize = 2;

/// What a benchmark is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of the cluster in GB.
    pub size_gb: u32,
    /// Backups and restores by each tool.
    pub runs: usize,
    /// Workers of each tool.
    pub jobs: usize,
    /// Where everything goes; the cluster stays there for the next time.
    pub directory: PathBuf,
    /// How every run begins.
    pub cache: Cache,
}

impl Options {
    /// Reads the options that a benchmark `knows`.
    pub fn parse(arguments: &[&str], knows: &[&str]) -> Result<Self> {
        let directory = paths::cache()?.join("bench");
        let mut options = Self { size_gb: 2, runs: 5, jobs: JOBS, directory, cache: Cache::Warm };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            ensure!(knows.contains(argument), "bench: no option {argument}");
            let mut value =
                || arguments.next().with_context(|| format!("{argument} needs a value"));
            match *argument {
                "--size-gb" => options.size_gb = number(argument, value()?)?,
                "--runs" => options.runs = number(argument, value()?)?,
                "--jobs" => options.jobs = number(argument, value()?)?,
                "--dir" => options.directory = std::path::absolute(value()?)?,
                "--cold" => options.cache = Cache::Cold,
                other => bail!("bench: no option {other}"),
            }
        }
        ensure!(options.runs > 0, "--runs 0 measures nothing");
        ensure!(options.jobs > 0, "--jobs 0 does nothing");
        ensure!(options.size_gb > 0, "--size-gb 0 is no cluster");
        Ok(options)
    }
}

/// The number an option was given.
pub fn number<T: FromStr>(option: &str, text: &str) -> Result<T> {
    text.parse().ok().with_context(|| format!("{option} {text}: not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 5] = ["--size-gb", "--runs", "--jobs", "--dir", "--cold"];

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let given = ["--size-gb", "6", "--jobs", "1", "--dir", "/srv/bench", "--cold"];
        let options = Options::parse(&given, &ALL).unwrap();
        assert_eq!(
            (options.size_gb, options.runs, options.jobs, options.cache),
            (6, 5, 1, Cache::Cold)
        );
        assert_eq!(options.directory, PathBuf::from("/srv/bench"));
        assert!(Options::parse(&["--cold"], &["--runs"]).is_err());
        for wrong in [&["--size"][..], &["--runs"], &["--runs", "0"], &["--size-gb", "2GB"]] {
            assert!(Options::parse(wrong, &ALL).is_err(), "{wrong:?}");
        }
    }
}
