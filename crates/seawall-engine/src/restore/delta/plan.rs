//! What a plan needs to know of the directory it goes onto.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use seawall_core::{Action, Code, Error, Oid, Result, WalSegmentSize, hint};

use super::ProvenDelta;
use super::prove::Proving;
use super::survey::survey_of;
use super::tablespaces::surplus;
use super::unarchived::unarchived;
use crate::restore::execute::Execution;
use crate::restore::preflight::{prove_space, remap};
use crate::restore::{PlannedRestore, RestoreOptions, WalSource};
use crate::stored::Layout;

impl PlannedRestore {
    /// Adds to the plan what is in the directory, and what becomes of it.
    ///
    /// # Errors
    /// [`Code::DirectoryNotEmpty`] for what is in the way, and for WAL that is nowhere else; those of
    /// reading.
    pub(in crate::restore) async fn onto(mut self, wal: &dyn WalSource) -> Result<Self> {
        let Some(delta) = self.request.delta else { return Ok(self) };
        if let Some(lost) = self.lost_wal(wal).await? {
            if !delta.force {
                return Err(Error::new(Code::DirectoryNotEmpty, lost).with_hint(hint![
                    "Where the server wrote what is to be kept: ",
                    Action::PushPartialWal { cluster: Some(self.plan.cluster.clone()) },
                    " for each file there, then this again. `--force` gives it up."
                ]));
            }
            self.plan.warnings.push(lost.into());
        }
        let (into, major) = (&self.request.into, self.major()?);
        let map = &self.manifest.commit.info.tablespace_map;
        let tablespaces = remap(map, &self.request.tablespaces, into)?;
        let layout = Layout::new(into.clone(), &tablespaces);
        let surplus = surplus(into, &tablespaces)?;
        let backup = (&self.sources, &self.manifest);
        let survey = survey_of(backup, &layout, major, &surplus, delta).await?;
        self.plan.onto = Some(survey.onto.clone());
        self.survey = Some(survey);
        Ok(self)
    }
}

impl PlannedRestore {
    async fn lost_wal(&self, wal: &dyn WalSource) -> Result<Option<String>> {
        let size = WalSegmentSize::new(self.manifest.commit.info.wal_segment_bytes);
        let (into, size) = (&self.request.into, size.unwrap_or(WalSegmentSize::DEFAULT));
        let only_here = unarchived(wal, into, size).await?;
        Ok(only_here.map(|(first, last)| {
            let shown = into.join("pg_wal");
            format!(
                "{} has WAL that is not archived, from segment {first} to {last}, and the restore removes it",
                shown.display()
            )
        }))
    }
}

impl Execution {
    /// Compares the directory with the backup, and proves that what differs can be had.
    ///
    /// # Errors
    /// Damage, a store that fails, and files that cannot be read.
    pub(in crate::restore) async fn prove_onto(
        &self,
        options: &RestoreOptions,
        surplus: BTreeMap<Oid, PathBuf>,
    ) -> Result<ProvenDelta> {
        let proving = Proving {
            sources: Arc::clone(&self.sources),
            manifest: Arc::clone(&self.manifest),
            layout: self.layout.clone(),
            jobs: self.jobs,
            kept_bytes_max: options.memory_bytes / 8,
            pace: Arc::new(self.pace.again()),
            progress: Arc::clone(&self.progress),
        };
        let delta = self.request.delta.unwrap_or_default();
        proving.run(delta, surplus, self.proven.entries).await
    }

    /// Proves that there is room for what is to be written below each directory. Besides its files a
    /// cluster needs some WAL segments to begin with.
    ///
    /// # Errors
    /// [`Code::TargetDiskFull`].
    pub(in crate::restore) fn prove_room(&self, bytes: &[u64]) -> Result<()> {
        let wal_bytes = 4 * u64::from(self.manifest.commit.info.wal_segment_bytes);
        let extra = std::iter::once(wal_bytes).chain(std::iter::repeat(0));
        let needs = bytes.iter().zip(extra).map(|(bytes, extra)| bytes + extra);
        prove_space(self.layout.directories().zip(needs))
    }
}
