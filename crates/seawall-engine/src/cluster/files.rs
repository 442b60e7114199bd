use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use seawall_core::Result;
use seawall_pgdata::PgMajor;
use seawall_pgdata::exclusion::{UnloggedRelations, Verdict, verdict};
use seawall_pgdata::own_places::is_simple_log;
use seawall_pgdata::relation_path::{RelationFile, RelationPath};

use super::links::{Link, LinkRules};
use super::tablespace_links::{TablespaceLinks, tablespace_of_link};
use super::unreadable::{Unreadable, unreadable};

/// What was found at a path of the cluster.
#[derive(Debug, Clone)]
pub struct FoundPath {
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
    /// Where the path leads if it is a link that was followed, and PostgreSQL makes none there.
    pub link: Option<PathBuf>,
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
    /// A file of a simple log (`pg_xact` and the like): replay makes it right, as it does relations.
    SimpleLog,
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
    /// What becomes of other links.
    pub links: LinkRules,
}

/// `pg_control` is copied last and by itself.
const CONTROL_FILE: &[u8] = b"global/pg_control";

/// Where `fsck` puts what it finds, at the root of a file system.
const LOST_AND_FOUND: &str = "lost+found";

/// Walks a cluster's files in the byte order of their paths and hands over each that belongs in a
/// backup. One directory's names are held at a time on each level, never all files.
///
/// What vanishes meanwhile is left out: WAL knows what became of it. `sink` ends the walk by
/// returning an error.
///
/// # Errors
/// [`seawall_core::Code::ClusterUnreadable`], once for all paths that cannot be read, also if a
/// tablespace is not where its link leads, and whatever `sink` returns.
pub fn scan(options: &ScanOptions, sink: &mut dyn FnMut(FoundPath) -> Result<()>) -> Result<()> {
    walk(options, sink)?.refuse()
}

/// As [`scan`], with what could not be read for a result.
pub(super) fn walk(
    options: &ScanOptions,
    sink: &mut dyn FnMut(FoundPath) -> Result<()>,
) -> Result<Unreadable> {
    let root = fs::canonicalize(&options.root).map_err(|error| unreadable(&options.root, error))?;
    let ScanOptions { major, tablespaces, links, .. } = options;
    tablespaces.prove_places(&root, *major)?;
    let mut nested = tablespaces.inside(&root);
    nested.extend(links.reached_through_links().cloned());
    let (above, unreadable) = (Vec::new(), Unreadable::default());
    let mut scan = Scan { major: *major, tablespaces, links, nested, above, unreadable, sink };
    scan.directory(&root, b"")?;
    let found = scan.unreadable;
    // What vanishes is taken for removed. A file system that went away removed nothing.
    tablespaces.prove_places(&root, *major)?;
    Ok(found)
}

