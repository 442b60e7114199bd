//! The recovery kit: a text that, with the storage, is all a restore needs.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use seawall_core::{ClusterName, Code, Error, Result, ResultExt};
use seawall_repo::keys::KeyFile;
use seawall_store::StoreUrl;
use seawall_store::fs::sync_directory_at;

use crate::config::{self, Exposed};
use crate::owner::Owner;
use crate::{access, render};

const CLUSTER: &str = "cluster:";
const REPOSITORY: &str = "repository:";

/// What a recovery kit holds.
#[derive(Debug, Clone)]
pub struct Kit {
    /// The clusters it was written for.
    pub clusters: Vec<ClusterName>,
    /// Where the repository was.
    pub repository: StoreUrl,
    /// What opens it.
    pub key: KeyFile,
}

impl Kit {
    /// Reads a kit from its file.
    ///
    /// # Errors
    /// [`Code::KeyUnreadable`]; [`Code::KeyExposed`] if others can read it too.
    pub fn read(path: &Path, exposed: Exposed) -> Result<Self> {
        Self::parse(&config::read_key_text(path, exposed)?)
            .map_err(|error| error.context(path.display()))
    }

    /// Reads a kit from its text.
    ///
    /// # Errors
    /// [`Code::KeyUnreadable`]
    pub fn parse(text: &str) -> Result<Self> {
        let values = |name: &str| -> Vec<&str> {
            text.lines().filter_map(|line| line.strip_prefix(name)).map(str::trim).collect()
        };
        let unreadable = |what: &str| {
            Error::new(Code::KeyUnreadable, format!("this is not a whole recovery kit: {what}"))
                .with_hint("With the key alone, use `--repo URL --key FILE` instead of `--kit`.")
        };
        let [url] = values(REPOSITORY)[..] else {
            return Err(unreadable("it does not name one repository"));
        };
        let clusters = values(CLUSTER)
            .into_iter()
            .map(|name| name.parse().map_err(|_| unreadable("a cluster's name is not one")));
        Ok(Self {
            clusters: clusters.collect::<Result<_>>()?,
            repository: url.parse()?,
            key: KeyFile::parse(text)?,
        })
    }

