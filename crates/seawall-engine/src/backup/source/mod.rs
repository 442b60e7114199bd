//! The reading half of a backup.
//!
//! A source reads a cluster's content, judges it, and hands it to the packing half: once, however
//! many repositories get it. It knows nothing of them but who lacks what.

mod bundle;
mod files;
mod page_rule;
mod planner;
mod read_ahead;
mod settled;
mod task;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use seawall_core::{Code, Error, Result};
use seawall_pgdata::wal::BlockSet;
use seawall_repo::manifest::{Content, Entry, LeftOut, PageError};

use crate::cluster::FoundPath;
use crate::pace::Pace;

pub(super) use bundle::{Bundle, SmallRead};
pub(super) use files::FilesSource;
pub(super) use page_rule::{PageRule, ReplayLimit};
pub(crate) use read_ahead::{OpenFile, Piece};
pub(super) use settled::{Settled, read_settled, restless};

/// Where the content of a cluster comes from.
pub(super) trait Source {
    /// Begins to read everything, on threads of its own, and hands it over.
    ///
    /// # Errors
    /// What keeps it from beginning; what ends it later is told by [`Reading::finish`].
    fn start<P: Packing>(self, packing: P) -> Result<Reading>;
}

/// The packing half, as a source sees it. What is handed over must not wait for what has not been
/// found yet: who packs may hold a source up ([`Packing::is_far_behind`]).
pub(super) trait Packing: Send + Sync + 'static {
    /// What takes content from one thread.
    type Packer: Packer;

    /// What takes content from one more thread.
    fn packer(&self) -> Result<Self::Packer>;

    /// The next path with content, in the order of paths: whose content is to be read, and for whom.
    ///
    /// # Errors
    /// [`Code::Interrupted`] when nobody is left who wants anything.
    fn found(&self, sequence: u64, found: &FoundPath, entry: &Entry) -> Result<Lacking>;

    /// The next path, which has no content.
    ///
    /// # Errors
    /// As for [`Packing::found`].
    fn bare(&self, sequence: u64, entry: &Entry) -> Result<()>;

    /// A file comes in so many spans, each by itself.
    fn large(&self, to: &Wanted, sequence: u64, entry: &Entry, spans: u32);

    /// Whether so much is packed late that the path of this number should wait.
    fn is_far_behind(&self, sequence: u64) -> bool;
}

/// Takes the content that one thread reads.
pub(super) trait Packer: Send + 'static {
    /// Blocks of one file that have been taken so far.
    type Part: Send;

    /// Whether anybody of these still wants it.
    fn is_wanted(&self, to: &Wanted) -> bool;

    /// What came of a file whose content does not come.
    fn tell(&self, to: &Wanted, absent: &Absent);

    /// Who lacks what a small file holds. The others are told that they have it.
    fn lacking(&self, to: &Wanted, file: &SmallRead) -> Wanted;

    /// Takes small files.
    fn small(&mut self, to: &Wanted, bundle: Bundle) -> Result<()>;

    /// Begins to take blocks.
    fn begin(&self, to: &Wanted) -> Self::Part;

    /// Begins to take blocks of a file of which some have what was before.
    fn begin_onto(&mut self, to: &Wanted, before: &EachBefore) -> Self::Part;

    /// The blocks that have to come; `None` for all of them.
    fn to_read(&self, part: &Self::Part) -> Option<BlockSet>;

    /// Takes the next blocks of a file, from the one of this number on. They may be short only
    /// where the file ends. Where not all have to come some may be left out.
    fn blocks(
        &mut self,
        part: &mut Self::Part,
        path: &[u8],
        first_block: u32,
        bytes: &[u8],
    ) -> Result<()>;

    /// The blocks are a span of a large file.
    fn span(&self, part: Self::Part, span: &SpanRead);

    /// The blocks are a file, or what changed of it. Returns who must have all of it after all,
    /// because a block had changed that was only looked at.
    fn whole(&mut self, part: Self::Part, whole: &WholeRead) -> Wanted;

    /// A task is done: what waits for more to share a frame with waits no longer.
    fn flush(&mut self);

    /// To be called now and then, between parts or within those of files that come whole: ends
    /// what was written for long enough.
    fn rotate(&mut self) -> Result<()>;

    /// All that comes from this thread has come.
    fn end(&mut self) -> Result<()>;
}

/// Who wants the content of a file: of the destinations that were asked for, by their places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted(Arc<[bool]>);

impl Wanted {
    /// For each destination, whether it wants it.
    pub fn new(each: impl IntoIterator<Item = bool>) -> Self {
        Self(each.into_iter().collect())
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        !self.0.contains(&true)
    }

