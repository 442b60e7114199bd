//! Doing what a plan says.
//!
//! ```text
//! state → directories, links, files → sync → configuration → label, map → manifest → sync
//!       → state → pg_control
//! ```
//! Whatever ends a restore before its last step leaves a directory PostgreSQL cannot start on, and
//! the same command goes on with it.

mod blocks;
mod external;
mod files;
mod finish;
mod includes;
mod journal;
mod settings;
mod sink;
mod worker;

use std::ffi::OsString;
use std::sync::Arc;

use jiff::Timestamp;
use seawall_core::{Code, Error, Progress, Result, Stage, Ulid};
use seawall_pgdata::PgMajor;
use seawall_pgdata::tablespace_map::TablespaceMap;
use seawall_repo::manifest::ManifestReader;
use seawall_repo::new_ulid;
use tokio::runtime::Handle;

use super::delta::ProvenDelta;
use super::lock::DirectoryLock;
use crate::restored::{
    Asked, DirectoryIdentity, NamedDatabase, RestorePlan, RestoreProgress, RestoreState,
    TablespaceNote,
};

use super::preflight::{being_discarded, look_at_directory, look_at_tablespaces};

use super::{RestoreReport, RestoreRequest};

use crate::durable::create_directory;
use crate::pace::{Pace, StopWhenDropped};
use crate::stored::{Layout, Proven, Sources};
use files::Writing;
use journal::Journal;

pub(super) use blocks::{BlockSink, FileBlocks};
pub(super) use files::{SmallFiles, hand_over, in_parallel, make_link, next, send_small};
pub(super) use finish::Finishing;
pub(super) use journal::FILE_NAME as JOURNAL_FILE;
pub(super) use settings::retarget;
pub(super) use worker::{FileToWrite, Worker, WriteTask, crc_of_zeroes};

/// Everything a restore needs to write, proven before.
pub(in crate::restore) struct Execution {
    pub request: RestoreRequest,
    pub plan: RestorePlan,
    pub major: PgMajor,
    pub manifest: Arc<ManifestReader>,
    pub sources: Arc<Sources>,
    pub layout: Layout,
    pub tablespaces: TablespaceMap,
    pub proven: Proven,
    /// What is there already, if it goes onto that.
    pub delta: Option<ProvenDelta>,
    pub restore_command: OsString,
    pub jobs: usize,
    pub piece_bytes: usize,
    /// How fast files are written.
    pub pace: Arc<Pace>,
    pub progress: Arc<dyn Progress>,
}

impl Execution {
    /// Writes the data directory.
    pub async fn run(self) -> Result<RestoreReport> {
        let guard = StopWhenDropped(Arc::clone(&self.pace));
        let (runtime, member) = (Handle::current(), self.pace.member());
        let write = move || {
            let _member = member;
            self.write(&runtime)
        };
        let written = tokio::task::spawn_blocking(write).await;
        drop(guard);
        written.unwrap_or_else(|error| {
            Err(Error::new(Code::Internal, "the restoring thread died").with_source(error))
        })
    }

    fn write(&self, runtime: &Handle) -> Result<RestoreReport> {
        if let Some(delta) = &self.delta {
            return self.write_onto(delta, runtime);
        }
        let root = self.layout.root();
        let mode = self.directory_mode();
        create_directory(root, mode)?;
        let _lock = DirectoryLock::take(root)?;
        // Somebody else may have come first.
        let found = look_at_directory(root, &self.request)?;
        let resumed = found.is_some();
        let _locks = self.lock_tablespaces(found.as_ref().map(|state| state.restore_id))?;
        let state = match found {
            Some(state) => self.go_on(state)?,
            None => self.begin()?,
        };
        self.claim_tablespaces(&state)?;
        let notes = match state.progress {
            RestoreProgress::InProgress => self.write_all(&state, runtime)?,
            RestoreProgress::Discarding => return Err(being_discarded(root)),
            // It was interrupted before its very last step, or behind it.
            RestoreProgress::Complete => {
                if !root.join("global/pg_control").exists() {
                    let control = finish::control_bytes(&self.manifest.commit.info)?;
                    finish::publish_control(root, &control, mode & 0o640)?;
                }
                Vec::new()
            }
        };
        Ok(RestoreReport {
            restore_id: state.restore_id,
            plan: state.plan,
            data_directory: root.to_owned(),
            major: self.major,
            bytes: self.proven.total_bytes(),
            resumed,
            kept_databases: self.kept_databases(),
            delta: None,
            notes,
        })
    }

