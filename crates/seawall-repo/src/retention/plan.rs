//! What is decided, and why. The names in JSON are stable.

use std::fmt;

use jiff::Timestamp;
use seawall_core::{BackupId, TimelineId, Ulid};
use serde::{Serialize, Serializer};

use super::Rule;
use crate::wal::LsnRange;

/// What stays and goes of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinePlan {
    /// Every backup, as far as they are in the log; those whose commits cannot be read come last.
    pub backups: Vec<BackupDecision>,
    /// Every stretch of WAL, by timeline and LSN.
    pub wal: Vec<WalDecision>,
    /// What can be restored on the timeline that is written, now and afterwards.
    pub recovery: Recovery,
    /// What can be restored now, and not afterwards.
    pub lost: Vec<Lost>,
    /// What is missing, now and afterwards, within what can be restored.
    pub gaps: Vec<Gap>,
}

impl LinePlan {
    /// The backups that go.
    pub fn going(&self) -> impl Iterator<Item = &BackupDecision> {
        self.backups.iter().filter(|backup| matches!(backup.fate, BackupFate::Go(_)))
    }

    /// The WAL that goes. An object that reaches beyond a stretch is not in it, and stays.
    pub fn going_wal(&self) -> impl Iterator<Item = (TimelineId, LsnRange)> {
        let going = self.wal.iter().filter(|wal| wal.fate == WalFate::Go);
        going.map(|wal| (wal.timeline, wal.range))
    }

    /// Whether nothing goes.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.going().next().is_none() && self.going_wal().next().is_none()
    }
}

/// What becomes of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupDecision {
    /// Its id.
    pub id: BackupName,
    /// When its commit was written, by the clock of the store; `None` if it cannot be read.
    pub written: Option<Timestamp>,
    /// Bytes the repository grew by when it was made. Others may share them.
    pub stored_bytes: Option<u64>,
    /// Whether it stays, and why.
    #[serde(flatten)]
    pub fate: BackupFate,
}

/// An id that is written as people know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackupName(pub BackupId);

impl Serialize for BackupName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a backup stays, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "fate", content = "why", rename_all = "kebab-case")]
pub enum BackupFate {
    /// It stays, for each of these reasons.
    Keep(Vec<KeepReason>),
    /// It goes.
    Go(GoReason),
}

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum KeepReason {
    /// There is no policy.
    NoPolicy,
    /// Somebody holds it.
    Held,
    /// A job that runs uses it.
    InUse {
        /// The job.
        #[serde(serialize_with = "as_text")]
        job: Ulid,
    },
    /// It is the newest good one of the line.
    LastGood,
    /// It is the newest good one that leads to the timeline that is written.
    LastGoodOfTimeline {
        /// Which that is.
        timeline: TimelineId,
    },
    /// It is the newest good one that a verification read and found whole.
    LastVerified,
    /// It is one of the newest.
    Last,
    /// It ended within the window.
    Window,
    /// It is the newest that ended before the window, of those that lead to the timeline.
    BeforeWindow {
        /// Which that is.
        timeline: TimelineId,
    },
    /// It is the first of a period.
    First {
        /// The rule.
        period: Rule,
        /// The period, such as `2026-02-29`.
        of: String,
    },
    /// It is younger than what may be kept longest.
    WithinAge,
    /// It is not good, and nothing good came after it.
    NothingBetterSince,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => f.write_str("no retention is configured"),
            Self::Held => f.write_str("held"),
            Self::InUse { job } => write!(f, "in use by job {job}"),
            Self::LastGood => f.write_str("the last good one"),
            Self::LastGoodOfTimeline { timeline } => {
                write!(f, "the last good one of timeline {timeline}")
            }
            Self::LastVerified => f.write_str("the last verified one"),
            Self::Last => f.write_str("one of the last"),
            Self::Window => f.write_str("within the window"),
            Self::BeforeWindow { timeline } => {
                write!(f, "the window of timeline {timeline} begins behind it")
            }
            Self::First { period, of } => write!(f, "{} {of}", period.word()),
            Self::WithinAge => f.write_str("younger than age"),
            Self::NothingBetterSince => f.write_str("nothing better since"),
        }
    }
}

/// Why a backup goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoReason {
    /// Somebody asked for it.
    AskedFor,
    /// It is older than what may be kept longest.
    TooOld,
    /// It is not good, and a good one came after it.
    NotGood,
    /// No rule keeps it.
    NotNeeded,
}

