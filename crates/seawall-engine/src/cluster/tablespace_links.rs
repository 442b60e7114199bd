use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use seawall_core::{Code, Error, Oid, Result};
use seawall_pgdata::PgMajor;
use seawall_pgdata::relation_path::tablespace_version_directory;

use super::unreadable::unreadable;

/// `DROP TABLESPACE` removes the directory and then the link, with nothing in between.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// The tablespaces of a cluster that lie behind links in `pg_tblspc`, at one moment. Those in place
/// are directories of the cluster like any other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablespaceLinks(BTreeSet<Oid>);

impl TablespaceLinks {
    /// Lists them.
    ///
    /// # Errors
    /// [`Code::ClusterUnreadable`].
    pub fn of(root: &Path) -> Result<Self> {
        let directory = root.join("pg_tblspc");
        let failed = |error| unreadable(&directory, error);
        let mut links = BTreeSet::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(oid) = name.to_str().and_then(oid_of) else { continue };
            match entry.file_type() {
                Ok(kind) if kind.is_symlink() => drop(links.insert(oid)),
                Ok(_) => {}
                // Dropped just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(&entry.path(), error)),
            }
        }
        Ok(Self(links))
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contains(&self, tablespace: Oid) -> bool {
        self.0.contains(&tablespace)
    }

    /// Their oids.
    pub fn oids(&self) -> impl Iterator<Item = Oid> {
        self.0.iter().copied()
    }

    /// Where links lead that stay inside the data directory. PostgreSQL warns of such tablespaces
    /// and makes them all the same; their files must not be copied twice.
    pub(super) fn inside(&self, root: &Path) -> BTreeSet<PathBuf> {
        let targets = self.oids().filter_map(|oid| fs::canonicalize(link(root, oid)).ok());
        targets.filter(|target| target.starts_with(root)).collect()
    }

    /// Proves that every tablespace that was not dropped meanwhile is where its link leads. One
    /// whose file system is not mounted looks as if it had no files.
    pub(super) fn prove_places(&self, root: &Path, major: PgMajor) -> Result<()> {
        let version = tablespace_version_directory(major);
        self.oids().try_for_each(|oid| prove_place(&link(root, oid), &version))
    }
}

fn prove_place(link: &Path, version: &str) -> Result<()> {
    let place = link.join(version);
    let mut failure = io::Error::from(io::ErrorKind::NotADirectory);
    for _ in 0..ATTEMPTS {
        match fs::metadata(&place) {
            Ok(metadata) if metadata.is_dir() => return Ok(()),
            Ok(_) => {}
            Err(error) => failure = error,
        }
        if fs::symlink_metadata(link).is_err() {
            return Ok(());
        }
        sleep(PAUSE);
    }
    let what = format!("the tablespace behind {} has no directory {version}", link.display());
    let target = fs::read_link(link).unwrap_or_default();
    Err(Error::new(Code::ClusterUnreadable, what).with_source(failure).with_hint(format!(
        "See what is in {}: its file system may not be mounted. A tablespace that is lost for good has to be dropped first.",
        target.display()
    )))
}

fn link(root: &Path, tablespace: Oid) -> PathBuf {
    root.join(format!("pg_tblspc/{tablespace}"))
}

/// The tablespace of `pg_tblspc/<oid>`.
pub(super) fn tablespace_of_link(path: &[u8]) -> Option<Oid> {
    std::str::from_utf8(path.strip_prefix(b"pg_tblspc/")?).ok().and_then(oid_of)
}

/// An oid as PostgreSQL writes it.
fn oid_of(name: &str) -> Option<Oid> {
    name.parse().ok().filter(|oid: &Oid| *oid != 0 && oid.to_string() == name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn e55_a_tablespace_that_is_not_where_its_link_leads_is_an_error_and_a_dropped_one_is_none() {
        let root = tempfile::tempdir().unwrap();
        let links = root.path().join("pg_tblspc");
        fs::create_dir_all(root.path().join("mount/PG_15_202209061")).unwrap();
        fs::create_dir_all(links.join("16392")).unwrap();
        symlink(root.path().join("mount"), links.join("16390")).unwrap();
        for (name, target) in
            [("16391", "/nowhere"), ("16393", "16393"), ("016394", "/"), ("x", "/")]
        {
            symlink(target, links.join(name)).unwrap();
        }
        let found = TablespaceLinks::of(root.path()).unwrap();
        assert_eq!(found.oids().collect::<Vec<_>>(), [16390, 16391, 16393]);
        for lost in ["16391", "16393"] {
            let error = found.prove_places(root.path(), PgMajor::V15).unwrap_err();
            assert_eq!(error.code(), Code::ClusterUnreadable);
            assert!(error.to_string().contains(lost), "{error:?}");
            fs::remove_file(links.join(lost)).unwrap();
        }
        found.prove_places(root.path(), PgMajor::V15).unwrap();
        fs::remove_dir(root.path().join("mount/PG_15_202209061")).unwrap();
        assert!(found.prove_places(root.path(), PgMajor::V15).is_err(), "not mounted");
    }
}
