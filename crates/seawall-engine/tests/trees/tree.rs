//! A tree of files drawn by lot, every version that each of them has had, and the comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use seawall_testkit::faults::Random;

/// All bytes of one tree's files, about.
const TREE_BYTES_MAX: u64 = 6 << 20;

/// What a path was at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// Nothing was there.
    Absent,
    Directory,
    File(Content),
    /// A file that was being written from its beginning or added to: any part of it that is not
    /// shorter than `from` was there at some moment.
    Growing {
        from: u64,
        to: Content,
    },
}

/// A file's bytes: a pattern of eight that are never zero; or that amid holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    pub tag: u64,
    pub length: u64,
    /// Where the pattern begins and ends; zeros elsewhere.
    pub filled: (u64, u64),
}

impl Content {
    pub fn new(tag: u64, length: u64) -> Self {
        Self { tag, length, filled: (0, length) }
    }

    pub fn bytes(self) -> Vec<u8> {
        self.each().collect()
    }

    fn each(self) -> impl Iterator<Item = u8> {
        let pattern = self.tag.to_le_bytes();
        let (from, to) = self.filled;
        (0..self.length).map(move |at| match at {
            at if at < from || at >= to => 0,
            at => pattern[(at % 8) as usize] | 1,
        })
    }

    /// Whether these bytes are it, or begin it.
    fn begins_with(self, bytes: &[u8]) -> bool {
        bytes.iter().copied().eq(self.each().take(bytes.len()))
    }

    pub fn write(self, path: &Path) -> Result<()> {
        if self.filled == (0, self.length) {
            return Ok(fs::write(path, self.bytes())?);
        }
        let file = fs::File::create(path)?;
        file.set_len(self.length)?;
        let (from, to) = self.filled;
        let part = &self.bytes()[from as usize..to as usize];
        Ok(file.write_all_at(part, from)?)
    }
}

impl Version {
    fn is(&self, found: &Found) -> bool {
        match (self, found) {
            (Self::Absent, Found::Absent) | (Self::Directory, Found::Directory(_)) => true,
            (Self::File(content), Found::File(bytes, _)) => {
                bytes.len() as u64 == content.length && content.begins_with(bytes)
            }
            (Self::Growing { from, to }, Found::File(bytes, _)) => {
                let length = bytes.len() as u64;
                (*from..=to.length).contains(&length) && to.begins_with(bytes)
            }
            _ => false,
        }
    }
}

/// What a restore made of a path.
enum Found {
    Absent,
    Directory(u32),
    File(Vec<u8>, u32),
    Link(PathBuf),
}

/// What has to come of a path.
enum Expected {
    /// Exactly this, with these permissions.
    Version(Version, u32),
    /// A link to here.
    Link(PathBuf),
    /// Nothing: a link that leads out.
    Nothing,
}

/// Paths that a person works on, relative to the tree, and all they were.
pub type Busy = BTreeMap<PathBuf, Vec<Version>>;

/// A tree of files.
pub struct Tree {
    root: PathBuf,
    /// What lies elsewhere and links lead to.
    away: PathBuf,
    still: BTreeMap<PathBuf, Expected>,
    busy: Busy,
    room: u64,
}

