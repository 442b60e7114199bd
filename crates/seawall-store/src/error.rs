use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use seawall_core::{Action, Code, Error, Hint, Key, Retry, hint};

use crate::{ObjectPath, ObjectPrefix, StoreUrl};

/// What went wrong where: an object or a prefix, and the store it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPlace(Arc<(StoreUrl, String)>);

impl ObjectPlace {
    /// An object of a store.
    #[must_use]
    pub fn object(store: &StoreUrl, path: &ObjectPath) -> Self {
        Self(Arc::new((store.clone(), path.to_string())))
    }

    /// Everything below a prefix of a store.
    #[must_use]
    pub fn prefix(store: &StoreUrl, prefix: &ObjectPrefix) -> Self {
        Self(Arc::new((store.clone(), prefix.to_string())))
    }

    /// The store as a whole.
    #[must_use]
    pub fn store(store: &StoreUrl) -> Self {
        Self::prefix(store, &ObjectPrefix::root())
    }

    /// The store's URL.
    #[must_use]
    pub fn url(&self) -> &StoreUrl {
        &self.0.0
    }

    /// The object's path; empty for the store as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.1
    }
}

impl fmt::Display for ObjectPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path().is_empty() {
            write!(f, "the store {}", self.url())
        } else {
            write!(f, "{} in {}", self.path(), self.url())
        }
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such object; for the store as a whole, no such directory or bucket.
    #[error("{place} does not exist")]
    NotFound {
        /// What was looked for.
        place: ObjectPlace,
    },
    /// Something is there already.
    #[error("{place} already exists")]
    AlreadyExists {
        /// What was to be created.
        place: ObjectPlace,
    },
    /// The store, its disk or a quota is full.
    #[error("no room to write {place}")]
    Full {
        /// What was being written.
        place: ObjectPlace,
        /// What the system said.
        source: io::Error,
    },
    /// Access was refused.
    #[error("access to {place} was refused")]
    Forbidden {
        /// What was being accessed.
        place: ObjectPlace,
        /// What the system said.
        source: io::Error,
    },
    /// The object ends before the range does.
    #[error("{place} has {size_bytes} bytes, and {}..{} were asked for", range.start, range.end)]
    RangeBeyondEnd {
        /// What was read.
        place: ObjectPlace,
        /// The bytes asked for.
        range: Range<u64>,
        /// The object's length.
        size_bytes: u64,
    },
    /// The object is longer than what it is said to be can be.
    #[error("{place} has {size_bytes} bytes, and such an object has at most {limit_bytes}")]
    TooLong {
        /// What was to be read.
        place: ObjectPlace,
        /// The object's length.
        size_bytes: u64,
        /// How long it may be.
        limit_bytes: u64,
    },
    /// Reading ended before the length the store itself had given.
    #[error("{place} ended after {got_bytes} of {expected_bytes} bytes")]
    ShortRead {
        /// What was read.
        place: ObjectPlace,
        /// How many bytes there should have been.
        expected_bytes: u64,
        /// How many there were.
        got_bytes: u64,
    },
    /// What has the object's name is something else, such as a directory or a symbolic link.
    #[error("{place} is {found}")]
    NotAnObject {
        /// The name.
        place: ObjectPlace,
        /// What it is, as in "a directory, not an object".
        found: &'static str,
    },
    /// The store cannot keep a promise a repository relies on.
    #[error("{place} cannot be stored safely: {lacking}")]
    Unsupported {
        /// What was being written.
        place: ObjectPlace,
        /// What the store lacks.
        lacking: &'static str,
    },
    /// The store asks nobody who they are, and credentials were given for it.
    #[error("{place} takes no credentials")]
    NeedsNoCredentials {
        /// The store.
        place: ObjectPlace,
    },
    /// The store did not answer, or said to try later. The same call may work then.
    #[error("the store did not answer while {doing} {place}")]
    Unavailable {
        /// What was being accessed.
        place: ObjectPlace,
        /// What was being done, as in "reading".
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else; trying again is not known to help.
    #[error("{doing} {place} failed")]
    Io {
        /// What was being accessed.
        place: ObjectPlace,
        /// What was being done, as in "reading".
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// Sorts what the operating system said. Never [`Self::AlreadyExists`]: only the call that was
    /// to create something knows what `EEXIST` means.
    pub(crate) fn from_io(place: ObjectPlace, doing: &'static str, source: io::Error) -> Self {
        let errno = source.raw_os_error().map(Errno::from_raw_os_error);
        match errno {
            Some(Errno::NOENT) => Self::NotFound { place },
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full { place, source },
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Self::Forbidden { place, source },
            Some(Errno::TIMEDOUT | Errno::STALE | Errno::HOSTDOWN | Errno::HOSTUNREACH) => {
                Self::Unavailable { place, doing, source }
            }
            _ => Self::Io { place, doing, source },
        }
    }

    /// What the error is about.
    #[must_use]
    pub const fn place(&self) -> &ObjectPlace {
        match self {
            Self::NotFound { place }
            | Self::AlreadyExists { place }
            | Self::Full { place, .. }
            | Self::Forbidden { place, .. }
            | Self::RangeBeyondEnd { place, .. }
            | Self::ShortRead { place, .. }
            | Self::TooLong { place, .. }
            | Self::NotAnObject { place, .. }
            | Self::Unsupported { place, .. }
            | Self::NeedsNoCredentials { place }
            | Self::Unavailable { place, .. }
            | Self::Io { place, .. } => place,
        }
    }

    /// Whether the object is known not to be there.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether something was there already.
    #[must_use]
    pub const fn is_already_exists(&self) -> bool {
        matches!(self, Self::AlreadyExists { .. })
    }

    /// Whether the same call may work later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    const fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::ObjectMissing,
            Self::AlreadyExists { .. } => Code::ObjectExists,
            Self::Full { .. } => Code::StoreFull,
            Self::Forbidden { .. } => Code::StoreForbidden,
            Self::RangeBeyondEnd { .. } | Self::ShortRead { .. } | Self::TooLong { .. } => {
                Code::ObjectDamaged
            }
            Self::NeedsNoCredentials { .. } => Code::StoreUrlInvalid,
            Self::NotAnObject { .. }
            | Self::Unsupported { .. }
            | Self::Unavailable { .. }
            | Self::Io { .. } => Code::StoreFailed,
        }
    }

    fn hint(&self) -> Hint {
        let place = self.place();
        let directory = place.url().as_directory().map(Path::display);
        let told = match self {
            Self::NotFound { .. } if place.path().is_empty() => match directory {
                Some(directory) => format!(
                    "Check that the volume is mounted, or make the directory: mkdir -p {directory}"
                ),
                None => "Check that the store is the one that was meant, and is there.".to_owned(),
            },
            Self::NotFound { .. }
            | Self::RangeBeyondEnd { .. }
            | Self::ShortRead { .. }
            | Self::TooLong { .. } => {
                return hint!["Run ", Action::Verify, " to learn which backups are affected."];
            }
            Self::AlreadyExists { .. } => {
                "Objects are never overwritten; look at what is there before doing anything to it."
                    .to_owned()
            }
            Self::Full { .. } => match directory {
                Some(directory) => {
                    format!("Free space or raise the quota, then run it again: df -h {directory}")
                }
                None => "Free space or raise the quota, then run it again.".to_owned(),
            },
            Self::Forbidden { .. } => match directory {
                Some(directory) => {
                    format!("Check owner and mode for the user Seawall runs as: ls -ld {directory}")
                }
                None => "Check what the credentials allow.".to_owned(),
            },
            Self::NotAnObject { .. } => match directory {
                Some(directory) => format!(
                    "Seawall did not make it and follows no links; move it away: ls -l {directory}/{}",
                    place.path()
                ),
                None => "Seawall did not make it; move it away.".to_owned(),
            },
            Self::Unsupported { .. } => {
                "Put the repository on a filesystem with hard links, such as ext4 or XFS."
                    .to_owned()
            }
            Self::NeedsNoCredentials { .. } => {
                "Take the credentials away: owner and mode of a directory say who may use it."
                    .to_owned()
            }
            Self::Unavailable { .. } => "Run it again when the store can be reached.".to_owned(),
            Self::Io { .. } => match directory {
                Some(directory) => format!(
                    "See what the kernel says about the disk behind {directory}: dmesg -T | tail"
                ),
                None => "See what the store says about it.".to_owned(),
            },
        };
        told.into()
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let retry = if error.is_transient() { Retry::Later } else { Retry::Never };
        let place = error.place();
        let mut shown = Self::new(error.code(), error.to_string())
            .with_hint(error.hint())
            .with_retry(retry)
            .with_pair(Key::Repository, place.url());
        if !place.path().is_empty() {
            shown = shown.with_pair(Key::Object, place.path());
        }
        match error {
            StoreError::Full { source, .. }
            | StoreError::Forbidden { source, .. }
            | StoreError::Unavailable { source, .. }
            | StoreError::Io { source, .. } => shown.with_source(source),
            _ => shown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> ObjectPlace {
        let url = "/srv/backup".parse().unwrap();
        ObjectPlace::object(&url, &ObjectPath::new("c/main/about").unwrap())
    }

    fn from_errno(errno: Errno) -> Error {
        StoreError::from_io(place(), "writing", errno.into()).into()
    }

    #[test]
    fn the_system_s_words_become_codes_a_user_can_act_on() {
        for (errno, code) in [
            (Errno::NOSPC, Code::StoreFull),
            (Errno::DQUOT, Code::StoreFull),
            (Errno::ACCESS, Code::StoreForbidden),
            (Errno::PERM, Code::StoreForbidden),
            (Errno::ROFS, Code::StoreForbidden),
            (Errno::NOENT, Code::ObjectMissing),
            (Errno::IO, Code::StoreFailed),
            (Errno::STALE, Code::StoreFailed),
        ] {
            assert_eq!(from_errno(errno).code(), code, "{errno:?}");
        }
    }

    #[test]
    fn an_error_names_the_object_the_store_and_the_cause() {
        let error = from_errno(Errno::NOSPC);
        assert_eq!(
            error.chain(),
            "no room to write c/main/about in file:///srv/backup: No space left on device (os error 28)"
        );
        assert_eq!(
            error.hint(),
            Some(&"Free space or raise the quota, then run it again: df -h /srv/backup".into())
        );
    }

    #[test]
    fn only_a_store_that_did_not_answer_is_worth_asking_again() {
        assert_eq!(from_errno(Errno::STALE).retry(), Retry::Later);
        assert_eq!(from_errno(Errno::IO).retry(), Retry::Never);
        let error = |errno: Errno| StoreError::from_io(place(), "reading", errno.into());
        assert!(error(Errno::STALE).is_transient());
        assert!(!error(Errno::IO).is_transient());
        assert!(!error(Errno::NOSPC).is_transient());
    }
}
