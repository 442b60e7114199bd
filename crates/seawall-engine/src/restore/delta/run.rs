//! Writing onto a directory.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use seawall_core::{Result, Stage};
use tokio::runtime::Handle;

use super::existing::{Existing, look};
use super::living::{ServerLock, refuse_living};
use super::local::clear;
use super::mend::Mending;
use super::survey::{BackupPaths, Tree};
use super::{DeltaReport, ProvenDelta, tablespaces};
use crate::durable::{create_directory, sync_directory};
use crate::restore::RestoreReport;
use crate::restore::execute::{Execution, Finishing};
use crate::restore::lock::DirectoryLock;
use crate::restored::{DirectoryIdentity, RestoreProgress, RestoreState, TablespaceNote};

impl Execution {
    /// Makes of a directory what is to be restored. `pg_control` goes first and comes last.
    pub(in crate::restore) fn write_onto(
        &self,
        delta: &ProvenDelta,
        runtime: &Handle,
    ) -> Result<RestoreReport> {
        let root = self.layout.root();
        let _lock = DirectoryLock::take(root)?;
        // Much may have happened while somebody was asked and all was proven.
        let own = self.manifest.commit.info.system_id;
        let found = look(&self.request, delta.delta, own)?;
        let _locks = self.lock_existing_tablespaces(delta)?;
        let places: Vec<&Path> = self.layout.tablespaces().map(|(_, place)| place).collect();
        let surplus = delta.surplus.values().map(PathBuf::as_path);
        let places: Vec<&Path> = places.into_iter().chain(surplus).collect();
        refuse_living(root, &places)?;
        create_directory(root, self.directory_mode())?;
        let (state, resumed) = match found {
            Existing::Begun(state) if state.plan.backup == self.plan.backup => {
                (self.go_on_onto(*state)?, true)
            }
            Existing::Begun(_) | Existing::Cluster | Existing::Empty => (self.begin()?, false),
        };
        let mode = self.directory_mode() & 0o640;
        let mut own_places = self.layout.tablespaces();
        own_places.try_for_each(|(_, place)| {
            TablespaceNote::take_over(place, state.restore_id, root, mode)
        })?;
        remove_control(root)?;
        self.make_it_so(delta, &state, resumed, runtime)
    }

    /// Notes again whose directory it is: it may have been moved since.
    fn go_on_onto(&self, state: RestoreState) -> Result<RestoreState> {
        let root = self.layout.root();
        let state = RestoreState {
            progress: RestoreProgress::InProgress,
            directory: Some(DirectoryIdentity::of(root)?),
            ..self.go_on(state)?
        };
        state.write(root, self.directory_mode() & 0o640)?;
        Ok(state)
    }

    fn lock_existing_tablespaces(&self, delta: &ProvenDelta) -> Result<Vec<DirectoryLock>> {
        tablespaces::look(self.layout.root(), &self.tablespaces, delta.delta)?;
        let mut locks = Vec::new();
        for (_, place) in self.layout.tablespaces() {
            if !place.is_dir() {
                create_directory(place, self.directory_mode())?;
            }
            locks.push(DirectoryLock::take(place)?);
        }
        for place in delta.surplus.values().filter(|place| place.is_dir()) {
            locks.push(DirectoryLock::take(place)?);
        }
        // What was empty when it was looked at may be another's by now.
        tablespaces::look(self.layout.root(), &self.tablespaces, delta.delta)?;
        Ok(locks)
    }

    fn make_it_so(
        &self,
        delta: &ProvenDelta,
        state: &RestoreState,
        resumed: bool,
        runtime: &Handle,
    ) -> Result<RestoreReport> {
        let root = self.layout.root();
        self.progress.stage(Stage::Writing, Some(delta.differing_bytes));
        let paths = runtime.block_on(BackupPaths::read(&self.sources, &self.manifest))?;
        let (layout, major, surplus) = (&self.layout, self.major, &delta.surplus);
        let tree = Tree { layout, paths: &paths, major, surplus };
        let removed = tree.clear(delta.delta)?;
        let mending = Mending {
            execution: self,
            delta,
            runtime,
            checksums: Mutex::new(vec![None; self.proven.entries]),
            written_bytes: AtomicU64::new(0),
            written_files: AtomicU64::new(0),
            compared_bytes: AtomicU64::new(0),
        };
        let mut notes = mending.run()?;
        self.progress.stage(Stage::Syncing, None);
        let finishing = Finishing {
            state,
            major: self.major,
            sources: &self.sources,
            manifest: &self.manifest,
            layout: &self.layout,
            tablespaces: &self.tablespaces,
            checksums: &|number| mending.checksum(number),
            also_synced: &tree.mounts()?,
            group_access: self.proven.group_access,
            restore_command: &self.restore_command,
        };
        notes.extend(finishing.run(runtime)?);
        let again = mending.compared_bytes.into_inner();
        let report = DeltaReport {
            compared_bytes: delta.compared_bytes + again,
            fetched_bytes: delta.fetched_bytes,
            written_bytes: mending.written_bytes.into_inner(),
            written_files: mending.written_files.into_inner(),
            removed,
        };
        Ok(RestoreReport {
            restore_id: state.restore_id,
            plan: state.plan.clone(),
            data_directory: root.to_owned(),
            major: self.major,
            bytes: self.proven.total_bytes(),
            resumed,
            kept_databases: self.kept_databases(),
            delta: Some(report),
            notes,
        })
    }
}

/// From here on no server starts on the directory, whatever ends this. One that is started just now
/// has either the lock, or no `pg_control`.
fn remove_control(root: &Path) -> Result<()> {
    let _lock = ServerLock::take(root)?;
    let global = root.join("global");
    clear(&global.join("pg_control"))?;
    if global.is_dir() { sync_directory(&global) } else { Ok(()) }
}
