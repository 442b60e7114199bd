//! What is in a directory that the backup has not, and what becomes of it.
//!
//! In directories that are PostgreSQL's own it takes whatever is there for its own: a prepared
//! transaction in `pg_twophase` would come back, a segment of `pg_xact` say of transactions to come that
//! they have committed, a relation's file be in the way of one that replay makes. There a restored
//! directory is what the backup says, and nothing else. What is elsewhere is the user's.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Oid, Result};
use seawall_pgdata::PgMajor;
use seawall_pgdata::exclusion::{RESTORE_STATE_FILE, Verdict, verdict};
use seawall_pgdata::own_places::{is_own_directory, is_own_file};
use seawall_pgdata::relation_path::tablespace_version_directory;
use seawall_repo::manifest::{EntryKind, ManifestReader};

use super::Delta;
use super::local::{clear, look, room_of};
use crate::cluster::is_lost_and_found;
use crate::durable::{UNFINISHED_SUFFIX, local};
use crate::line_note;
use crate::restore::execute::JOURNAL_FILE;
use crate::restored::{Onto, TablespaceNote};
use crate::stored::{Layout, Sources};

/// Files at the root that PostgreSQL acts on when it finds them, beside those of a backup's
/// exclusions: it refuses to start (`readRecoverySignalFile`, xlogrecovery.c), or takes them for an
/// order (`PROMOTE_SIGNAL_FILE`, `LOGROTATE_SIGNAL_FILE`).
const ORDERS: [&str; 4] = ["recovery.conf", "promote", "fallback_promote", "logrotate"];

/// Notes of ours at the root, beside those of a backup's exclusions. They speak of what was there
/// before.
const OWN_NOTES: [&str; 2] = [line_note::FILE, JOURNAL_FILE];

/// The paths of a backup and what they are, each as a number of 64 bits. Two with one number are one
/// in 2^64; then something stays that should go.
pub(super) struct BackupPaths(HashMap<u64, EntryKind>);

impl BackupPaths {
    /// Reads the manifest.
    ///
    /// # Errors
    /// Damage, a store that fails.
    pub async fn read(sources: &Sources, manifest: &ManifestReader) -> Result<Self> {
        let mut paths = HashMap::new();
        for page in 0..manifest.pages() {
            let entries = manifest.page(sources.store(), page).await?;
            let restored = entries.iter().filter(|entry| Layout::restores(entry.path()));
            paths.extend(restored.map(|entry| (number(entry.path()), entry.kind)));
        }
        Ok(Self(paths))
    }

    fn kind(&self, path: &[u8]) -> Option<EntryKind> {
        self.0.get(&number(path)).copied()
    }
}

fn number(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// What becomes of something in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The backup has it.
    Kept,
    /// It is the user's.
    Stays,
    /// It is nobody's concern, and is not told of.
    PassedOver,
    /// PostgreSQL would take it for its own, or it is in the place of something else.
    Goes,
    /// A directory of the user's in the place of something else.
    InTheWay,
}

/// The directory, and the backup that is restored onto it.
pub(super) struct Tree<'t> {
    pub layout: &'t Layout,
    pub paths: &'t BackupPaths,
    pub major: PgMajor,
    /// The places of tablespaces that the backup has not.
    pub surplus: &'t BTreeMap<Oid, PathBuf>,
}

/// What is found at a path.
struct Found<'f> {
    path: &'f [u8],
    location: &'f Path,
    metadata: &'f Metadata,
}

/// What a look at the directory gives.
#[derive(Debug, Default)]
pub(in crate::restore) struct Survey {
    pub onto: Onto,
    /// Room that removing gives back, on the file system of each of [`Layout::directories`].
    pub freed_bytes: Vec<u64>,
}

/// Looks at the directory that a backup is restored onto.
///
/// # Errors
/// [`Code::DirectoryNotEmpty`] for a directory of the user's that is in the way; [`Code::LocalIo`].
pub(in crate::restore) async fn survey_of(
    (sources, manifest): (&Sources, &ManifestReader),
    layout: &Layout,
    major: PgMajor,
    surplus: &BTreeMap<Oid, PathBuf>,
    delta: Delta,
) -> Result<Survey> {
    let paths = BackupPaths::read(sources, manifest).await?;
    Tree { layout, paths: &paths, major, surplus }.survey(delta)
}

