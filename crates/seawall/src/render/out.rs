use std::io::{self, Write};

use seawall_core::{Code, Result, ResultExt};
use serde::Serialize;

/// Standard output.
///
/// A reader that has seen enough, as in `seawall list | head -1`, is not a failure: what remains
/// is dropped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Out;

impl Out {
    /// Writes text as it is.
    ///
    /// # Errors
    /// [`Code::LocalIo`], for example a full disk behind a redirection.
    pub fn text(self, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.code(Code::LocalIo, || "cannot write to standard output".to_owned()),
        }
    }

    /// Writes a line.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn line(self, line: &str) -> Result<()> {
        self.text(&format!("{line}\n"))
    }

    /// Writes one JSON document, indented.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn json(self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .code(Code::Internal, || "cannot write JSON".to_owned())?;
        self.line(&text)
    }
}
