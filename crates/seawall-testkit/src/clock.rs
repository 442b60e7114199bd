//! A clock of the wall that a test sets, while the programs that look at it run.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::{TestDir, process};

/// Such a clock. It goes right until it is set.
#[derive(Debug)]
pub struct TestClock {
    directory: TestDir,
}

impl TestClock {
    /// Builds the library that programs are told the time by.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn new() -> Result<Self> {
        let directory = TestDir::new()?;
        let source = directory.join("clock.c");
        fs::write(&source, include_str!("clock.c"))?;
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-shared", "-fPIC", "-o"]).arg(directory.join("clock.so")).arg(&source);
        process::run(&mut cc, None, Duration::from_secs(60))?.success().context("cc")?;
        let clock = Self { directory };
        clock.shift(0)?;
        Ok(clock)
    }

    /// What puts a program, and those it starts, under this clock.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let path = |name: &str| self.directory.join(name).display().to_string();
        [("LD_PRELOAD", path("clock.so")), ("SEAWALL_TEST_CLOCK", path("time"))]
    }

    /// Lets it go, so many seconds ahead; behind, if they are negative.
    ///
    /// # Errors
    /// The disk is full.
    pub fn shift(&self, seconds: i64) -> Result<()> {
        self.tell(&format!("+{}", seconds * 1_000_000))
    }

    /// Stops it at the right time.
    ///
    /// # Errors
    /// The disk is full.
    pub fn stop(&self) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        self.tell(&format!("={}", now.as_micros()))
    }

    fn tell(&self, text: &str) -> Result<()> {
        // Whole at any moment: somebody always looks.
        let beside = self.directory.join("time.new");
        fs::write(&beside, text)?;
        Ok(fs::rename(beside, self.directory.join("time"))?)
    }
}
