//! The log of a server that was started: what it wrote where it was told to, and where its
//! configuration led it from there.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, printable};

/// How much of the server's log an error shows.
const LINES: usize = 20;

/// More than this many bytes of a log are not looked at.
const BYTES_MAX: u64 = 1 << 20;

/// What tells where the logging collector writes (`update_metainfo_datafile`, syslogger.c).
const CURRENT_LOGFILES: &str = "current_logfiles";

/// What a server logs from now on.
#[derive(Debug)]
pub(super) struct ServerLog {
    data_directory: PathBuf,
    file: PathBuf,
    /// How much of it there was before.
    from: u64,
}

impl ServerLog {
    /// What will come to be in `file`, and where that leads.
    pub fn from_now(data_directory: &Path, file: &Path) -> Self {
        let from = fs::metadata(file).map_or(0, |metadata| metadata.len());
        Self { data_directory: data_directory.to_owned(), file: file.to_owned(), from }
    }

    /// The last line of those that tell why a server ends. They are looked for by PostgreSQL's own
    /// words, which it may have been told to translate.
    pub fn last_words(&self) -> Option<String> {
        let is_fatal = |line: &&str| line.contains("FATAL:") || line.contains("PANIC:");
        self.parts().iter().rev().find_map(|(_, text)| {
            // Clients that came too early are told so with the same severity.
            let is_told = |line: &&str| is_fatal(line) && !line.contains("the database system is ");
            let line = text.lines().rfind(is_told)?;
            let at = line.find("FATAL:").or_else(|| line.find("PANIC:"))?;
            line.get(at..).map(printable)
        })
    }

    /// The same error, with the end of the log.
    pub fn shown_with(&self, error: Error) -> Error {
        if error.code() != Code::RestoredServerFailed {
            return error;
        }
        let mut message = error.message().to_owned();
        for (path, text) in self.parts() {
            let lines: Vec<String> = text.lines().map(printable).collect();
            let tail = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
            if !tail.is_empty() {
                message.push_str(&format!("\nthe end of {}:\n{}", path.display(), tail.join("\n")));
            }
        }
        let shown = Error::new(Code::RestoredServerFailed, message);
        match error.hint() {
            Some(hint) => shown.with_hint(hint.clone()),
            None => shown,
        }
    }

    /// The files and the ends of what is in them.
    fn parts(&self) -> Vec<(PathBuf, String)> {
        let mut parts = vec![(self.file.clone(), tail(&self.file, self.from))];
        let current = fs::read_to_string(self.data_directory.join(CURRENT_LOGFILES));
        let current = current.unwrap_or_default();
        // `stderr log/postgresql-….log`; there may be others, which say the same.
        let named = current.lines().find_map(|line| line.split_once(' '));
        if let Some((_, name)) = named {
            let path = self.data_directory.join(name);
            let text = tail(&path, 0);
            parts.push((path, text));
        }
        parts
    }
}

fn tail(path: &Path, from: u64) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(BYTES_MAX))))?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    // What cannot be read is not shown; the error it belongs to is.
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_those_of_this_start_wherever_they_are_logged() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("restored.log");
        fs::write(&file, "1 FATAL:  an earlier start\n").unwrap();
        let log = ServerLog::from_now(dir.path(), &file);
        assert_eq!(log.last_words(), None);
        let text = fs::read_to_string(&file).unwrap();
        let now =
            format!("{text}2 FATAL:  it is so\n2 FATAL:  the database system is starting up\n");
        fs::write(&file, now).unwrap();
        assert_eq!(log.last_words().as_deref(), Some("FATAL:  it is so"));

        fs::create_dir(dir.path().join("log")).unwrap();
        fs::write(dir.path().join("log/x.log"), "3 PANIC:  worse\n3 LOG:  bye\n").unwrap();
        fs::write(dir.path().join(CURRENT_LOGFILES), "stderr log/x.log\n").unwrap();
        assert_eq!(log.last_words().as_deref(), Some("PANIC:  worse"));
        let shown = log.shown_with(Error::new(Code::RestoredServerFailed, "it ended"));
        assert!(shown.message().contains("it is so") && shown.message().contains("LOG:  bye"));
        assert!(!shown.message().contains("earlier"), "{shown:?}");
    }
}
