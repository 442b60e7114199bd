//! The line a job reads, in each of its repositories.

use seawall_core::{ClusterName, Error, Result};
use seawall_repo::{Line, Repository};

use crate::lines::{stored_lines, written_lines};
use crate::restored::RestoreState;

/// Where a line is.
#[derive(Debug, Default)]
pub struct Whereabouts {
    /// Repositories by name, in the order they are configured, and the line in them.
    pub lines: Vec<(String, Line)>,
    /// Why other repositories could not be asked.
    pub failures: Vec<(String, Error)>,
}

impl Whereabouts {
    /// The line that is written now of a cluster, or of the only one there is: one and the same
    /// whichever repository is asked. A repository that does not have it is passed over.
    pub async fn of_written(
        opened: Vec<(String, Result<Repository>)>,
        cluster: Option<&ClusterName>,
    ) -> Self {
        let (mut found, mut names, mut known) = (Self::default(), Vec::new(), Vec::new());
        for (name, opened) in opened {
            let look = async { stored_lines(&opened?, cluster).await };
            if let Some(lines) = found.keep(&name, look.await) {
                names.push(name);
                known.push(lines);
            }
        }
        let written = names.into_iter().zip(written_lines(&known));
        found.lines = written.filter_map(|(name, line)| Some((name, line?))).collect();
        found
    }

    /// The line that something was restored from.
    #[must_use]
    pub fn of_restored(opened: Vec<(String, Result<Repository>)>, state: &RestoreState) -> Self {
        let mut found = Self::default();
        for (name, opened) in opened {
            let line = opened.and_then(|opened| opened.line(state.cluster(), state.line()));
            if let Some(line) = found.keep(&name, line) {
                found.lines.push((name, line));
            }
        }
        found
    }

    fn keep<T>(&mut self, name: &str, looked: Result<T>) -> Option<T> {
        match looked {
            Ok(value) => Some(value),
            Err(error) => {
                self.failures.push((name.to_owned(), error));
                None
            }
        }
    }

    /// The last of the failures, with the repository it is of.
    pub fn take_failure(&mut self) -> Option<Error> {
        let (name, error) = self.failures.pop()?;
        Some(error.context(format_args!("repository {name}")))
    }
}