impl Tree<'_> {
    fn survey(&self, delta: Delta) -> Result<Survey> {
        let mut survey =
            Survey { freed_bytes: vec![0; self.layout.directories().count()], ..Survey::default() };
        self.walk(&mut |found, fate| {
            let Found { path, location, metadata } = found;
            let mut shown = String::from_utf8_lossy(path).into_owned();
            if let Ok(target) = fs::read_link(location) {
                shown.push_str(&format!(" -> {}", target.display()));
            }
            match fate {
                Fate::Kept if metadata.is_file() => {
                    survey.onto.files += 1;
                    survey.onto.bytes += metadata.len();
                }
                Fate::Kept | Fate::PassedOver => {}
                Fate::Stays => survey.onto.stays.add(shown, room_of(location, metadata)),
                Fate::InTheWay if !delta.force => return Err(in_the_way(location)),
                Fate::Goes | Fate::InTheWay => {
                    let room = room_of(location, metadata);
                    survey.onto.removed.add(shown, room);
                    if let Some(sum) = survey.freed_bytes.get_mut(self.layout.directory_of(path)) {
                        *sum += room;
                    }
                }
            }
            Ok(())
        })?;
        for (_, version) in self.surplus_versions() {
            if let Some(metadata) = look(&version)? {
                let room = room_of(&version, &metadata);
                survey.onto.removed.add(version.to_string_lossy().into_owned(), room);
            }
        }
        Ok(survey)
    }

    /// Removes all that has to go; returns how much it was, a directory counted as one.
    ///
    /// # Errors
    /// [`Code::LocalIo`]; [`Code::DirectoryNotEmpty`] as [`survey_of`].
    pub fn clear(&self, delta: Delta) -> Result<u64> {
        let mut removed = 0;
        // Before the links to them are gone.
        for (place, version) in self.surplus_versions() {
            removed += u64::from(look(&version)?.is_some());
            clear(&version)?;
            TablespaceNote::remove(place)?;
        }
        self.walk(&mut |found, fate| match fate {
            Fate::Kept | Fate::PassedOver | Fate::Stays => Ok(()),
            Fate::InTheWay if !delta.force => Err(in_the_way(found.location)),
            Fate::Goes | Fate::InTheWay => {
                removed += 1;
                clear(found.location)
            }
        })?;
        Ok(removed)
    }

    /// A directory on each file system that the directory's parts are on.
    ///
    /// # Errors
    /// [`Code::LocalIo`].
    pub fn mounts(&self) -> Result<Vec<PathBuf>> {
        let mut mounts = BTreeMap::new();
        self.walk(&mut |found, fate| {
            if fate == Fate::Kept && found.metadata.is_dir() {
                mounts.entry(found.metadata.dev()).or_insert_with(|| found.location.to_owned());
            }
            Ok(())
        })?;
        Ok(mounts.into_values().collect())
    }

    fn surplus_versions(&self) -> impl Iterator<Item = (&PathBuf, PathBuf)> {
        let version = tablespace_version_directory(self.major);
        self.surplus.values().map(move |place| (place, place.join(&version)))
    }

    /// Tells of everything in the directory and its tablespaces, what is to be removed with all that
    /// is in it.
    fn walk(&self, visit: &mut dyn FnMut(&Found<'_>, Fate) -> Result<()>) -> Result<()> {
        self.directory(self.layout.root(), b"", visit)?;
        for (oid, place) in self.layout.tablespaces() {
            if place.is_dir() {
                self.directory(place, format!("pg_tblspc/{oid}").as_bytes(), visit)?;
            }
        }
        Ok(())
    }

    fn directory(
        &self,
        location: &Path,
        path: &[u8],
        visit: &mut dyn FnMut(&Found<'_>, Fate) -> Result<()>,
    ) -> Result<()> {
        let listed = fs::read_dir(location).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut names: Vec<_> = listed
            .map_err(|error| local(error, "reading", location))?
            .into_iter()
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        for name in names {
            let location = location.join(&name);
            if is_lost_and_found(&location) {
                continue;
            }
            let path = match path {
                b"" => name.as_bytes().to_vec(),
                above => [above, b"/", name.as_bytes()].concat(),
            };
            let Some(metadata) = look(&location)? else { continue };
            let fate = self.fate(&path, &location, &metadata);
            visit(&Found { path: &path, location: &location, metadata: &metadata }, fate)?;
            if fate == Fate::Kept && metadata.is_dir() {
                self.directory(&location, &path, visit)?;
            }
        }
        Ok(())
    }

    fn fate(&self, path: &[u8], location: &Path, found: &Metadata) -> Fate {
        if let Some(fate) = self.fate_of_tablespace(path, location) {
            return fate;
        }
        let (is_dir, is_link) = (found.is_dir(), found.file_type().is_symlink());
        match self.paths.kind(path) {
            Some(EntryKind::Directory) if is_dir => Fate::Kept,
            Some(EntryKind::File) if found.is_file() => Fate::Kept,
            Some(EntryKind::Symlink) if is_link => Fate::Kept,
            Some(_) if is_dir && !is_own_file(path, self.major) => Fate::InTheWay,
            Some(_) => Fate::Goes,
            None => self.fate_of_surplus(path, is_dir),
        }
    }

    /// What becomes of what the backup has not.
    fn fate_of_surplus(&self, path: &[u8], is_dir: bool) -> Fate {
        // Databases and tablespaces apart, whose directories are those of the backup.
        let is_fixed = is_own_directory(path, self.major)
            && !path.starts_with(b"base/")
            && !path.starts_with(b"pg_tblspc/");
        if is_fixed {
            return if is_dir { Fate::Kept } else { Fate::Goes };
        }
        if path.contains(&b'/') {
            return if is_own_file(path, self.major) { Fate::Goes } else { Fate::Stays };
        }
        if path == RESTORE_STATE_FILE.as_bytes() {
            return Fate::PassedOver;
        }
        let is_excluded = matches!(verdict(path, is_dir, self.major), Verdict::Skip(_));
        let mut named = ORDERS.iter().chain(&OWN_NOTES);
        let is_named = named.any(|name| name.as_bytes() == path);
        let is_unfinished = path.ends_with(UNFINISHED_SUFFIX.as_bytes());
        if is_excluded || is_named || is_unfinished || is_own_file(path, self.major) {
            Fate::Goes
        } else {
            Fate::Stays
        }
    }

    /// What becomes of a path of `pg_tblspc` that is no other's.
    fn fate_of_tablespace(&self, path: &[u8], location: &Path) -> Option<Fate> {
        let below = path.strip_prefix(b"pg_tblspc/")?;
        let mut parts = below.split(|byte| *byte == b'/');
        let oid: Option<Oid> = std::str::from_utf8(parts.next()?).ok()?.parse().ok();
        let place = self.layout.tablespaces().find(|(known, _)| Some(*known) == oid);
        match (place, parts.next(), parts.next()) {
            (Some((_, place)), None, _) => {
                let is_right = fs::read_link(location).is_ok_and(|target| target == place);
                // What is behind it is walked by itself.
                Some(if is_right { Fate::PassedOver } else { Fate::Goes })
            }
            // Beside the directory of this major there may be what is another's.
            (Some(_), Some(name), None)
                if name != tablespace_version_directory(self.major).as_bytes() =>
            {
                Some(Fate::PassedOver)
            }
            (Some(_) | None, _, _) => None,
        }
    }
}

fn in_the_way(location: &Path) -> Error {
    let shown = location.display();
    let what = format!("{shown} is a directory, and the backup has something else there");
    Error::new(Code::DirectoryNotEmpty, what)
        .with_hint("Move it away; `--force` removes it with all that is in it.")
}
