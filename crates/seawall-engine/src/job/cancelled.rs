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
    /// What came of it in each repository of the request, in that order.
    pub destinations: Vec<CancelledDestination>,
}

/// What came of a cancelled backup in one repository.
#[derive(Debug)]
pub struct CancelledDestination {
    /// Its name.
    pub name: String,
    /// What came of the backup there.
    pub came: CameOf,
}

/// What came of a cancelled backup in a repository.
#[derive(Debug)]
pub enum CameOf {
    /// It is there.
    Complete,
    /// It was begun, and is not there.
    Cancelled,
    /// It was not begun there, and why.
    Failed(Error),
    /// It was begun, and why it is not known whether it is there.
    Unknown(Error),
}

impl CameOf {
    /// As it is told if not all threads of the job have come to an end: one of them may still publish
    /// the backup.
    fn unless_under_way(self, name: &str) -> Self {
        match self {
            Self::Cancelled => {
                let what = format!("what was begun in {name} has not come to an end");
                Self::Unknown(Error::new(Code::StoreFailed, what).with_retry(Retry::Later))
            }
            Self::Complete | Self::Failed(_) | Self::Unknown(_) => self,
        }
    }
}

/// A repository that a backup was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub name: String,
    /// Where it was begun, or why it was not.
    pub line: Result<Line>,
}

impl CancelledBackup {
    /// The repositories that have it, by name.
    pub fn kept(&self) -> impl Iterator<Item = &str> {
        let kept = self.destinations.iter().filter(|it| matches!(it.came, CameOf::Complete));
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
        let (mut without, mut failed, mut unknown) = (Vec::new(), false, false);
        for CancelledDestination { name, came } in &self.destinations {
            match came {
                CameOf::Complete => {}
                CameOf::Cancelled => without.push(name.as_str()),
                CameOf::Failed(error) => {
                    failed = true;
                    what.push_str(&format!("\nit was not begun in {name}: {}", error.chain()));
                }
                CameOf::Unknown(error) => {
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
        let hint = if without.is_empty() && !failed && !unknown {
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
    pub(super) async fn with_backed_up(&self, end: JobEnd, threads_ended: bool) -> JobEnd {
        let asked = mem::take(&mut *self.backed_up.lock().unwrap_or_else(PoisonError::into_inner));
        let id = BackupId(self.id);
        let asked = asked.into_iter().map(async |Asked { name, line }| {
            let came = match line {
                Ok(line) => came_of(&line, id).await,
                Err(error) => CameOf::Failed(error),
            };
            let came = if threads_ended { came } else { came.unless_under_way(&name) };
            CancelledDestination { name, came }
        });
        let report = CancelledBackup { id, destinations: join_all(asked).await };
        let error = end.error.map(|why| report.told(why));
        let is_kept = report.kept().next().is_some();
        let report = is_kept.then(|| JobReport::CancelledBackup(Box::new(report)));
        JobEnd { report, ending: Ending::Cancelled, error }
    }
}

/// Gives a backup up in a repository, unless it is complete there.
async fn came_of(line: &Line, id: BackupId) -> CameOf {
    let asked = timeout(backup::GIVING_UP, async {
        if let Err(error) = backup::give_up(line, id).await {
            tracing::warn!("{}", error.context("giving a backup up").chain());
        }
        line.has_backup(id).await
    });
    match asked.await {
        Ok(Ok(true)) => CameOf::Complete,
        Ok(Ok(false)) => CameOf::Cancelled,
        Ok(Err(error)) => CameOf::Unknown(error),
        Err(_) => CameOf::Unknown(no_answer(line)),
    }
}

fn no_answer(line: &Line) -> Error {
    let what = format!("{} does not answer", line.store().url());
    Error::new(Code::StoreFailed, what).with_retry(Retry::Later)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(destinations: Vec<(&str, CameOf)>) -> Error {
        let destination =
            |(name, came): (&str, _)| CancelledDestination { name: name.to_owned(), came };
        let destinations = destinations.into_iter().map(destination).collect();
        let id = BackupId("01KD5Z0M3V7Q4R8S9T1W2X3Y4Z".parse().unwrap());
        CancelledBackup { id, destinations }
            .told(Error::new(Code::Interrupted, "it was told to end"))
    }

    fn away() -> Error {
        Error::new(Code::StoreFailed, "gone")
    }

    #[test]
    fn where_a_cancelled_backup_is_complete_is_told_and_where_that_is_not_known() {
        use CameOf::{Cancelled, Complete, Unknown};
        let neither = told(vec![("a", Cancelled), ("b", Cancelled)]);
        assert_eq!(neither.message(), "it was told to end");
        let both = told(vec![("a", Complete), ("b", Complete)]);
        assert!(both.message().ends_with(" is complete in a, b"), "{both:?}");
        let one = told(vec![("a", Complete), ("b", Cancelled)]);
        assert!(one.message().contains(" is complete in a\nit is not in b"), "{one:?}");
        let unknown = told(vec![("a", Unknown(away())), ("b", Cancelled)]);
        assert!(unknown.message().contains("whether a has backup "), "{unknown:?}");
        assert!(unknown.message().contains("is not known: gone\nit is not in b"), "{unknown:?}");
        for error in [both, one, unknown] {
            assert_eq!(error.code(), Code::Interrupted);
        }
    }

    #[test]
    fn something_is_left_to_do_where_a_repository_could_not_take_part() {
        let error = told(vec![("a", CameOf::Complete), ("b", CameOf::Failed(away()))]);
        let message = error.message();
        assert!(message.ends_with(" is complete in a\nit was not begun in b: gone"), "{message}");
        let hint = format!("{:?}", error.hint());
        assert!(hint.contains("The same command again"), "{hint}");
        let nowhere = told(vec![("a", CameOf::Cancelled), ("b", CameOf::Failed(away()))]);
        assert_eq!(nowhere.message(), "it was told to end");
    }

    #[test]
    fn a_backup_that_a_thread_may_still_publish_is_not_told_to_be_missing() {
        let under_way = CameOf::Cancelled.unless_under_way("a");
        assert!(matches!(under_way, CameOf::Unknown(_)), "{under_way:?}");
        let complete = CameOf::Complete.unless_under_way("a");
        assert!(matches!(complete, CameOf::Complete), "{complete:?}");
    }
}