    /// The kit as text, instructions first.
    pub fn text(&self, now: Timestamp) -> String {
        let cluster = self.clusters.first().map_or("CLUSTER", ClusterName::as_str);
        let names: String =
            self.clusters.iter().map(|name| format!("{CLUSTER} {name}\n")).collect();
        format!(
            "SEAWALL RECOVERY KIT
====================

With this file and the storage it names, any moment of the database that was backed up can
be restored on any machine. Without a key, nobody can restore it: not you, not anyone.

Keep it where the database is not: print it, or put it into a password manager. Whoever has
it and the storage can read every backup.

When the machine is lost, and must never come back by itself: install Seawall and the same
major version of PostgreSQL on another one, mount the storage, bring this file along, and type
as the user PostgreSQL runs as (it must be able to read the file):

1. Look what there is.

    seawall list {cluster} --kit ./THIS-FILE

2. If the old disk can still be read, push the last commits, which were not archived yet. Old
   segments at its end are refused (SW0504); nothing of them is lost.

    for file in /mnt/old/pg_wal/*.history /mnt/old/pg_wal/0*[0-9A-F]; do
        test -f \"$file\" && seawall wal push --partial \"$file\" --cluster {cluster} --kit ./THIS-FILE
    done

3. Restore a server that takes the old one's place. Without --as primary it is a copy to look
   at, which archives nothing.

    seawall restore {cluster} --kit ./THIS-FILE --into /var/lib/postgresql/restored --latest --as primary --start

4. It ends by printing a line `seawall init ...`: until that is typed, no WAL is archived. Then
   `seawall check` and `seawall backup`.

If the storage has moved, change the line \"{REPOSITORY}\" below, or use --repo URL and --key
./THIS-FILE instead of --kit.

Written {}. What the program reads:

{names}{REPOSITORY} {}
{}
",
            render::utc(now),
            self.repository,
            self.key.line(),
        )
    }

    /// Writes the kit to a file that must not exist, readable by its owner alone, durably.
    ///
    /// # Errors
    /// [`Code::LocalIo`]
    pub fn create(&self, path: &Path, now: Timestamp) -> Result<()> {
        create_secret(path, &self.text(now), "recovery kit")
    }
}

/// Creates a file with mode 0600 and makes it durable.
///
/// # Errors
/// [`Code::LocalIo`], also if there is one already: a key is never overwritten.
pub fn create_secret(path: &Path, text: &str, what: &str) -> Result<()> {
    create_secret_for(&Owner::current(), path, text, what)
}

/// As [`create_secret`]; the file is given to `owner`.
///
/// # Errors
/// [`Code::LocalIo`]
pub fn create_secret_for(owner: &Owner, path: &Path, text: &str, what: &str) -> Result<()> {
    let failed = || format!("cannot write the {what} {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| not_created(path, what, error))?;
    let written = owner.give_open(&file, path).and_then(|()| {
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.and_then(|()| sync_parent(path)).code(Code::LocalIo, failed)
    });
    if written.is_err() {
        // Half a key must not be taken for one later.
        std::fs::remove_file(path).ok();
    }
    written
}

fn not_created(path: &Path, what: &str, error: io::Error) -> Error {
    let quoted = render::shell_quote(&path.display().to_string());
    let parent = path.parent().unwrap_or(Path::new("/")).display().to_string();
    let hint = match error.kind() {
        ErrorKind::AlreadyExists => {
            format!(
                "There is a file of that name, and keys are never overwritten: give another name, or move it away: `mv {quoted} {quoted}.old`."
            )
        }
        ErrorKind::NotFound => {
            format!("Make the directory first: `mkdir -p {}`.", render::shell_quote(&parent))
        }
        ErrorKind::ReadOnlyFilesystem => access::read_only(path),
        _ => format!("See who may write there: `ls -ld {}`.", render::shell_quote(&parent)),
    };
    Error::new(Code::LocalIo, format!("cannot write the {what} {}", path.display()))
        .with_source(error)
        .with_hint(hint)
}

/// Makes a new directory entry durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory_at(parent.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kit() -> Kit {
        Kit {
            clusters: vec!["main".parse().unwrap(), "other".parse().unwrap()],
            repository: "/srv/my repo".parse().unwrap(),
            key: KeyFile::generate().unwrap(),
        }
    }

    #[test]
    fn a_kit_reads_back_what_it_was_written_from() {
        let kit = kit();
        let read = Kit::parse(&kit.text(Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(read.clusters, kit.clusters);
        assert_eq!(read.repository, kit.repository);
        assert_eq!(read.key.line(), kit.key.line());
    }

    #[test]
    fn a_kit_is_a_key_file_too() {
        let kit = kit();
        let key = KeyFile::parse(&kit.text(Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(key.line(), kit.key.line());
    }

    #[test]
    fn half_a_kit_is_refused() {
        let text = kit().text(Timestamp::UNIX_EPOCH);
        for gone in ["repository: ", "seawall-key-1-"] {
            let half: String = text
                .lines()
                .filter(|line| !line.starts_with(gone))
                .map(|line| format!("{line}\n"))
                .collect();
            assert_eq!(Kit::parse(&half).unwrap_err().code(), Code::KeyUnreadable, "{gone}");
        }
    }

    #[test]
    fn a_secret_is_never_overwritten_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create_secret(&path, "one", "key").unwrap();
        let error = create_secret(&path, "two", "key").unwrap_err();
        assert_eq!(error.code(), Code::LocalIo);
        assert!(format!("{:?}", error.hint()).contains("never overwritten"), "{error:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
