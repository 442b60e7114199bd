//! Where replay makes tablespaces: no mapping reaches there. PostgreSQL takes the path from WAL and
//! uses what is in it already. On production's machine that would be production's files, which up to
//! 14 it even removes first (`create_tablespace_directories`, tablespace.c).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use seawall_core::{Action, Code, Error, Lsn, Oid, Result, Ulid, hint};
use seawall_pgdata::tablespace_map::TablespaceMap;
use seawall_pgdata::wal::TablespaceChange;

use super::directory::{names, resolved};
use super::state::RestoreState;
use super::tablespace_note::TablespaceNote;
use crate::cluster::TablespaceLinks;
use crate::durable::local;

/// Where a cluster's own tablespaces are: what is there may be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnPlaces {
    root: PathBuf,
    tablespaces: BTreeMap<Oid, PathBuf>,
    /// The restore that made the directory, if one did.
    restore_id: Option<Ulid>,
    /// Places that are emptied before replay begins.
    emptied: Vec<PathBuf>,
}

/// A tablespace that replay would make in a place that it must not be made in.
struct Creation<'c> {
    tablespace: Oid,
    path: &'c Path,
    lsn: Lsn,
}

impl OwnPlaces {
    /// Those of a directory that is to be restored into.
    pub fn planned(root: &Path, map: &TablespaceMap) -> Self {
        let of = |path: &[u8]| resolved(Path::new(OsStr::from_bytes(path)));
        let tablespaces = map.tablespaces().iter().map(|it| (it.oid, of(&it.path))).collect();
        Self { root: resolved(root), tablespaces, restore_id: None, emptied: Vec::new() }
    }

    /// The same, where other places will be emptied before replay begins.
    #[must_use]
    pub fn emptying<'p>(mut self, places: impl Iterator<Item = &'p Path>) -> Self {
        self.emptied.extend(places.map(resolved));
        self
    }

    /// Those of a data directory, as its links tell.
    ///
    /// # Errors
    /// [`Code::ClusterUnreadable`], [`Code::LocalIo`].
    pub fn of_directory(root: &Path) -> Result<Self> {
        let mut tablespaces = BTreeMap::new();
        for oid in TablespaceLinks::of(root)?.oids() {
            let link = root.join(format!("pg_tblspc/{oid}"));
            match fs::read_link(&link) {
                Ok(target) => {
                    tablespaces.insert(oid, resolved(&root.join("pg_tblspc").join(target)));
                }
                // Dropped just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(local(error, "reading", &link)),
            }
        }
        let restore_id = RestoreState::read(root)?.map(|state| state.restore_id);
        let emptied = Vec::new();
        Ok(Self { root: resolved(root), tablespaces, restore_id, emptied })
    }

    /// Whether a tablespace is in `place`.
    pub fn has(&self, place: &Path) -> bool {
        let real = resolved(place);
        self.tablespaces.values().any(|own| *own == real)
    }

    /// Looks at the places where replay will make tablespaces before it is begun.
    ///
    /// # Errors
    /// [`Code::DirectoryNotEmpty`], [`Code::LocalIo`] for one that is not there.
    pub fn prove_free(self, changes: &[TablespaceChange]) -> Result<()> {
        let id = self.restore_id;
        self.look(changes, |creation| {
            let Creation { path, lsn, .. } = creation;
            let refused = match is_free(path, id) {
                Ok(true) => return Ok(()),
                Ok(false) => creation.refused("it is not empty"),
                Err(error) => creation
                    .told(Code::LocalIo, "it is no directory that can be read")
                    .with_source(error),
            };
            let shown = path.display();
            Err(refused.with_hint(hint![
                "Start from a backup that has the tablespace (",
                Action::Backup { cluster: None },
                ") and map it with `--map-tablespace`; ",
                format!("or restore `--before lsn:{lsn}`, or where {shown} is an empty directory.")
            ]))
        })
    }

    /// Looks at the places again as the WAL that says so is about to be replayed. One that is not
    /// there, or not to be read, is for PostgreSQL to tell.
    ///
    /// # Errors
    /// [`Code::DirectoryNotEmpty`].
    pub fn refuse_strangers(self, changes: &[TablespaceChange]) -> Result<()> {
        let id = self.restore_id;
        self.look(changes, |creation| match fs::read_dir(creation.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            _ if is_free(creation.path, id).is_ok_and(|free| free) => Ok(()),
            _ => {
                let shown = creation.path.display();
                Err(creation.refused("it is not empty and not this server's").with_hint(format!(
                    "Another server may have its files there: let this one replay on a host where {shown} is empty or not there, or restore from a backup that has the tablespace and map it with `--map-tablespace`."
                )))
            }
        })
    }

    /// Goes through what happens to tablespaces, and has `prove` look at what is not its own.
    fn look(
        mut self,
        changes: &[TablespaceChange],
        prove: impl Fn(&Creation<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut emptied = std::mem::take(&mut self.emptied);
        for TablespaceChange { tablespace, lsn, created_in } in changes {
            let Some(path) = created_in else {
                emptied.extend(self.tablespaces.remove(tablespace));
                continue;
            };
            if path.as_os_str().is_empty() {
                continue;
            }
            let creation = Creation { tablespace: *tablespace, path, lsn: *lsn };
            let real = resolved(path);
            // Made before, and not dropped by now. One made later is there already where recovery
            // begins again before this record.
            let others = self.tablespaces.range(..*tablespace);
            if let Some((other, _)) = others.into_iter().find(|(_, place)| **place == real) {
                let what = format!("it is the place of tablespace {other}");
                return Err(creation.refused(&what).with_hint(
                    "Give that one another place: `--map-tablespace`. In one directory they would overwrite each other.",
                ));
            }
            if !self.has(path) && !emptied.contains(&real) && !real.starts_with(&self.root) {
                prove(&creation)?;
            }
            self.tablespaces.insert(*tablespace, real);
        }
        Ok(())
    }
}