impl Tree {
    /// Makes a tree at `root`, and at `away` what links lead to.
    pub fn grow(root: PathBuf, away: PathBuf, random: &mut Random) -> Result<Self> {
        fs::create_dir(&root)?;
        fs::create_dir(&away)?;
        let room = TREE_BYTES_MAX;
        let mut tree = Self { root, away, still: BTreeMap::new(), busy: Busy::new(), room };
        let mut directories = vec![PathBuf::new()];
        for _ in 0..random.below(6) {
            let above = pick(random, &directories);
            if let Some(path) = tree.free(&above, random) {
                tree.directory(&path, random)?;
                directories.push(path);
            }
        }
        // Most trees are small; one of sixteen has a directory with thousands of files.
        let files = match random.below(16) {
            0 => 1000 + random.below(2000),
            _ => 1 + random.below(100),
        };
        let crowd = pick(random, &directories);
        for number in 0..files {
            let above = if files >= 1000 { crowd.clone() } else { pick(random, &directories) };
            let Some(path) = tree.free(&above, random) else { continue };
            let small = files >= 1000 && number > 0;
            tree.file(&path, small, random)?;
        }
        for _ in 0..random.below(8) {
            let above = pick(random, &directories);
            if let Some(path) = tree.free(&above, random) {
                tree.link(&path, random)?;
            }
        }
        for _ in 0..random.below(12) {
            let above = pick(random, &directories);
            if let Some(path) = tree.free(&above, random) {
                let content = tree.content(false, random);
                content.write(&tree.root.join(&path))?;
                tree.busy.insert(path, vec![Version::File(content)]);
            }
        }
        Ok(tree)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn is_busy(&self, path: &Path) -> bool {
        self.busy.contains_key(path)
    }

    /// Gives what a person works on to that person.
    pub fn take_busy(&mut self) -> Busy {
        std::mem::take(&mut self.busy)
    }

    /// Takes it back, with all that has become of it.
    pub fn give_back(&mut self, busy: Busy) {
        self.busy = busy;
    }

    /// A path that is not taken.
    fn free(&self, above: &Path, random: &mut Random) -> Option<PathBuf> {
        let path = above.join(OsStr::from_bytes(&name(random)));
        let taken = self.still.contains_key(&path) || self.busy.contains_key(&path);
        (!taken).then_some(path)
    }

    fn directory(&mut self, path: &Path, random: &mut Random) -> Result<()> {
        let (place, mode) = (self.root.join(path), pick(random, &[0o700, 0o755, 0o750]));
        fs::create_dir(&place)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
        self.still.insert(path.to_owned(), Expected::Version(Version::Directory, mode));
        Ok(())
    }

    fn file(&mut self, path: &Path, small: bool, random: &mut Random) -> Result<()> {
        let (place, content) = (self.root.join(path), self.content(small, random));
        content.write(&place)?;
        let mode = pick(random, &[0o600, 0o600, 0o640, 0o644, 0o400, 0o755]);
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
        self.still.insert(path.to_owned(), Expected::Version(Version::File(content), mode));
        Ok(())
    }

    /// A link of some kind, most of which lead out.
    fn link(&mut self, path: &Path, random: &mut Random) -> Result<()> {
        let (place, away) = (self.root.join(path), self.away.join(self.still.len().to_string()));
        let (target, expected) = match random.below(6) {
            0 => {
                let content = self.content(false, random);
                content.write(&away)?;
                fs::set_permissions(&away, fs::Permissions::from_mode(0o600))?;
                (away, Expected::Version(Version::File(content), 0o600))
            }
            1 => {
                fs::create_dir(&away)?;
                fs::write(away.join("not the cluster's"), "x")?;
                (away, Expected::Nothing)
            }
            2 => ("/nowhere".into(), Expected::Nothing),
            3 => ("..".into(), Expected::Link("..".into())),
            4 => {
                let own = PathBuf::from(path.file_name().context("a name")?);
                (own.clone(), Expected::Link(own))
            }
            _ => ("nothing/here".into(), Expected::Link("nothing/here".into())),
        };
        symlink(target, place)?;
        self.still.insert(path.to_owned(), expected);
        Ok(())
    }

    /// The content of a new file; around the sizes where something else begins, one in a while.
    fn content(&mut self, small: bool, random: &mut Random) -> Content {
        let tag = random.next_u64();
        let around = |size: u64, random: &mut Random| (size + random.below(3)).saturating_sub(1);
        let length = match random.below(if small { 4 } else { 12 }) {
            0 => 0,
            1..4 => random.below(200),
            4..7 => random.below(20_000),
            7 => around(8192, random),
            8 => around(64 << 10, random),
            9 => around(128 << 10, random),
            10 => random.below(3 << 20),
            _ => {
                let length = 1 + random.below(8 << 20);
                let from = random.below(length);
                let to = (from + random.below(100_000)).min(length);
                self.room = self.room.saturating_sub(to - from);
                return Content { tag, length, filled: (from, to) };
            }
        };
        let length = length.min(self.room);
        self.room -= length;
        Content::new(tag, length)
    }

    /// Compares what was restored with what there was. What was left out may be missing.
    pub fn compare(
        &self,
        restored: &Path,
        left_out: &[PathBuf],
        counts: &mut BTreeMap<&'static str, u64>,
    ) -> Result<()> {
        let mut count = |what| *counts.entry(what).or_default() += 1;
        let mut known = BTreeSet::new();
        for (path, expected) in &self.still {
            let found = look(&restored.join(path))?;
            compare_still(expected, &found).with_context(|| format!("{path:?}"))?;
            known.insert(path.clone());
            count(match expected {
                Expected::Version(Version::Directory, _) => "directories",
                Expected::Version(..) => "files that nobody touched",
                Expected::Link(_) | Expected::Nothing => "links",
            });
        }
        for (path, versions) in &self.busy {
            known.insert(path.clone());
            if left_out.contains(path) {
                continue;
            }
            let found = look(&restored.join(path))?;
            let Some(number) = versions.iter().position(|version| version.is(&found)) else {
                bail!("{path:?} is none of its {} versions: {}", versions.len(), told(&found));
            };
            count("files that somebody wrote meanwhile");
            if number > 0 {
                count("of which another version than the first was caught");
            }
        }
        let strange = below(restored)?.into_iter().find(|path| !known.contains(path));
        ensure!(strange.is_none(), "nobody made {strange:?}");
        count("trees");
        Ok(())
    }
}

fn compare_still(expected: &Expected, found: &Found) -> Result<()> {
    match (expected, found) {
        (Expected::Version(version, mode), found) => {
            ensure!(version.is(found), "not as it was: {}", told(found));
            let (Found::Directory(restored) | Found::File(_, restored)) = found else {
                bail!("not as it was: {}", told(found));
            };
            ensure!(restored == mode, "mode {restored:o}, and it was {mode:o}");
        }
        (Expected::Link(target), Found::Link(restored)) => ensure!(target == restored),
        (Expected::Nothing, Found::Absent) => {}
        (Expected::Link(_) | Expected::Nothing, found) => bail!("it is {}", told(found)),
    }
    Ok(())
}

fn look(place: &Path) -> Result<Found> {
    let Ok(metadata) = fs::symlink_metadata(place) else { return Ok(Found::Absent) };
    let mode = metadata.mode() & 0o7777;
    Ok(match metadata.file_type() {
        kind if kind.is_dir() => Found::Directory(mode),
        kind if kind.is_symlink() => Found::Link(fs::read_link(place)?),
        _ => Found::File(fs::read(place)?, mode),
    })
}

fn told(found: &Found) -> String {
    match found {
        Found::Absent => "nothing".to_owned(),
        Found::Directory(mode) => format!("a directory of mode {mode:o}"),
        Found::Link(target) => format!("a link to {}", target.display()),
        Found::File(bytes, _) => {
            let zeros = bytes.iter().filter(|byte| **byte == 0).count();
            format!("{} bytes, {zeros} of them zero", bytes.len())
        }
    }
}

/// Every path below a directory, relative to it.
fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(directory.join(&path))? {
            let entry = entry?;
            let path = path.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    Ok(found)
}

/// A name of any bytes, now and then as long as can be.
fn name(random: &mut Random) -> Vec<u8> {
    let length = match random.below(6) {
        0 => 255,
        1 => 1 + random.below(3),
        _ => 1 + random.below(40),
    };
    let mut name: Vec<u8> = (0..length).map(|_| 1 + random.below(255) as u8).collect();
    for byte in &mut name {
        if *byte == b'/' {
            *byte = b'\n';
        }
    }
    // What PostgreSQL leaves about, and no backup has.
    let special = name == b"." || name == b".." || name.starts_with(b"pgsql_tmp");
    if special { b"...".to_vec() } else { name }
}

/// One of some.
pub fn pick<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize].clone()
}

pub fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Adds to a file's end.
pub fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::OpenOptions::new().append(true).open(path)?;
    Ok(file.write_all(bytes)?)
}
