use std::fmt;
use std::str::FromStr;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::{SystemId, error::Result};

pub use ulid::Ulid;

/// A name is not usable as a cluster or repository name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName(pub String);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not a name: use 1 to 63 of a-z, 0-9, - and _, beginning with a letter or digit",
            self.0
        )
    }
}

impl std::error::Error for InvalidName {}

/// The name a user gave a cluster. Lower-case so that it is one directory on every store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ClusterName(String);

impl ClusterName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClusterName {
    type Err = InvalidName;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidName> {
        let first =
            text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if first && rest && text.len() <= 63 {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.to_owned()))
        }
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl TryFrom<String> for ClusterName {
    type Error = InvalidName;

    fn try_from(text: String) -> std::result::Result<Self, InvalidName> {
        text.parse()
    }
}

/// Tells apart lines of history that share a system identifier: 0 is the first seen, later ones
/// are adopted snapshots or clones.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BranchNumber(pub u32);

/// One line of history: a system identifier and a branch. WAL bytes are immutable within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineId {
    /// What `initdb` gave the cluster.
    pub system_id: SystemId,
    /// Which of the lines with that identifier.
    pub branch: BranchNumber,
}

impl fmt::Display for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.system_id, self.branch.0)
    }
}

impl FromStr for LineId {
    type Err = InvalidName;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidName> {
        let parse = || {
            let (system_id, branch) = text.split_once('-')?;
            Some(Self {
                system_id: SystemId(system_id.parse().ok()?),
                branch: BranchNumber(branch.parse().ok()?),
            })
        };
        parse().filter(|line| line.to_string() == text).ok_or_else(|| InvalidName(text.to_owned()))
    }
}

/// A backup's id: unique as a ULID, shown short as `20260102T0200-k7q2`.
///
/// The short form is the UTC minute in the ULID and the last four of its random characters. It is
/// a handle for people, resolved against the backups that exist; objects are named by the ULID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(pub Ulid);

impl BackupId {
    /// A new id whose short form shows `now`.
    ///
    /// # Errors
    /// Never for times after 1970; kept fallible so that a broken clock is told.
    pub fn new(now: Timestamp, random: u128) -> Result<Self> {
        let ms = u64::try_from(now.as_millisecond()).map_err(|_| {
            crate::Error::new(crate::Code::Internal, "the system clock stands before 1970")
        })?;
        Ok(Self(Ulid::from_parts(ms, random)))
    }

    /// When the backup began, by the clock of the host that made it.
    #[must_use]
    pub fn created_at(self) -> Timestamp {
        i64::try_from(self.0.timestamp_ms())
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Whether `text` names this backup: a prefix of its short form, or the whole ULID.
    #[must_use]
    pub fn matches(self, text: &str) -> bool {
        !text.is_empty()
            && (self.to_string().starts_with(text) || self.0.to_string().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minute = self.created_at().to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M");
        let text = self.0.to_string().to_ascii_lowercase();
        write!(f, "{minute}-{}", text.get(text.len().saturating_sub(4)..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backup_ids_are_short_and_readable() {
        let time: Timestamp = "2026-01-02T02:00:59Z".parse().unwrap_or(Timestamp::UNIX_EPOCH);
        let id = BackupId::new(time, 0x000A_BCDE).ok();
        let text = id.map(|id| id.to_string()).unwrap_or_default();
        assert_eq!(text, "20260102T0200-nf6y");
        assert!(id.is_some_and(|id| id.matches("20260102T0200-nf") && !id.matches("")));
    }

    #[test]
    fn cluster_names_are_one_plain_path_component() {
        for name in ["main", "1st", "a-b_c"] {
            assert!(name.parse::<ClusterName>().is_ok(), "{name}");
        }
        let long = "a".repeat(64);
        for name in ["", "-a", "_a", "Main", "a/b", "..", "a b", "é", long.as_str()] {
            assert!(name.parse::<ClusterName>().is_err(), "{name}");
        }
    }

    #[test]
    fn line_ids_have_one_spelling() {
        assert!("7234567890123456789-0".parse::<LineId>().is_ok());
        for text in ["7-00", "07-0", "7", "-0", "7-", "+7-0"] {
            assert!(text.parse::<LineId>().is_err(), "{text}");
        }
    }
}
