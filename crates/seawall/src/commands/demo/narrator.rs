use std::path::Path;
use std::time::Duration;

use seawall_core::{Code, Error, Result};

use super::place::DemoPlace;
use super::server::DemoServer;
use crate::render::{self, Out, Style, shell_quote};

/// Tells the story on standard output.
#[derive(Debug)]
pub struct Narrator {
    style: Style,
    step: u32,
    /// The demo's directory, which is shown as `$DIR`.
    directory: String,
}

impl Narrator {
    pub fn new(directory: &Path) -> Self {
        let directory = directory.display().to_string();
        Self { style: Style::of_stdout(), step: 0, directory }
    }

    pub fn title(&self, text: &str) -> Result<()> {
        Out.line(&self.style.bold(text))?;
        self.command(&format!("DIR={}", shell_quote(&self.directory)))
    }

    fn shorten(&self, text: &str) -> String {
        text.replace(&self.directory, "$DIR")
    }

    /// Begins a step.
    pub fn step(&mut self, text: &str) -> Result<()> {
        self.step += 1;
        Out.line(&format!(
            "\n{} {}",
            self.style.bold(&self.step.to_string()),
            self.style.bold(text)
        ))
    }

    pub fn say(&self, text: &str) -> Result<()> {
        Out.line(&format!("  {text}"))
    }

    pub fn good(&self, text: &str) -> Result<()> {
        Out.line(&format!("  {}", self.style.green(text)))
    }

    /// SQL.
    pub fn quote(&self, sql: &str) -> Result<()> {
        Out.line(&format!("  {} {};", self.style.dim("=#"), self.shorten(sql)))
    }

    /// A shell command.
    pub fn command(&self, line: &str) -> Result<()> {
        Out.line(&format!("  {} {line}", self.style.dim("$")))
    }

    pub fn row(&self, name: &str, rows: usize, digest: &str) -> Result<()> {
        Out.line(&format!("  {name:<13}{rows:>8} rows   sha256 {digest}"))
    }

    /// Runs `seawall` and shows the command and what it prints. Returns its standard output.
    ///
    /// # Errors
    /// [`Code::Internal`] if the command fails; what it printed is in the message.
    pub fn seawall(&self, place: &DemoPlace, arguments: &[impl AsRef<str>]) -> Result<String> {
        let shown: Vec<String> = arguments.iter().map(|word| shell_quote(word.as_ref())).collect();
        self.command(&self.shorten(&format!("seawall {}", shown.join(" "))))?;
        let mut command = place.seawall();
        command.args(arguments.iter().map(AsRef::as_ref));
        let output = command.output().map_err(|error| {
            Error::new(Code::LocalIo, "cannot run seawall itself").with_source(error)
        })?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(Error::new(
                Code::Internal,
                format!("seawall {}: {}\n{stderr}{stdout}", shown.join(" "), output.status),
            ));
        }
        let is_sql = stdout.starts_with("ALTER SYSTEM");
        let shown = if is_sql {
            stderr.lines().take(6).collect()
        } else {
            stdout.lines().collect::<Vec<_>>()
        };
        for line in shown {
            let line = self.shorten(line.trim_end());
            Out.line(&format!("    {}", self.style.dim(&line)))?;
        }
        Ok(stdout)
    }

    /// Where everything is, for whoever wants to look around.
    pub fn kept(&self, place: &DemoPlace, server: &DemoServer) -> Result<()> {
        Out.line(&format!("\n{}", self.style.bold("Look around")))?;
        for line in server.ways_in(place) {
            self.command(&line)?;
        }
        Ok(())
    }

    pub fn end(&self, took: Duration, kept: bool) -> Result<()> {
        let gone = if kept { "" } else { "; the demo's servers and files are gone" };
        Out.line(&format!("\n{}{gone}", render::duration(took)))?;
        Out.line("Protect a cluster of your own: seawall init --help")
    }
}
