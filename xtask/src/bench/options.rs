use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use crate::paths;

/// What a benchmark is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of the cluster in GB.
    pub size_gb: u32,
    /// Backups and restores by each tool.
    pub runs: usize,
    /// Where everything goes; the cluster stays there for the next time.
    pub directory: PathBuf,
    /// Whether every run begins with an empty page cache.
    pub cold: bool,
}

impl Options {
    pub fn parse(arguments: &[&str]) -> Result<Self> {
        let directory = paths::cache()?.join("bench");
        let mut options = Self { size_gb: 2, runs: 5, directory, cold: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().with_context(|| format!("{argument} needs a value"));
            match *argument {
                "--size-gb" => options.size_gb = number(argument, value()?)?,
                "--runs" => options.runs = number(argument, value()?)?,
                "--dir" => options.directory = std::path::absolute(value()?)?,
                "--cold" => options.cold = true,
                other => bail!("bench: no option {other}"),
            }
        }
        ensure!(options.runs > 0, "--runs 0 measures nothing");
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

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let options = Options::parse(&["--size-gb", "6", "--dir", "/srv/bench", "--cold"]).unwrap();
        assert_eq!((options.size_gb, options.runs, options.cold), (6, 5, true));
        assert_eq!(options.directory, PathBuf::from("/srv/bench"));
        for wrong in [&["--size"][..], &["--runs"], &["--runs", "0"], &["--size-gb", "2GB"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
