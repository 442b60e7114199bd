use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Oid, Result};
use seawall_pgdata::exclusion::RESTORE_STATE_FILE;
use seawall_pgdata::tablespace_map::TablespaceMap;
use seawall_repo::manifest::is_path;

/// Where the paths of a backup go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    root: PathBuf,
    tablespaces: BTreeMap<Oid, PathBuf>,
    /// Databases whose files get no content.
    left_out: BTreeSet<Oid>,
}

/// Entries of a backup that a restore makes itself or must not bring back.
const NOT_RESTORED: [&[u8]; 8] = [
    b"backup_label",
    b"backup_manifest",
    b"global/pg_control",
    b"postmaster.pid",
    b"recovery.signal",
    b"standby.signal",
    b"tablespace_map",
    RESTORE_STATE_FILE.as_bytes(),
];

impl Layout {
    /// `map` says where the tablespaces go.
    pub fn new(root: PathBuf, map: &TablespaceMap) -> Self {
        let tablespaces = map
            .tablespaces()
            .iter()
            .map(|it| (it.oid, PathBuf::from(OsStr::from_bytes(&it.path))))
            .collect();
        Self { root, tablespaces, left_out: BTreeSet::new() }
    }

    /// The same, without the content of some databases.
    #[must_use]
    pub fn leaving_out(self, databases: impl IntoIterator<Item = Oid>) -> Self {
        Self { left_out: databases.into_iter().collect(), ..self }
    }

    /// Whether a file of the backup gets its length and no content. Replay finds pages there, as
    /// new ones; `PG_VERSION` tells that the directory is a database's.
    pub fn leaves_out(&self, path: &[u8]) -> bool {
        let database = database_of(path).filter(|(_, file)| *file != b"PG_VERSION");
        database.is_some_and(|(oid, _)| self.left_out.contains(&oid))
    }

    /// The data directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The tablespaces outside the data directory.
    pub fn tablespaces(&self) -> impl Iterator<Item = (Oid, &Path)> {
        self.tablespaces.iter().map(|(oid, path)| (*oid, path.as_path()))
    }

    /// The data directory and the tablespaces' directories.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.root.as_path()).chain(self.tablespaces.values().map(PathBuf::as_path))
    }

    /// Which of [`Layout::directories`] a path of the backup is under.
    pub fn directory_of(&self, path: &[u8]) -> usize {
        let Some((oid, _)) = tablespace_of(path) else { return 0 };
        self.tablespaces.keys().position(|it| *it == oid).map_or(0, |index| index + 1)
    }

    /// Whether a restore takes this entry from the backup.
    pub fn restores(path: &[u8]) -> bool {
        !NOT_RESTORED.contains(&path)
    }

    /// Where a path of the backup is restored to.
    ///
    /// # Errors
    /// [`Code::ObjectInconsistent`] for a path that leads out of the data directory.
    pub fn resolve(&self, path: &[u8]) -> Result<PathBuf> {
        if !is_path(path) {
            let path = String::from_utf8_lossy(path).into_owned();
            return Err(Error::new(
                Code::ObjectInconsistent,
                format!("the backup has the path \"{path}\", which is not one of a data directory"),
            ));
        }
        let resolved =
            tablespace_of(path).and_then(|(oid, rest)| Some((self.tablespaces.get(&oid)?, rest)));
        Ok(match resolved {
            Some((tablespace, b"")) => tablespace.clone(),
            Some((tablespace, rest)) => tablespace.join(OsStr::from_bytes(rest)),
            None => self.root.join(OsStr::from_bytes(path)),
        })
    }
}

/// Splits `pg_tblspc/<oid>/<rest>`.
fn tablespace_of(path: &[u8]) -> Option<(Oid, &[u8])> {
    let below = path.strip_prefix(b"pg_tblspc/")?;
    let end = below.iter().position(|byte| *byte == b'/').unwrap_or(below.len());
    let (oid, rest) = below.split_at_checked(end)?;
    let oid = std::str::from_utf8(oid).ok()?.parse().ok()?;
    Some((oid, rest.strip_prefix(b"/").unwrap_or_default()))
}

/// Splits `base/<oid>/<file>` and `pg_tblspc/<oid>/<directory of the major>/<oid>/<file>`.
fn database_of(path: &[u8]) -> Option<(Oid, &[u8])> {
    let below = match path.strip_prefix(b"base/") {
        Some(below) => below,
        None => split_at_slash(tablespace_of(path)?.1)?.1,
    };
    let (oid, file) = split_at_slash(below)?;
    Some((std::str::from_utf8(oid).ok()?.parse().ok()?, file))
}

fn split_at_slash(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().position(|byte| *byte == b'/')?;
    Some((path.get(..slash)?, path.get(slash + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let map = TablespaceMap::parse(b"16390 /fast/ts\n").unwrap();
        Layout::new(PathBuf::from("/into"), &map)
    }

    #[test]
    fn tablespaces_go_to_their_own_places() {
        let layout = layout();
        for (path, place, directory) in [
            (b"base/1/1259".as_slice(), "/into/base/1/1259", 0),
            (b"pg_tblspc", "/into/pg_tblspc", 0),
            (b"pg_tblspc/16390", "/fast/ts", 1),
            (b"pg_tblspc/16390/PG_15_202209061/5/1", "/fast/ts/PG_15_202209061/5/1", 1),
            (b"pg_tblspc/16391/PG_15_202209061", "/into/pg_tblspc/16391/PG_15_202209061", 0),
        ] {
            assert_eq!(layout.resolve(path).unwrap(), Path::new(place));
            assert_eq!(layout.directory_of(path), directory);
        }
    }

    #[test]
    fn a_database_left_out_keeps_its_directory_and_version_only() {
        let layout = layout().leaving_out([16_401]);
        for (path, left_out) in [
            (b"base/16401/1259".as_slice(), true),
            (b"base/16401/1259_vm", true),
            (b"base/16401", false),
            (b"base/16401/PG_VERSION", false),
            (b"base/16402/1259", false),
            (b"global/16401", false),
            (b"pg_tblspc/16390/PG_15_202209061/16401/16405", true),
            (b"pg_tblspc/16390/PG_15_202209061/5/16401", false),
            (b"pg_tblspc/16401/PG_15_202209061/5/1", false),
        ] {
            assert_eq!(layout.leaves_out(path), left_out, "{}", String::from_utf8_lossy(path));
        }
    }

    #[test]
    fn e57_no_path_leads_out_of_the_directory() {
        for path in [
            b"../x".as_slice(),
            b"/etc/passwd",
            b"",
            b"a//b",
            b"a/./b",
            b"a/..",
            b"a/\0",
            b"pg_tblspc/16390/../x",
        ] {
            let error = layout().resolve(path).expect_err("refused");
            assert_eq!(error.code(), Code::ObjectInconsistent);
        }
    }
}