    pub(super) fn kept_databases(&self) -> Vec<NamedDatabase> {
        let left_out = &self.plan.left_out_databases;
        let known = self.manifest.commit.info.databases.iter().flatten();
        let kept = known.map(NamedDatabase::from).filter(|it| !left_out.contains(it));
        if left_out.is_empty() { Vec::new() } else { kept.collect() }
    }

    pub(super) const fn directory_mode(&self) -> u32 {
        if self.proven.group_access { 0o750 } else { 0o700 }
    }

    pub(super) fn begin(&self) -> Result<RestoreState> {
        let id = new_ulid(Timestamp::now())?;
        let root = self.layout.root();
        let state = RestoreState {
            directory: Some(DirectoryIdentity::of(root)?),
            ..RestoreState::new(id, Asked::from(&self.request), self.plan.clone())
        };
        state.write(root, self.directory_mode() & 0o640)?;
        Ok(state)
    }

    /// Keeps other restores out of the tablespaces' places too, and looks at these again: what was
    /// empty when the restore was planned may be another's by now.
    fn lock_tablespaces(&self, resumed: Option<Ulid>) -> Result<Vec<DirectoryLock>> {
        let mut locks = Vec::new();
        for (_, place) in self.layout.tablespaces() {
            if !place.is_dir() {
                create_directory(place, self.directory_mode())?;
            }
            locks.push(DirectoryLock::take(place)?);
        }
        look_at_tablespaces(&self.tablespaces, self.major, resumed)?;
        Ok(locks)
    }

    fn claim_tablespaces(&self, state: &RestoreState) -> Result<()> {
        let (root, mode) = (self.layout.root(), self.directory_mode() & 0o640);
        let mut places = self.layout.tablespaces();
        places.try_for_each(|(_, place)| TablespaceNote::claim(place, state.restore_id, root, mode))
    }

    /// An older program that was interrupted may not have decided all that this one does.
    pub(super) fn go_on(&self, state: RestoreState) -> Result<RestoreState> {
        if state.plan.backup != self.plan.backup {
            return Err(Error::new(Code::Internal, "another backup was proven than is restored"));
        }
        Ok(RestoreState { plan: self.plan.clone(), ..state })
    }

    fn write_all(&self, state: &RestoreState, runtime: &Handle) -> Result<Vec<String>> {
        let journal = Journal::open(self.layout.root(), state.restore_id, self.proven.entries)?;
        self.progress.stage(Stage::Writing, Some(self.manifest.commit.info.cluster_bytes));
        let writing = Writing {
            sources: Arc::clone(&self.sources),
            manifest: &self.manifest,
            layout: &self.layout,
            journal: &journal,
            major: self.major,
            jobs: self.jobs,
            piece_bytes: self.piece_bytes,
            pace: Arc::clone(&self.pace),
            progress: self.progress.as_ref(),
        };
        let mut notes = writing.run(runtime)?;
        self.progress.stage(Stage::Syncing, None);
        journal.settle(&self.layout)?;
        let finishing = Finishing {
            state,
            major: self.major,
            sources: &self.sources,
            manifest: &self.manifest,
            layout: &self.layout,
            tablespaces: &self.tablespaces,
            checksums: &|number| journal.finished(number),
            also_synced: &[],
            group_access: self.proven.group_access,
            restore_command: &self.restore_command,
        };
        notes.extend(finishing.run(runtime)?);
        Ok(notes)
    }
}
