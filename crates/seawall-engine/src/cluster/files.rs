use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Result};
use seawall_pgdata::PgMajor;
use seawall_pgdata::exclusion::{UnloggedRelations, Verdict, verdict};
use seawall_pgdata::relation_path::{RelationFile, RelationPath};

use super::tablespace_links::{TablespaceLinks, tablespace_of_link};

/// What was found at a path of the cluster.
#[derive(Debug, Clone)]
pub struct Found {
    /// The path relative to the data directory, tablespaces below `pg_tblspc/<oid>`.
    pub path: Vec<u8>,
    /// Where to open it.
    pub location: PathBuf,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Length in bytes when it was found; what is added later comes from WAL.
    pub size_bytes: u64,
    /// When it was last changed, microseconds since 1970.
    pub modified_us: i64,
}

/// What kind of thing was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A directory to be made at restore.
    Directory,
    /// A symbolic link that is kept as a link.
    Symlink(Vec<u8>),
    /// A segment file of a relation, made of pages.
    Relation(RelationFile),
    /// Any other file.
    Plain,
}

/// What a scan needs to know.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// The data directory.
    pub root: PathBuf,
    /// The cluster's major version.
    pub major: PgMajor,
    /// The tablespaces with links when the backup began. One that came later is left out: WAL
    /// makes it and all that is in it, and no `tablespace_map` knows of it.
    pub tablespaces: TablespaceLinks,
}

/// `pg_control` is copied last and by itself.
const CONTROL_FILE: &[u8] = b"global/pg_control";

/// Walks a cluster's files in the byte order of their paths and hands over each that belongs in a
/// backup. One directory's names are held at a time on each level, never all files.
///
/// What vanishes meanwhile is left out: WAL knows what became of it. `sink` ends the walk by
/// returning an error.
///
/// # Errors
/// [`Code::ClusterUnreadable`], also if a tablespace is not where its link leads, and whatever
/// `sink` returns.
pub fn scan(options: &ScanOptions, sink: &mut dyn FnMut(Found) -> Result<()>) -> Result<()> {
    let root = fs::canonicalize(&options.root).map_err(|error| unreadable(&options.root, error))?;
    let ScanOptions { major, tablespaces, .. } = options;
    tablespaces.prove_places(&root, *major)?;
    let nested = tablespaces.inside(&root);
    Scan { major: *major, tablespaces, nested, sink }.directory(&root, b"")?;
    // What vanishes is taken for removed. A file system that went away removed nothing.
    tablespaces.prove_places(&root, *major)
}

struct Scan<'s> {
    major: PgMajor,
    tablespaces: &'s TablespaceLinks,
    /// Tablespace directories inside the data directory: reached through their links alone.
    nested: BTreeSet<PathBuf>,
    sink: &'s mut dyn FnMut(Found) -> Result<()>,
}

/// One step through a directory. A directory sorts twice: its own entry by its name, what is in it
/// by its name and a slash, which other names may come between (`a`, `a-b`, `a/b`).
struct Step {
    key: Vec<u8>,
    name: OsString,
    enter: bool,
}

impl Scan<'_> {
    fn directory(&mut self, location: &Path, path: &[u8]) -> Result<()> {
        let Some(names) = list(location)? else { return Ok(()) };
        let unlogged =
            UnloggedRelations::in_directory(names.iter().filter_map(|(name, _)| name.to_str()));
        let relations =
            path == b"global" || path.starts_with(b"base/") || path.starts_with(b"pg_tblspc/");
        let mut steps = Vec::with_capacity(names.len());
        for (name, may_enter) in names {
            if relations && name.to_str().is_some_and(|name| unlogged.skips(name)) {
                continue;
            }
            let key = name.as_bytes().to_vec();
            if may_enter {
                let inside = [key.as_slice(), b"/"].concat();
                steps.push(Step { key: inside, name: name.clone(), enter: true });
            }
            steps.push(Step { key, name, enter: false });
        }
        steps.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        for step in steps {
            let below = join(path, &step.name);
            let location = location.join(&step.name);
            if self.nested.contains(&location) {
                continue;
            }
            if step.enter { self.inside(&location, &below)? } else { self.entry(location, below)? }
        }
        Ok(())
    }

    /// The entry of a path itself.
    fn entry(&mut self, location: PathBuf, path: Vec<u8>) -> Result<()> {
        if path == CONTROL_FILE {
            return Ok(());
        }
        let Some(metadata) = metadata(&location, Links::Keep)? else { return Ok(()) };
        let metadata = match metadata.file_type() {
            kind if kind.is_symlink() && is_directory_link(&path) => {
                if !self.is_followed(&path) {
                    return Ok(());
                }
                match self::metadata(&location, Links::Follow)? {
                    Some(target) => target,
                    None => return Ok(()),
                }
            }
            _ => metadata,
        };
        let kind = metadata.file_type();
        if matches!(verdict(&path, kind.is_dir(), self.major), Verdict::Skip(_)) {
            return Ok(());
        }
        let what = if kind.is_dir() {
            FileKind::Directory
        } else if kind.is_symlink() {
            match fs::read_link(&location) {
                Ok(target) => FileKind::Symlink(target.into_os_string().into_vec()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(unreadable(&location, error)),
            }
        } else if kind.is_file() {
            match RelationPath::parse(&path, self.major) {
                Some(RelationPath::Temporary) => return Ok(()),
                Some(RelationPath::File(file)) => FileKind::Relation(file),
                None => FileKind::Plain,
            }
        } else {
            return Ok(()); // sockets, pipes and devices hold no data
        };
        (self.sink)(found(path, location, what, &metadata))
    }

    /// What is in a directory, if it is one and belongs in a backup.
    fn inside(&mut self, location: &Path, path: &[u8]) -> Result<()> {
        let Some(metadata) = metadata(location, Links::Keep)? else { return Ok(()) };
        let follow = metadata.file_type().is_symlink() && is_directory_link(path);
        let enter = metadata.is_dir() || (follow && self.is_followed(path));
        if !enter {
            return Ok(());
        }
        match verdict(path, true, self.major) {
            Verdict::Skip(_) => Ok(()),
            // `pg_wal` keeps directories of its own, which the exclusions name one by one.
            Verdict::SkipContents(_) => Ok(()),
            Verdict::Keep => self.directory(location, path),
        }
    }

    /// Whether a link that leads to a directory is one of this backup.
    fn is_followed(&self, path: &[u8]) -> bool {
        tablespace_of_link(path).is_none_or(|oid| self.tablespaces.contains(oid))
    }
}

