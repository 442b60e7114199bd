//! The packing half of a backup.
//!
//! A frame's plaintext is put together and compressed once. Each destination then hashes and seals
//! it with its own keys into packs of its own. What came of it goes to the destination's collector,
//! through a channel that holds only so much: whoever is slow slows the reading down. A destination
//! that fails is gone from then on: its collector is told why, and the others go on.

mod changes;
mod pack_sink;
mod packer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use seawall_core::{Code, Error, Result};
use seawall_repo::hash::BlockHash;
use seawall_repo::manifest::{Content, Entry, Incident, LeftOut, PageError};
use seawall_repo::map::{BlockMapBuilder, Exception};
use seawall_repo::pack::PackInfo;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::destination::{Base, FromParent, Parent, Predecessor};
use super::request::Destination;
use super::source::{Before, EachBefore, Lacking, Packing, Wanted};
use crate::cluster::FoundPath;
use packer::DestinationsPacker;

/// The scan runs at most so many paths ahead of a manifest, which bounds what is held out of order.
const PATHS_AHEAD: u64 = 20_000;

/// Results that wait to be collected.
const RESULTS_WAITING: usize = 256;

/// What came of the work, for a destination's collector. Sequence numbers count paths in their
/// order.
#[derive(Debug)]
pub(super) enum Packed {
    /// A path without content of its own, or with content that is in the repository already.
    Entry { sequence: u64, entry: Entry, had: Option<Had> },
    /// A large file was begun; its spans follow.
    Large { sequence: u64, entry: Entry, spans: u32 },
    /// A small file is in a frame.
    Small { sequence: u64, entry: Entry, errors: Vec<PageError>, read_bytes: u64 },
    /// A span is in frames.
    Span { sequence: u64, span: u32, blocks: Blocks, errors: Vec<PageError>, read_bytes: u64 },
    /// A large file is in frames, all of it.
    Whole { sequence: u64, entry: Entry, blocks: Blocks, errors: Vec<PageError>, read_bytes: u64 },
    /// What changed of a large file is in delta frames.
    Changed {
        sequence: u64,
        entry: Entry,
        base: Box<Base>,
        exceptions: Vec<Exception>,
        errors: Vec<PageError>,
        read_bytes: u64,
    },
    /// A block that no record of the log names is not as it should be.
    Incident(Incident),
    /// A file changed each time it was read.
    LeftOut { sequence: u64, file: LeftOut },
    /// A file vanished before it was read.
    Gone { sequence: u64 },
    /// A large file vanished before this span was read.
    SpanGone { sequence: u64, span: u32 },
    /// A pack is durable.
    Pack(PackInfo),
    /// Nothing more comes: the destination failed.
    Failed(Error),
}

/// Whence a repository had a file already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Had {
    /// An attempt that died had finished it.
    FromPredecessor,
    /// It is as it was in the backup that this one leads on from.
    FromParent,
}

/// Where consecutive blocks are in one repository, and what their hashes are there.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pub map: BlockMapBuilder,
    pub hashes: Vec<BlockHash>,
}

/// A destination that packs.
pub(super) struct PackingInto {
    /// The destination.
    pub destination: Arc<Destination>,
    /// What need not be read for it.
    pub predecessor: Option<Predecessor>,
    /// The backup that this one leads on from.
    pub parent: Option<Arc<Parent>>,
    /// How many paths its manifest has; its collector counts.
    pub emitted: Arc<AtomicU64>,
    results: mpsc::Sender<Packed>,
}

/// What a destination has of a file.
enum Known {
    Nothing,
    Had(Had, Content),
    Before(Before),
}

impl PackingInto {
    /// A destination to pack for, and what comes for its collector.
    pub fn new(
        destination: Arc<Destination>,
        predecessor: Option<Predecessor>,
        parent: Option<Arc<Parent>>,
        emitted: Arc<AtomicU64>,
    ) -> (Self, mpsc::Receiver<Packed>) {
        let (results, collected) = mpsc::channel(RESULTS_WAITING);
        (Self { destination, predecessor, parent, emitted, results }, collected)
    }

    /// What the destination has of a file already.
    fn known(&self, found: &FoundPath) -> Known {
        if let Some(content) = self.predecessor.as_ref().and_then(|it| it.content(found)) {
            return Known::Had(Had::FromPredecessor, content);
        }
        match self.parent.as_ref().map(|parent| parent.file(found)) {
            None | Some(FromParent::Nothing) => Known::Nothing,
            Some(FromParent::Same(content)) => Known::Had(Had::FromParent, content),
            Some(FromParent::Before(before)) => Known::Before(before),
        }
    }

    /// A destination that has failed has nobody who collects.
    fn is_gone(&self) -> bool {
        self.results.is_closed()
    }
}

/// The packing half, for every destination. Its threads are those of the source.
pub(super) struct DestinationsPacking {
    all: Vec<PackingInto>,
    runtime: Handle,
}

impl DestinationsPacking {
    /// Packs for all of these. Must be called within a tokio runtime.
    pub fn new(all: Vec<PackingInto>) -> Self {
        Self { all, runtime: Handle::current() }
    }

    fn refuse_nobody(&self) -> Result<()> {
        if self.all.iter().all(PackingInto::is_gone) {
            return Err(Error::new(Code::Interrupted, "no destination is left"));
        }
        Ok(())
    }
}

impl Packing for DestinationsPacking {
    type Packer = DestinationsPacker;

    fn packer(&self) -> Result<DestinationsPacker> {
        DestinationsPacker::new(&self.all, self.runtime.clone())
    }

    fn found(&self, sequence: u64, found: &FoundPath, entry: &Entry) -> Result<Lacking> {
        self.refuse_nobody()?;
        let (mut to, mut before) = (Vec::new(), Vec::new());
        for into in &self.all {
            let (lacks, known) = match into.known(found) {
                Known::Nothing => (!into.is_gone(), None),
                Known::Before(before) => (!into.is_gone(), Some(before)),
                Known::Had(had, content) => {
                    let entry = Entry { content: Some(content), ..entry.clone() };
                    let packed = Packed::Entry { sequence, entry, had: Some(had) };
                    hand_over(&into.results, packed);
                    (false, None)
                }
            };
            to.push(lacks);
            before.push(known);
        }
        Ok(Lacking { to: Wanted::new(to), before: EachBefore::new(before) })
    }

    fn bare(&self, sequence: u64, entry: &Entry) -> Result<()> {
        self.refuse_nobody()?;
        for into in &self.all {
            let entry = entry.clone();
            hand_over(&into.results, Packed::Entry { sequence, entry, had: None });
        }
        Ok(())
    }

    fn large(&self, to: &Wanted, sequence: u64, entry: &Entry, spans: u32) {
        let wanted = self.all.iter().enumerate().filter(|(place, _)| to.has(*place));
        for (_, into) in wanted {
            let entry = entry.clone();
            hand_over(&into.results, Packed::Large { sequence, entry, spans });
        }
    }

    fn is_far_behind(&self, sequence: u64) -> bool {
        let emitted = |into: &PackingInto| into.emitted.load(Ordering::Relaxed);
        let slowest = self.all.iter().filter(|into| !into.is_gone()).map(emitted).min();
        slowest.is_some_and(|emitted| sequence >= emitted + PATHS_AHEAD)
    }
}

/// Hands a result to a destination's collector, when that has room for it. One that is gone has
/// told why.
fn hand_over(to: &mpsc::Sender<Packed>, packed: Packed) {
    let _ = to.blocking_send(packed);
}