struct Scan<'s> {
    major: PgMajor,
    tablespaces: &'s TablespaceLinks,
    links: &'s LinkRules,
    /// What lies inside the data directory and is reached through links alone.
    nested: BTreeSet<PathBuf>,
    /// Device and inode of the directories that are open, the outermost first.
    above: Vec<(u64, u64)>,
    unreadable: Unreadable,
    sink: &'s mut dyn FnMut(FoundPath) -> Result<()>,
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
        let Some(metadata) = self.seen(location, fs::metadata(location)) else { return Ok(()) };
        let identity = (metadata.dev(), metadata.ino());
        if self.above.contains(&identity) {
            self.unreadable.add(location, "it leads to a directory that it lies in");
            return Ok(());
        }
        let is_mounted = self.above.last().is_none_or(|(device, _)| *device != identity.0);
        self.above.push(identity);
        let done = self.entries(location, path, is_mounted);
        self.above.pop();
        done
    }

    /// All that is in a directory. `is_mounted` if a file system may begin here.
    fn entries(&mut self, location: &Path, path: &[u8], is_mounted: bool) -> Result<()> {
        let Some(names) = self.seen(location, list(location)) else { return Ok(()) };
        let unlogged =
            UnloggedRelations::in_directory(names.iter().filter_map(|(name, _)| name.to_str()));
        let relations =
            path == b"global" || path.starts_with(b"base/") || path.starts_with(b"pg_tblspc/");
        let mut steps = Vec::with_capacity(names.len());
        for (name, may_enter) in names {
            if relations && name.to_str().is_some_and(|name| unlogged.skips(name)) {
                continue;
            }
            if is_mounted && is_lost_and_found(&location.join(&name)) {
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
        // What was told of a path holds, whatever has its name by the time it is entered.
        let mut directories = BTreeSet::new();
        for step in steps {
            let below = join(path, &step.name);
            let location = location.join(&step.name);
            if self.nested.contains(&location) {
                continue;
            }
            if !step.enter {
                if self.entry(location, below)? {
                    directories.insert(step.name);
                }
            } else if directories.contains(&step.name) {
                self.directory(&location, &below)?;
            }
        }
        Ok(())
    }

    /// The entry of a path itself. Returns whether it is a directory whose content belongs in a
    /// backup.
    fn entry(&mut self, location: PathBuf, path: Vec<u8>) -> Result<bool> {
        if path == CONTROL_FILE {
            return Ok(false);
        }
        let read = fs::symlink_metadata(&location);
        let Some(metadata) = self.seen(&location, read) else { return Ok(false) };
        if !metadata.file_type().is_symlink() {
            return self.found(location, path, &metadata, None);
        }
        if is_directory_link(&path) {
            if !self.is_followed(&path) {
                return Ok(false);
            }
            let read = fs::metadata(&location);
            let Some(target) = self.seen(&location, read) else { return Ok(false) };
            return self.found(location, path, &target, None);
        }
        self.link(location, path, &metadata)
    }

    /// The entry of a link where PostgreSQL makes none.
    fn link(&mut self, location: PathBuf, path: Vec<u8>, link: &Metadata) -> Result<bool> {
        match self.links.judge(&location, &path, self.major) {
            Link::Gone => {}
            Link::Followed { target, metadata } => {
                return self.found(location, path, &metadata, Some(target));
            }
            Link::Kept(_) if self.skips(&path, false) => {}
            Link::Kept(target) => {
                let kind = FileKind::Symlink(target.into_os_string().into_vec());
                (self.sink)(described(path, location, kind, link, None))?;
            }
            // What the server empties is not missed.
            Link::Refused { .. } if verdict(&path, true, self.major) != Verdict::Keep => {}
            Link::Refused { target, error } => {
                let why = format!("a link to {}: {error}", target.display());
                self.unreadable.add(&location, &why);
            }
        }
        Ok(false)
    }

    fn found(
        &mut self,
        location: PathBuf,
        path: Vec<u8>,
        metadata: &Metadata,
        link: Option<PathBuf>,
    ) -> Result<bool> {
        let kind = metadata.file_type();
        let verdict = verdict(&path, kind.is_dir(), self.major);
        if matches!(verdict, Verdict::Skip(_)) {
            return Ok(false);
        }
        let what = if kind.is_dir() {
            FileKind::Directory
        } else if kind.is_file() {
            match RelationPath::parse(&path, self.major) {
                Some(RelationPath::Temporary) => return Ok(false),
                Some(RelationPath::File(file)) => FileKind::Relation(file),
                None if is_simple_log(&path) => FileKind::SimpleLog,
                None => FileKind::Plain,
            }
        } else {
            return Ok(false); // sockets, pipes and devices hold no data
        };
        (self.sink)(described(path, location, what, metadata, link))?;
        // `pg_wal` keeps directories of its own, which the exclusions name one by one.
        Ok(kind.is_dir() && verdict == Verdict::Keep)
    }

    fn skips(&self, path: &[u8], is_dir: bool) -> bool {
        matches!(verdict(path, is_dir, self.major), Verdict::Skip(_))
    }

    /// Whether a link that leads to a directory is one of this backup.
    fn is_followed(&self, path: &[u8]) -> bool {
        tablespace_of_link(path).is_none_or(|oid| self.tablespaces.contains(oid))
    }

    /// What was read of a place; `None` if it vanished, or cannot be read, which is noted.
    fn seen<T>(&mut self, location: &Path, read: io::Result<T>) -> Option<T> {
        match read {
            Ok(seen) => Some(seen),
            Err(error) if is_gone(&error) => None,
            Err(error) => {
                self.unreadable.add(location, &error);
                None
            }
        }
    }
}

/// Whether what was found is not there any more, or another thing has its name.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// `pg_wal` and the tablespaces are links by design.
fn is_directory_link(path: &[u8]) -> bool {
    tablespace_of_link(path).is_some() || path == b"pg_wal"
}

/// Whether this is the directory of that name that a file system is made with.
pub(crate) fn is_lost_and_found(location: &Path) -> bool {
    location.file_name().is_some_and(|name| name == LOST_AND_FOUND)
        && fs::symlink_metadata(location).is_ok_and(|found| found.is_dir() && found.uid() == 0)
}

/// Names in a directory, and whether each may be entered.
fn list(location: &Path) -> io::Result<Vec<(OsString, bool)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(location)? {
        let entry = entry?;
        let may_enter = entry.file_type().map_or(true, |kind| kind.is_dir() || kind.is_symlink());
        names.push((entry.file_name(), may_enter));
    }
    Ok(names)
}

fn join(path: &[u8], name: &OsStr) -> Vec<u8> {
    if path.is_empty() { name.as_bytes().to_vec() } else { [path, b"/", name.as_bytes()].concat() }
}

fn described(
    path: Vec<u8>,
    location: PathBuf,
    kind: FileKind,
    metadata: &Metadata,
    link: Option<PathBuf>,
) -> FoundPath {
    let is_file = metadata.is_file();
    FoundPath {
        path,
        location,
        kind,
        mode: mode(metadata, link.is_some()),
        size_bytes: if is_file { metadata.len() } else { 0 },
        modified_us: modified_us(metadata),
        link,
    }
}

/// Permission bits. What was elsewhere becomes the server's own, and PostgreSQL takes keys only if
/// nobody else may read them.
fn mode(metadata: &Metadata, was_elsewhere: bool) -> u32 {
    let mode = metadata.mode() & 0o7777;
    match (was_elsewhere, metadata.is_dir()) {
        (false, _) => mode,
        (true, true) => mode & 0o700,
        (true, false) => mode & 0o600,
    }
}

/// When a file was last changed, microseconds since 1970.
pub(crate) fn modified_us(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000) + metadata.mtime_nsec() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn paths(root: &Path) -> Vec<String> {
        let tablespaces = TablespaceLinks::of(root).unwrap_or_default();
        let (root, links) = (root.to_owned(), LinkRules::default());
        let options = ScanOptions { root, major: PgMajor::V15, tablespaces, links };
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
