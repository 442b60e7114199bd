//! The repositories of a job: opened once, each under one name.

use futures_util::future::join_all;
use seawall_core::{Error, Progress as _, Result};
use seawall_repo::Repository;

use super::{Job, JobEvent, JobRepository};
use crate::named_twice::named_twice;
use crate::survey::{Choices, CopyAt, FoundBackup, find_backup};

/// The repositories of a job's request, in their order, or why one cannot be used.
pub(super) struct Repositories<'j>(Vec<(&'j JobRepository, Result<Repository>)>);

impl Job<'_> {
    /// Opens the repositories of the request. One that is there under a second name is told, and
    /// counts once.
    pub(super) async fn open_all(&self) -> Repositories<'_> {
        let repositories = &self.request.repositories;
        let opened = join_all(repositories.iter().map(|one| self.program.open(one))).await;
        let mut different = Repositories(Vec::new());
        for (repository, opened) in repositories.iter().zip(opened) {
            let twice = opened
                .as_ref()
                .ok()
                .and_then(|opened| named_twice(different.answered(), &repository.name, opened));
            match twice {
                Some(twice) => {
                    self.events.event(&JobEvent::Note { note: twice.message().into() });
                }
                None => different.0.push((repository, opened)),
            }
        }
        different
    }

    /// The backup that a word means, over all repositories that answer; what has to be said of it is
    /// told. One that does not answer is a failure from then on. `None` if none does.
    ///
    /// # Errors
    /// [`seawall_core::Code::NoSuchBackup`], [`seawall_core::Code::Usage`] for `latest` of several
    /// clusters; why repositories did not answer is told before.
    pub(super) async fn backup_meant(
        &self,
        repositories: &mut Repositories<'_>,
        word: &str,
    ) -> Result<Option<FoundBackup<Vec<CopyAt>>>> {
        let answered = repositories.clones();
        let choices = Choices::look(&answered, self.request.cluster.as_ref()).await;
        repositories.take_failures(choices.failures);
        if repositories.answered().next().is_none() {
            return Ok(None);
        }
        match find_backup(word, choices.backups) {
            Ok(found) => {
                found.notes().for_each(|note| self.reporter.note(&note.into()));
                Ok(Some(found))
            }
            Err(error) => {
                for (name, failure) in repositories.take_all_failures() {
                    self.tell(Some(&name), failure);
                }
                Err(error)
            }
        }
    }
}

impl<'j> Repositories<'j> {
    /// Those that answered, by their names.
    pub(super) fn answered(&self) -> impl Iterator<Item = (&str, &Repository)> {
        self.0.iter().filter_map(|(one, opened)| Some((one.name.as_str(), opened.as_ref().ok()?)))
    }

    /// As [`Self::answered`], to keep.
    pub(super) fn clones(&self) -> Vec<(String, Repository)> {
        self.answered().map(|(name, opened)| (name.to_owned(), opened.clone())).collect()
    }

    /// All of them, in their order.
    pub(super) fn into_all(self) -> Vec<(&'j JobRepository, Result<Repository>)> {
        self.0
    }

    /// Why those did not answer that did not; they are gone from here then.
    pub(super) fn take_all_failures(&mut self) -> Vec<(String, Error)> {
        let failed = self.0.extract_if(.., |(_, opened)| opened.is_err());
        failed.filter_map(|(one, opened)| Some((one.name.clone(), opened.err()?))).collect()
    }

    /// Repositories that did not answer after all, and why.
    pub(super) fn take_failures(&mut self, failures: Vec<(String, Error)>) {
        for (name, error) in failures {
            if let Some((_, opened)) = self.0.iter_mut().find(|(one, _)| one.name == name) {
                *opened = Err(error);
            }
        }
    }
}
