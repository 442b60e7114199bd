//! Ways to spoil an object of a repository.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use seawall_testkit::faults::Random;

/// What an object is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Format,
    Key,
    About,
    Pack,
    Map,
    Manifest,
    Commit,
    Event,
    Pin,
    Wal,
    TimelineHistory,
    BackupHistory,
    Head,
}

impl Kind {
    pub const ALL: [Self; 13] = [
        Self::Format,
        Self::Key,
        Self::About,
        Self::Pack,
        Self::Map,
        Self::Manifest,
        Self::Commit,
        Self::Event,
        Self::Pin,
        Self::Wal,
        Self::TimelineHistory,
        Self::BackupHistory,
        Self::Head,
    ];

    /// The kind of the object of that name (docs/format.md, 2).
    pub fn of(name: &str) -> Result<Self> {
        let parts: Vec<&str> = name.split('/').collect();
        Ok(match parts.as_slice() {
            ["format", _] => Self::Format,
            ["keys", _, _] => Self::Key,
            ["c", _, "i", _, below @ ..] => match below {
                ["about"] => Self::About,
                ["pack", _, _] => Self::Pack,
                ["map", _] => Self::Map,
                ["manifest", _] => Self::Manifest,
                ["backup", _, _] => Self::Commit,
                ["events", _, _] => Self::Event,
                ["pin", _, _] => Self::Pin,
                ["wal", "hot", _, _, _] => Self::Wal,
                ["history", file] if file.ends_with(".backup") => Self::BackupHistory,
                ["history", _] => Self::TimelineHistory,
                ["head", _] => Self::Head,
                _ => bail!("what is {name}?"),
            },
            _ => bail!("what is {name}?"),
        })
    }
}

/// What is done to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Harm {
    /// One bit, at this offset.
    Flip(u64),
    /// Cut to this length.
    Truncate(u64),
    /// So many bytes more.
    Extend(u64),
    /// Its content changes places with that of another one.
    Swap(String),
    /// It gets another name that an object could have.
    Rename(String),
    /// It goes.
    Delete,
}

impl Harm {
    /// The name of the way, for counting.
    pub const fn way(&self) -> &'static str {
        match self {
            Self::Flip(_) => "flip",
            Self::Truncate(_) => "truncate",
            Self::Extend(_) => "extend",
            Self::Swap(_) => "swap",
            Self::Rename(_) => "rename",
            Self::Delete => "delete",
        }
    }
}

/// An object, and what is done to it.
#[derive(Debug, Clone)]
pub struct Mutation {
    pub name: String,
    pub kind: Kind,
    pub harm: Harm,
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}", self.harm, self.name)
    }
}

/// The objects of a repository, by kind.
#[derive(Debug, Default)]
pub struct Inventory(BTreeMap<Kind, Vec<String>>);

impl Inventory {
    pub fn of(names: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut inventory = Self::default();
        for name in names {
            inventory.0.entry(Kind::of(&name)?).or_default().push(name);
        }
        Ok(inventory)
    }

    pub fn all(&self, kind: Kind) -> &[String] {
        self.0.get(&kind).map(Vec::as_slice).unwrap_or_default()
    }

    /// The mutation number `round`: every kind in turn, and after each turn another way. Which
    /// object and where is drawn.
    pub fn draw(&self, round: u64, random: &mut Random, repository: &Path) -> Result<Mutation> {
        let kinds = Kind::ALL.len() as u64;
        let kind = Kind::ALL[usize::try_from(round % kinds)?];
        let name = pick(self.all(kind), random).with_context(|| format!("no {kind:?}"))?.clone();
        let length = fs::metadata(repository.join(&name))?.len();
        let harm = match (round / kinds) % 6 {
            0 => Harm::Flip(random.below(length)),
            1 => Harm::Truncate(random.below(length)),
            2 => Harm::Extend(1 + random.below(100)),
            3 => Harm::Swap(self.another(&name, kind, random)?),
            4 => Harm::Rename(other_name(&name, kind, random)?),
            _ => Harm::Delete,
        };
        Ok(Mutation { name, kind, harm })
    }