    /// Whether the destination at this place does.
    pub fn has(&self, place: usize) -> bool {
        self.0.get(place).copied().unwrap_or(false)
    }
}

/// Whose content is to be read, and for whom.
#[derive(Debug, Clone)]
pub(super) struct Lacking {
    /// Those who lack it.
    pub to: Wanted,
    /// What they have of it from before.
    pub before: EachBefore,
}

/// A file as a backup before has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    pub content: Content,
    pub size_bytes: u64,
    /// The blocks that may differ, within the file; `None` if any may.
    pub changed: Option<BlockSet>,
    /// Others that are looked at all the same: nothing may have changed in them.
    pub audited: BlockSet,
}

/// What each destination has of a file from before, by its place.
#[derive(Debug, Clone, Default)]
pub(super) struct EachBefore(Arc<[Option<Before>]>);

impl EachBefore {
    /// For each destination, what it has.
    pub fn new(each: impl IntoIterator<Item = Option<Before>>) -> Self {
        Self(each.into_iter().collect())
    }

    /// What the destination at this place has.
    pub fn of(&self, place: usize) -> Option<&Before> {
        self.0.get(place)?.as_ref()
    }

    /// The same, of which any block may have changed.
    pub fn doubted(&self) -> Self {
        let doubted = |before: &Option<Before>| {
            let before = before.clone()?;
            Some(Before { changed: None, audited: BlockSet::new(), ..before })
        };
        Self(self.0.iter().map(doubted).collect())
    }

    /// Whether any of these has blocks of a large file.
    pub fn has_blocks(&self, to: &Wanted) -> bool {
        let mut each = self.0.iter().enumerate();
        each.any(|(place, before)| to.has(place) && before.as_ref().is_some_and(Before::is_mapped))
    }

    /// How many blocks are to be read at the most; `None` if all are.
    pub fn blocks_to_read(&self) -> Option<u64> {
        let blocks = |before: &Option<Before>| {
            let before = before.as_ref()?;
            Some(before.changed.as_ref()?.len().saturating_add(before.audited.len()))
        };
        let each: Option<Vec<u64>> = self.0.iter().map(blocks).collect();
        each?.into_iter().max()
    }
}

impl Before {
    /// Whether it has a block map.
    pub const fn is_mapped(&self) -> bool {
        matches!(self.content, Content::Mapped { .. })
    }
}

/// A file that has no content after all. Sequence numbers count paths in their order.
#[derive(Debug, Clone)]
pub(super) enum Absent {
    /// It is empty.
    Empty { sequence: u64, entry: Entry },
    /// It changed each time it was read.
    LeftOut { sequence: u64, file: LeftOut },
    /// It vanished before it was read.
    Gone { sequence: u64 },
    /// It vanished before this span was read.
    SpanGone { sequence: u64, span: u32 },
}

/// What is known of a span, beside its blocks.
#[derive(Debug)]
pub(super) struct SpanRead {
    pub sequence: u64,
    pub number: u32,
    pub errors: Vec<PageError>,
    pub read_bytes: u64,
}

/// What is known of a file of which all was read that had to come, beside its blocks.
#[derive(Debug, Clone)]
pub(super) struct WholeRead {
    pub sequence: u64,
    pub entry: Entry,
    pub errors: Vec<PageError>,
    pub read_bytes: u64,
}

/// A source that reads. Dropping it stops its threads.
pub(super) struct Reading {
    threads: Vec<JoinHandle<Result<()>>>,
    pace: Arc<Pace>,
    read_bytes: Arc<AtomicU64>,
}

impl Reading {
    /// How many bytes of the cluster were read so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Lets the threads end where they next ask.
    pub fn stop(&self) {
        self.pace.stop();
    }

    /// Waits for the threads, and tells how many bytes were read.
    ///
    /// # Errors
    /// What made one of them fail.
    pub async fn finish(mut self) -> Result<u64> {
        let threads = std::mem::take(&mut self.threads);
        let died = || Err(Error::new(Code::Internal, "a copying thread died"));
        let joined = tokio::task::spawn_blocking(move || {
            let mut outcome = Ok(());
            for thread in threads {
                outcome = more_telling(outcome, thread.join().unwrap_or_else(|_| died()));
            }
            outcome
        });
        joined.await.unwrap_or_else(|_| died())?;
        Ok(self.read_bytes())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.pace.stop();
    }
}

/// The outcome of two threads: a thread that only stopped because another failed tells nothing.
fn more_telling(one: Result<()>, other: Result<()>) -> Result<()> {
    match (&one, &other) {
        (Ok(()), _) => other,
        (Err(error), Err(_)) if error.code() == Code::Interrupted => other,
        _ => one,
    }
}
