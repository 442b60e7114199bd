//! What a source's threads are given to do.

use std::path::PathBuf;

use seawall_core::BlockNumber;
use seawall_repo::manifest::Entry;

use super::{EachBefore, Wanted};

/// Files up to this size share frames with others.
pub(super) const SMALL_FILE_BYTES: u64 = 64 * 1024;

/// A large file is copied in spans of this size, so that all workers can share one.
pub(super) const SPAN_BYTES: u64 = SPAN_STEP as u64;

/// The same, as steps are counted.
pub(super) const SPAN_STEP: usize = 32 << 20;

/// A piece of work.
#[derive(Debug)]
pub(super) struct Task {
    /// Who wants what comes of it.
    pub to: Wanted,
    pub what: Work,
}

/// What there is to be done.
#[derive(Debug)]
pub(super) enum Work {
    /// Small files for one frame.
    Small(Vec<FoundFile>),
    /// A large file that has to be read as it is at one moment, by one worker.
    Settled(FoundFile),
    /// A span of a large file.
    Span(Span),
    /// Large files of which some have what was before.
    Changed(Vec<FoundFile>),
}

/// A file, as it was found.
#[derive(Debug)]
pub(super) struct FoundFile {
    pub sequence: u64,
    pub location: PathBuf,
    pub rule: CopyRule,
    pub entry: Entry,
    /// What each destination has of it from before.
    pub before: EachBefore,
}

/// What makes the copy of a file right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyRule {
    /// Replay does, page by page. It has the length with which it was found; the number within the
    /// relation of its first page is absent for what is not a relation.
    Replayed { relation_block: Option<BlockNumber> },
    /// Only that it was so at one moment. A file that is PostgreSQL's own must be had.
    Settled { is_own: bool },
}

impl CopyRule {
    /// The number of the first page, for what is made of pages that can be judged.
    pub const fn relation_block(self) -> Option<BlockNumber> {
        match self {
            Self::Replayed { relation_block } => relation_block,
            Self::Settled { .. } => None,
        }
    }
}

/// A part of a large file.
#[derive(Debug)]
pub(super) struct Span {
    pub sequence: u64,
    pub number: u32,
    pub location: PathBuf,
    pub path: Vec<u8>,
    pub relation_block: Option<BlockNumber>,
    pub offset: u64,
    pub length: u64,
}
