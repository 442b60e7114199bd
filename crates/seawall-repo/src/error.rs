use seawall_core::{Action, Code, Error, Key, hint};
use seawall_store::ObjectPath;

/// Why an object's bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The object is shorter or longer than its trailer says, or has no trailer.
    #[error("it is truncated or has been extended")]
    Length,
    /// The first bytes are not an object's.
    #[error("it does not begin as an object of this format")]
    Header,
    /// The object is of another version of the format.
    #[error("it is of format {0}, which this program does not know")]
    Version(u16),
    /// The object is of another kind than its name says.
    #[error("it is of kind {found}, not {expected}")]
    Kind {
        /// What the name asks for.
        expected: u8,
        /// What the header says.
        found: u8,
    },
    /// Stored bytes changed.
    #[error("the checksum of the bytes at offset {offset} does not match")]
    Checksum {
        /// Where the chunk begins.
        offset: u64,
    },
    /// The bytes are intact and were not sealed under this name with these keys.
    #[error("the bytes at offset {offset} were not written under this name with this key")]
    Authentication {
        /// Where the chunk begins.
        offset: u64,
    },
    /// The content cannot be decoded, although it is authentic.
    #[error("its content cannot be read: {0}")]
    Content(String),
    /// An epoch without a key.
    #[error("it was written under key epoch {0}, for which there is no key")]
    Epoch(u32),
    /// An epoch that has slots, none of which is for the key in use: why.
    #[error("{0}")]
    Locked(String),
}

impl Damage {
    /// The error a person sees, naming the object.
    #[must_use]
    pub fn at(self, path: &ObjectPath) -> Error {
        if matches!(self, Self::Version(_)) {
            return Error::new(
                Code::UnknownFormat,
                format!("object {path} cannot be read: {self}"),
            )
            .with_pair(Key::Object, path)
            .with_hint("Use a newer Seawall with this repository.");
        }
        if matches!(self, Self::Epoch(_)) {
            return Error::new(Code::KeyEpochGone, format!("object {path} cannot be read: {self}"))
                .with_pair(Key::Object, path)
                .with_hint(hint![
                    "The slots of that epoch are gone from the repository: ",
                    Action::ShowKeys,
                    " lists those there are. Put them back from a copy of the repository."
                ]);
        }
        if matches!(self, Self::Locked(_)) {
            return Error::new(Code::WrongKey, format!("object {path} cannot be read: {self}"))
                .with_pair(Key::Object, path)
                .with_hint(hint![
                    "Use a key that was carried over, or let this one in with one that works: ",
                    Action::AddKey,
                    "."
                ]);
        }
        Error::new(Code::ObjectDamaged, format!("object {path} is damaged: {self}"))
            .with_pair(Key::Object, path)
            .with_hint(hint![
                "Run ",
                Action::Verify,
                " to learn what else is damaged; other backups and repositories may be whole."
            ])
    }
}

/// A backup as it was written before the first release: its pages and its commit are one object.
pub(crate) fn of_the_format_before(path: &ObjectPath) -> Error {
    let what = format!(
        "{path} is a backup of the format before this one, with its files and what makes it a backup in one object"
    );
    Error::new(Code::UnknownFormat, what)
        .with_hint("Make a new backup. This one can be restored with the Seawall that made it.")
}

/// An object that is authentic and says something that cannot be.
pub(crate) fn inconsistent(path: &ObjectPath, what: impl std::fmt::Display) -> Error {
    Error::new(
        Code::ObjectInconsistent,
        format!("object {path} contradicts the repository: {what}"),
    )
    .with_pair(Key::Object, path)
    .with_hint(hint!["Run ", Action::Verify, " to learn which backups are affected."])
}

/// What was about to be written breaks the rules it would be read by. Whoever writes proves it
/// first: what nobody can open must not count as stored.
pub(crate) fn unreadable(what: &str, damage: &Damage) -> Error {
    let message =
        format!("a {what} that was about to be written could not be read again: {damage}");
    Error::new(Code::Internal, message)
        .with_hint("It was not written, and what the repository holds is whole. Please report it.")
}

/// Nothing may be written: the newest epoch has no keys, and an older one's must not take its place.
pub(crate) fn epoch_gone(epoch: u32) -> Error {
    Error::new(
        Code::KeyEpochGone,
        format!("key epoch {epoch} of the repository has begun, and its keys are gone"),
    )
    .with_hint(format!(
        "Put keys/{epoch} and epochs/{epoch} back from a copy of the repository. Nothing is written under an older key; what that opens can still be restored."
    ))
}