    /// Another object, of the same kind if there is one.
    fn another(&self, name: &str, kind: Kind, random: &mut Random) -> Result<String> {
        let others = |kind| self.all(kind).iter().filter(|other| *other != name).cloned();
        let mut candidates: Vec<String> = others(kind).collect();
        if candidates.is_empty() {
            candidates = others(Kind::Pack).collect();
        }
        pick(&candidates, random).cloned().context("there is only one object")
    }
}

fn pick<'a, T>(items: &'a [T], random: &mut Random) -> Option<&'a T> {
    items.get(usize::try_from(random.below(items.len() as u64)).ok()?)
}

/// A name of the same kind that no object has.
fn other_name(name: &str, kind: Kind, random: &mut Random) -> Result<String> {
    let (directory, file) = name.rsplit_once('/').context("no directory")?;
    let mut number = random.next_u64();
    let mut digits = |alphabet: &[u8], count: usize| -> String {
        let base = alphabet.len() as u64;
        let digit = |_| {
            let at = usize::try_from(number % base).unwrap_or_default();
            number = number / base + 1;
            char::from(alphabet.get(at).copied().unwrap_or(b'0'))
        };
        (0..count).map(digit).collect()
    };
    Ok(match kind {
        Kind::Format => format!("{directory}/2"),
        // The same line under the next branch.
        Kind::About => format!("{}-1/about", directory.trim_end_matches("-0")),
        Kind::Key | Kind::Pack | Kind::Map | Kind::Manifest | Kind::Head => {
            let (time, _) = file.split_at_checked(18).context("not a ULID")?;
            format!("{directory}/{time}{}", digits(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", 8))
        }
        Kind::Commit | Kind::Event | Kind::Pin => {
            format!("{directory}/{:08}", 1000 + random.below(1000))
        }
        Kind::Wal => {
            let (start, end) = file.split_once('-').context("not a range of WAL")?;
            let start = u64::from_str_radix(start, 16)?;
            format!("{directory}/{:016X}-{end}", start + 8192 * (1 + random.below(100)))
        }
        Kind::TimelineHistory => format!("{directory}/{:08X}", 100 + random.below(100)),
        Kind::BackupHistory => {
            let (segment, _) = file.split_once('.').context("not a backup history")?;
            format!("{directory}/{segment}.00F{}.backup", digits(b"0123456789ABCDEF", 5))
        }
    })
}

/// Does it. What is written is a new file: the old one may be linked elsewhere.
pub fn inflict(mutation: &Mutation, repository: &Path) -> Result<()> {
    let path = repository.join(&mutation.name);
    let mut bytes = fs::read(&path)?;
    match &mutation.harm {
        Harm::Flip(offset) => {
            let byte = bytes.get_mut(usize::try_from(*offset)?).context("no such byte")?;
            *byte ^= 1;
        }
        Harm::Truncate(length) => bytes.truncate(usize::try_from(*length)?),
        Harm::Extend(more) => bytes.extend((0..*more).map(|at| at as u8)),
        Harm::Swap(with) => {
            let with = repository.join(with);
            let theirs = fs::read(&with)?;
            ensure!(theirs != bytes, "nothing changes");
            replace(&with, &bytes)?;
            bytes = theirs;
        }
        Harm::Rename(to) => {
            let to = repository.join(to);
            ensure!(!to.exists(), "{} exists", to.display());
            make_directories(repository, &to)?;
            return Ok(fs::rename(&path, to)?);
        }
        Harm::Delete => return Ok(fs::remove_file(&path)?),
    }
    replace(&path, &bytes)
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let metadata = fs::metadata(path)?;
    fs::remove_file(path)?;
    fs::write(path, bytes)?;
    give_like(path, &metadata)
}

fn make_directories(repository: &Path, file: &Path) -> Result<()> {
    let metadata = fs::metadata(repository)?;
    let missing: Vec<PathBuf> =
        file.ancestors().skip(1).take_while(|path| !path.exists()).map(Path::to_owned).collect();
    for directory in missing.iter().rev() {
        fs::create_dir(directory)?;
        give_like(directory, &metadata)?;
    }
    Ok(())
}

fn give_like(path: &Path, like: &fs::Metadata) -> Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    fs::set_permissions(path, like.permissions())?;
    Ok(chown(path, Some(like.uid()), Some(like.gid()))?)
}