/// `pg_wal` and the tablespaces are followed where they are links; other links stay links.
fn is_directory_link(path: &[u8]) -> bool {
    tablespace_of_link(path).is_some() || path == b"pg_wal"
}

/// Whether a link is looked at itself, or where it leads.
#[derive(Clone, Copy)]
enum Links {
    Follow,
    Keep,
}

/// Names in a directory, and whether each may be entered; `None` if it vanished.
fn list(location: &Path) -> Result<Option<Vec<(OsString, bool)>>> {
    let entries = match fs::read_dir(location) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(location, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(location, error))?;
        let may_enter = entry.file_type().map_or(true, |kind| kind.is_dir() || kind.is_symlink());
        names.push((entry.file_name(), may_enter));
    }
    Ok(Some(names))
}

/// What is at a place, or `None` if it vanished.
fn metadata(location: &Path, links: Links) -> Result<Option<Metadata>> {
    let read = match links {
        Links::Follow => fs::metadata(location),
        Links::Keep => fs::symlink_metadata(location),
    };
    match read {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(location, error)),
    }
}

fn join(path: &[u8], name: &OsStr) -> Vec<u8> {
    if path.is_empty() { name.as_bytes().to_vec() } else { [path, b"/", name.as_bytes()].concat() }
}

fn found(path: Vec<u8>, location: PathBuf, kind: FileKind, metadata: &Metadata) -> Found {
    let is_file = metadata.is_file();
    Found {
        path,
        location,
        kind,
        mode: metadata.mode() & 0o7777,
        size_bytes: if is_file { metadata.len() } else { 0 },
        modified_us: metadata.mtime().saturating_mul(1_000_000) + metadata.mtime_nsec() / 1000,
    }
}

pub(super) fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(Code::ClusterUnreadable, format!("cannot read {}", path.display()))
        .with_source(error)
        .with_hint("Run as the owner of the data directory, who can read every file of it.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn paths(root: &Path) -> Vec<String> {
        let tablespaces = TablespaceLinks::of(root).unwrap_or_default();
        let options = ScanOptions { root: root.to_owned(), major: PgMajor::V15, tablespaces };
        let mut paths = Vec::new();
        scan(&options, &mut |found| {
            paths.push(String::from_utf8_lossy(&found.path).into_owned());
            Ok(())
        })
        .unwrap();
        paths
    }

    fn tree(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
    }

    #[test]
    fn paths_come_in_byte_order_whatever_stands_beside_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path(), &["base/1/10", "base/1/2", "base-x", "base.y/z", "PG_VERSION"]);
        let found = paths(dir.path());
        let mut sorted = found.clone();
        sorted.sort();
        assert_eq!(found, sorted);
        assert_eq!(found.len(), 8, "{found:?}");
    }

    #[test]
    fn what_is_not_data_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        tree(
            dir.path(),
            &[
                "base/1/100",
                "base/1/100_fsm",
                "base/1/200",
                "base/1/200_init",
                "base/1/t3_300",
                "base/pgsql_tmp/pgsql_tmp1.0",
                "global/pg_control",
                "pg_stat_tmp/x",
                "pg_wal/000000010000000000000001",
                "pg_wal/archive_status/000000010000000000000001.ready",
                "postmaster.pid",
            ],
        );
        let expected = [
            "base",
            "base/1",
            "base/1/100",
            "base/1/100_fsm",
            "base/1/200_init",
            "global",
            "pg_stat_tmp",
            "pg_wal",
            "pg_wal/archive_status",
        ];
        assert_eq!(paths(dir.path()), expected);
    }

    #[test]
    fn tablespaces_are_followed_and_other_links_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        tree(dir.path(), &["pg_tblspc/keep"]);
        tree(elsewhere.path(), &["PG_15_202209061/5/16384", "PG_14_202107181/5/16384", "other"]);
        symlink(elsewhere.path(), dir.path().join("pg_tblspc/16999")).unwrap();
        tree(dir.path(), &["inside/PG_15_202209061/5/1"]);
        symlink(dir.path().join("inside"), dir.path().join("pg_tblspc/17000")).unwrap();
        symlink("/nowhere", dir.path().join("log")).unwrap();
        let expected = [
            "log",
            "pg_tblspc",
            "pg_tblspc/16999",
            "pg_tblspc/16999/PG_15_202209061",
            "pg_tblspc/16999/PG_15_202209061/5",
            "pg_tblspc/16999/PG_15_202209061/5/16384",
            "pg_tblspc/17000",
            "pg_tblspc/17000/PG_15_202209061",
            "pg_tblspc/17000/PG_15_202209061/5",
            "pg_tblspc/17000/PG_15_202209061/5/1",
            "pg_tblspc/keep",
        ];
        assert_eq!(paths(dir.path()), expected);
    }
}
