//! Exit statuses: what a script, a monitor or PostgreSQL learns from how the program ended.

use std::ffi::{OsStr, OsString};

use seawall_core::{Code, Error, ExitClass};

use crate::args::{Command, WalCommand};

/// Added to the status of a `wal fetch` that failed.
///
/// PostgreSQL takes 1 to 125 for "there is no such file" and may end recovery and promote on it;
/// above 125 it stops (`RestoreArchivedFile`, xlogarchive.c).
const FETCH_BASE: u8 = 200;

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Done, and something was found that a person should look at.
    Findings,
    /// What `status` tells a monitor: 1 is a warning, 2 is critical.
    Monitor(u8),
}

impl Outcome {
    /// The exit status.
    pub const fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Findings => ExitClass::Findings as u8,
            Self::Monitor(status) => status,
        }
    }
}

/// Who reads the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A person or a script.
    Person,
    /// PostgreSQL's `restore_command`.
    RestoreCommand,
}

impl Caller {
    /// Finds out before the command line is understood: one that is not must not look to
    /// PostgreSQL like WAL that does not exist.
    pub fn of(arguments: &[OsString]) -> Self {
        let mut words = arguments.iter().skip(1).map(OsString::as_os_str);
        let fetches = words.any(|word| word == "wal")
            && words
                .map(OsStr::to_str)
                .find(|word| matches!(word, Some("push" | "list" | "fetch")))
                == Some(Some("fetch"));
        if fetches { Self::RestoreCommand } else { Self::Person }
    }

    /// Who reads the exit status of a command line that was understood.
    pub const fn of_command(command: &Command) -> Self {
        match command {
            Command::Wal(WalCommand::Fetch(_)) => Self::RestoreCommand,
            _ => Self::Person,
        }
    }

    /// The exit status of a failure.
    pub fn status_of(self, error: &Error) -> u8 {
        let status = error.exit_class() as u8;
        match self {
            Self::Person => status,
            Self::RestoreCommand if error.code() == Code::WalPastEnd => 1,
            Self::RestoreCommand => FETCH_BASE + status,
        }
    }

    /// The exit status of a command line that cannot be understood.
    pub const fn usage_status(self) -> u8 {
        match self {
            Self::Person => ExitClass::Usage as u8,
            Self::RestoreCommand => FETCH_BASE + ExitClass::Usage as u8,
        }
    }

    /// The exit status of a defect: a panic.
    pub const fn defect_status(self) -> u8 {
        match self {
            Self::Person => ExitClass::Failed as u8,
            Self::RestoreCommand => FETCH_BASE + ExitClass::Failed as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(line: &str) -> Caller {
        Caller::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn wal_fetch_is_recognised_wherever_its_options_stand() {
        for line in [
            "seawall wal fetch a b",
            "seawall --config /x wal fetch a b",
            "seawall wal --config /x fetch",
            "seawall wal --bad fetch a b",
            "seawall --bad wal fetch",
        ] {
            assert_eq!(caller(line), Caller::RestoreCommand, "{line}");
        }
        for line in
            ["seawall", "seawall wal", "seawall wal push fetch", "seawall list", "fetch wal"]
        {
            assert_eq!(caller(line), Caller::Person, "{line}");
        }
    }

    #[test]
    fn only_proof_that_wal_does_not_exist_lets_postgres_go_on() {
        for code in Code::ALL {
            let status = Caller::RestoreCommand.status_of(&Error::new(*code, "x"));
            if *code == Code::WalPastEnd {
                assert_eq!(status, 1);
            } else {
                assert!(status > 200, "{code} gives {status}");
            }
        }
        assert!(Caller::RestoreCommand.usage_status() > 200);
        assert!(Caller::RestoreCommand.defect_status() > 200);
    }
}
