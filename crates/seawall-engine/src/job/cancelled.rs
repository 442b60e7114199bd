//! A backup that was told to end.

use std::mem;
use std::sync::PoisonError;

use futures_util::future::join_all;
use seawall_core::{BackupId, Code, Error, Result, Retry, hint};
use seawall_repo::Line;
use tokio::time::timeout;

use super::{Ending, Job, JobEnd, JobReport};
use crate::backup;

/// A backup that was cancelled when a repository had it already.
#[derive(Debug)]
pub struct CancelledBackup {
    /// Its id.
    pub id: BackupId,
    /// What came of it in each repository where it was begun, in the order of the request.
    pub destinations: Vec<CancelledDestination>,
}

/// What came of a cancelled backup in one repository.
#[derive(Debug)]
pub struct CancelledDestination {
    /// Its name.
    pub name: String,
    /// Whether it has the backup, or why that is not known.
    pub has_it: Result<bool>,
}

impl CancelledBackup {
    /// The repositories that have it, by name.
    pub fn kept(&self) -> impl Iterator<Item = &str> {
        let kept = self.destinations.iter().filter(|it| matches!(it.has_it, Ok(true)));
        kept.map(|it| it.name.as_str())
    }

    /// What a job that was cancelled for this reason ends with; the same where no repository has the
    /// backup.
    fn told(&self, why: Error) -> Error {
        let kept: Vec<&str> = self.kept().collect();
        let mut what = why.chain();
        if !kept.is_empty() {
            what.push_str(&format!("\nbackup {} is complete in {}", self.id, kept.join(", ")));
        }
        let (mut without, mut unknown) = (Vec::new(), false);
        for CancelledDestination { name, has_it } in &self.destinations {
            match has_it {
                Ok(true) => {}
                Ok(false) => without.push(name.as_str()),
                Err(error) => {
                    unknown = true;
                    let error = error.chain();
                    let text =
                        format!("\nwhether {name} has backup {} is not known: {error}", self.id);
                    what.push_str(&text);
                }
            }
        }
        if kept.is_empty() && !unknown {
            return why;
        }
        if !without.is_empty() {
            what.push_str(&format!("\nit is not in {}", without.join(", ")));
        }
        let hint = if without.is_empty() && !unknown {
            hint!["It was done when the job was told to end: nothing is left to do."]
        } else {
            hint![
                "What is complete counts. The same command again makes another one, in all of them."
            ]
        };
        Error::new(why.code(), what).with_hint(hint)
    }
}

impl Job<'_> {
    /// The end of a backup that was told to end. It is noted that what was begun has ended: it is
    /// taken over from anywhere then, and at once. A repository that has the backup all the same is
    /// told.
    pub(super) async fn with_backed_up(&self, end: JobEnd) -> JobEnd {
        let begun = mem::take(&mut *self.backed_up.lock().unwrap_or_else(PoisonError::into_inner));
        let id = BackupId(self.id);
        let asked = begun.into_iter().map(async |(name, line)| CancelledDestination {
            name,
            has_it: came_of(&line, id).await,
        });
        let report = CancelledBackup { id, destinations: join_all(asked).await };
        let error = end.error.map(|why| report.told(why));
        let is_kept = report.kept().next().is_some();
        let report = is_kept.then(|| JobReport::CancelledBackup(Box::new(report)));
        JobEnd { report, ending: Ending::Cancelled, error }
    }
}

/// Gives a backup up in a repository, unless it is complete there. `true` if it is.
async fn came_of(line: &Line, id: BackupId) -> Result<bool> {
    let asked = timeout(backup::GIVING_UP, async {
        if let Err(error) = backup::give_up(line, id).await {
            tracing::warn!("{}", error.context("giving a backup up").chain());
        }
        line.has_backup(id).await
    });
    asked.await.unwrap_or_else(|_| Err(no_answer(line)))
}

fn no_answer(line: &Line) -> Error {
    let what = format!("{} does not answer", line.store().url());
    Error::new(Code::StoreFailed, what).with_retry(Retry::Later)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(destinations: Vec<(&str, Result<bool>)>) -> Error {
        let destination =
            |(name, has_it): (&str, _)| CancelledDestination { name: name.to_owned(), has_it };
        let destinations = destinations.into_iter().map(destination).collect();
        let id = BackupId("01KD5Z0M3V7Q4R8S9T1W2X3Y4Z".parse().unwrap());
        CancelledBackup { id, destinations }
            .told(Error::new(Code::Interrupted, "it was told to end"))
    }

    #[test]
    fn where_a_cancelled_backup_is_complete_is_told_and_where_that_is_not_known() {
        let away = || Error::new(Code::StoreFailed, "gone");
        assert_eq!(told(vec![("a", Ok(false)), ("b", Ok(false))]).message(), "it was told to end");
        let both = told(vec![("a", Ok(true)), ("b", Ok(true))]);
        assert!(both.message().ends_with(" is complete in a, b"), "{both:?}");
        let one = told(vec![("a", Ok(true)), ("b", Ok(false))]);
        assert!(one.message().contains(" is complete in a\nit is not in b"), "{one:?}");
        let unknown = told(vec![("a", Err(away())), ("b", Ok(false))]);
        assert!(unknown.message().contains("whether a has backup "), "{unknown:?}");
        assert!(unknown.message().contains("is not known: gone\nit is not in b"), "{unknown:?}");
        for error in [both, one, unknown] {
            assert_eq!(error.code(), Code::Interrupted);
        }
    }
}