/// Whether a directory has nothing in it but the note of this restore, which stays where replay has
/// dropped the tablespace that was restored there.
fn is_free(path: &Path, restore_id: Option<Ulid>) -> Result<bool> {
    let names = names(path)?;
    Ok(match (names.as_slice(), restore_id) {
        ([], _) => true,
        ([only], Some(id)) => only == TablespaceNote::FILE_NAME && TablespaceNote::is_of(path, id)?,
        _ => false,
    })
}

impl Creation<'_> {
    fn refused(&self, why: &str) -> Error {
        self.told(Code::DirectoryNotEmpty, why)
    }

    fn told(&self, code: Code, why: &str) -> Error {
        let Self { tablespace, path, lsn } = self;
        let path = path.display();
        let what = format!("replay creates tablespace {tablespace} in {path}, at LSN {lsn}");
        Error::new(code, format!("{what}, and {why}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn created(tablespace: Oid, path: &Path) -> TablespaceChange {
        TablespaceChange { tablespace, lsn: Lsn(7), created_in: Some(path.to_owned()) }
    }

    fn planned(map: &str) -> OwnPlaces {
        OwnPlaces::planned(Path::new("/into"), &TablespaceMap::parse(map.as_bytes()).unwrap())
    }

    fn code(proven: Result<()>) -> Option<Code> {
        proven.err().map(|error| error.code())
    }

    #[test]
    fn e55_a_place_that_replay_fills_has_to_be_an_empty_directory() {
        let dir = tempfile::tempdir().unwrap();
        let prove = |path: &Path| {
            let own = planned("16390 /made/by/the/restore\n");
            code(own.prove_free(&[created(16_390, path)]))
        };
        for fine in [Path::new(""), Path::new("/made/by/the/restore"), dir.path()] {
            assert_eq!(prove(fine), None, "{}", fine.display());
        }
        assert_eq!(prove(&dir.path().join("not there")), Some(Code::LocalIo));
        fs::create_dir(dir.path().join("PG_15_202209061")).unwrap();
        assert_eq!(prove(dir.path()), Some(Code::DirectoryNotEmpty));
    }

    #[test]
    fn the_place_of_another_tablespace_is_free_only_when_that_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("PG_15_202209061")).unwrap();
        let own = planned(&format!("16390 {}\n", dir.path().display()));
        let later = created(16_400, dir.path());
        assert_eq!(
            code(own.clone().prove_free(std::slice::from_ref(&later))),
            Some(Code::DirectoryNotEmpty),
            "two in one directory"
        );
        let dropped = TablespaceChange { tablespace: 16_390, lsn: Lsn(6), created_in: None };
        let again = TablespaceChange { tablespace: 16_400, ..dropped.clone() };
        let all = [dropped, later.clone(), again, later];
        assert_eq!(code(own.prove_free(&all)), None);
    }

    /// Replay drops a tablespace that was restored, and later makes another in the same place.
    #[test]
    fn a_place_with_nothing_but_this_restore_s_note_is_free() {
        let place = tempfile::tempdir().unwrap();
        let id = Ulid(7);
        TablespaceNote::claim(place.path(), id, Path::new("/into"), 0o600).unwrap();
        let own = OwnPlaces { restore_id: Some(id), ..planned("") };
        let change = [created(16_400, place.path())];
        let stranger = OwnPlaces { restore_id: Some(Ulid(8)), ..own.clone() };
        for (places, expected) in [
            (&own, None),
            (&stranger, Some(Code::DirectoryNotEmpty)),
            (&planned(""), Some(Code::DirectoryNotEmpty)),
        ] {
            assert_eq!(code(places.clone().refuse_strangers(&change)), expected);
            assert_eq!(code(places.clone().prove_free(&change)), expected);
        }
        fs::create_dir(place.path().join("PG_15_202209061")).unwrap();
        assert_eq!(code(own.refuse_strangers(&change)), Some(Code::DirectoryNotEmpty));
    }

    #[test]
    fn what_a_server_replays_into_is_its_own_empty_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["clone/pg_tblspc", "clone/inside/x", "own/x", "stranger/x", "empty"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        symlink(path("own"), path("alias")).unwrap();
        symlink(path("own"), path("clone/pg_tblspc/16390")).unwrap();
        let prove = |tablespace: Oid, name: &str| {
            let own = OwnPlaces::of_directory(&path("clone")).unwrap();
            code(own.refuse_strangers(&[created(tablespace, &path(name))]))
        };
        for fine in ["own", "alias", "empty", "not there", "clone/inside"] {
            assert_eq!(prove(16_390, fine), None, "{fine}");
        }
        assert_eq!(prove(16_390, "stranger"), Some(Code::DirectoryNotEmpty));
        assert_eq!(prove(16_391, "own"), Some(Code::DirectoryNotEmpty), "another one's");
        assert_eq!(prove(16_389, "own"), None, "recovery begins again before both");
    }
}