impl fmt::Display for GoReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AskedFor => "asked for",
            Self::TooOld => "older than age",
            Self::NotGood => "not whole, and a good one came after it",
            Self::NotNeeded => "no rule keeps it",
        })
    }
}

/// What becomes of a stretch of WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalDecision {
    /// The timeline that wrote it.
    pub timeline: TimelineId,
    /// The stretch.
    #[serde(flatten)]
    pub range: LsnRange,
    /// Whether it stays, and for what.
    #[serde(flatten)]
    pub fate: WalFate,
}

/// Whether a stretch of WAL stays, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "fate", content = "for", rename_all = "kebab-case")]
pub enum WalFate {
    /// It stays, for all of these.
    Keep(Vec<WalReason>),
    /// It goes.
    Go,
}

/// What a stretch of WAL is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "need", rename_all = "kebab-case")]
pub enum WalReason {
    /// There is no policy.
    NoPolicy,
    /// No backup leads here yet.
    NoBackupYet,
    /// What follows this backup can be restored.
    Behind {
        /// The backup.
        backup: BackupName,
    },
    /// The backup needs it to be consistent.
    Within {
        /// The backup.
        backup: BackupName,
    },
    /// A job that runs needs it.
    InUse {
        /// The job.
        #[serde(serialize_with = "as_text")]
        job: Ulid,
    },
}

impl fmt::Display for WalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => f.write_str("no retention is configured"),
            Self::NoBackupYet => f.write_str("no backup leads here yet"),
            Self::Behind { backup } => write!(f, "every moment from {backup} on"),
            Self::Within { backup } => write!(f, "{backup} itself"),
            Self::InUse { job } => write!(f, "in use by job {job}"),
        }
    }
}

fn as_text<S: Serializer>(id: &Ulid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// What can be restored on the timeline that is written, before and afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// The first moment there is, as things are.
    pub earliest_before: Option<Moment>,
    /// From where on every moment to the end can be restored, as things are.
    pub every_moment_before: Option<Moment>,
    /// The first moment there is afterwards.
    pub earliest_after: Option<Moment>,
    /// From where on every moment to the end can be restored, afterwards.
    pub every_moment_after: Option<Moment>,
}

/// The end of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// The backup.
    pub backup: BackupName,
    /// When its commit was written, by the clock of the store.
    pub at: Timestamp,
}

/// Moments that can be restored now, and not afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The timeline they are on.
    pub timeline: TimelineId,
    /// Where they are in the log.
    #[serde(flatten)]
    pub range: LsnRange,
    /// The backup that ended last before them or where they begin.
    pub after: Option<Moment>,
    /// The backup that ended first behind them; without one they reach to the end.
    pub before: Option<Moment>,
}

/// WAL that is missing behind a backup that is kept: nothing is replayed across it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The timeline.
    pub timeline: TimelineId,
    /// What is missing.
    #[serde(flatten)]
    pub range: LsnRange,
}

/// Why nothing is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What is not known; never empty.
    pub unknown: Vec<Unknown>,
}

/// Something that has to be known before anything goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// A backup's commit cannot be read.
    Commit {
        /// The backup.
        id: BackupId,
        /// Why.
        why: String,
    },
    /// A backup lies where its timeline never was.
    Place {
        /// The backup.
        id: BackupId,
    },
    /// A timeline's ancestors are not known.
    History {
        /// The timeline.
        timeline: TimelineId,
        /// Why.
        why: String,
    },
    /// An event cannot be read, and may be a hold.
    Event {
        /// Why.
        why: String,
    },
    /// What a job uses that may run cannot be read.
    Job {
        /// The job.
        id: Ulid,
    },
    /// An object has a name that this program does not know.
    Name {
        /// The name.
        path: String,
    },
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit { id, why } => write!(f, "backup {id} cannot be read: {why}"),
            Self::Place { id } => {
                write!(f, "backup {id} does not lie on the timeline it says it is on")
            }
            Self::History { timeline, why } => {
                write!(f, "where timeline {timeline} comes from is not known: {why}")
            }
            Self::Event { why } => write!(f, "whether a backup is held is not known: {why}"),
            Self::Job { id } => write!(f, "what job {id} uses cannot be read"),
            Self::Name { path } => write!(f, "{path} is no name that this program knows"),
        }
    }
}
