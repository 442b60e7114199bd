use std::mem;
use std::sync::Arc;

use futures_util::future::join_all;
use seawall_core::{Error, Result};
use seawall_pgdata::page::is_all_zero;
use seawall_pgdata::wal::BlockSet;
use seawall_repo::envelope::Compressor;
use seawall_repo::hash::{BlockHash, ContentHasher, FullBlockHash};
use seawall_repo::manifest::{Content, Entry, Incident, IncidentKind};
use seawall_repo::pack::{BLOCK_BYTES, FRAME_BLOCKS, FrameBody, FramePayload};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::changes::{Changes, SmallNow, is_worth_changing, small_now};
use super::pack_sink::{PackSink, Placed};
use super::{Blocks, Packed, PackingInto, hand_over};
use crate::backup::destination::Parent;
use crate::backup::source::{
    Absent, Bundle, EachBefore, Packer, SmallRead, SpanRead, Wanted, WholeRead,
};

/// Blocks of a full frame.
const BLOCKS_OF_A_FRAME: usize = FRAME_BLOCKS as usize;

/// Packs what one thread reads, for every destination.
pub(in crate::backup) struct DestinationsPacker {
    runtime: Handle,
    /// One for each level that some destination wants.
    compressions: Vec<Compression>,
    /// One for each destination, by its place; `None` once it is gone.
    sinks: Vec<Option<Sink>>,
    /// Of the frame that is packed now, with the keys of one destination.
    hashes: Vec<FullBlockHash>,
}

/// Frames as they are compressed at one level.
struct Compression {
    level: i32,
    compressor: Compressor,
    body: FrameBody,
}

/// Where one destination's frames go.
struct Sink {
    results: mpsc::Sender<Packed>,
    hasher: ContentHasher,
    packs: PackSink,
    level: i32,
    parent: Option<Arc<Parent>>,
    changes: Changes,
}

/// Blocks that were packed, for those who wanted them.
pub(in crate::backup) struct Part {
    to: Wanted,
    /// Who has nothing of it from before: of these, by the place of the destination.
    anew: Wanted,
    each: Vec<Blocks>,
    /// The numbers of the file for the others.
    onto: Vec<Option<usize>>,
}

impl DestinationsPacker {
    pub(super) fn new(all: &[PackingInto], runtime: Handle) -> Result<Self> {
        let mut compressions: Vec<Compression> = Vec::new();
        let mut sinks = Vec::new();
        for into in all {
            let destination = &into.destination;
            let level = destination.compression_level;
            if !compressions.iter().any(|known| known.level == level) {
                let compressor = Compressor::new(level)?;
                compressions.push(Compression { level, compressor, body: FrameBody::new() });
            }
            sinks.push(Some(Sink {
                results: into.results.clone(),
                hasher: destination.line.keyring().hasher().clone(),
                packs: PackSink::new(destination.line.clone(), destination.pack_bytes),
                level,
                parent: into.parent.clone(),
                changes: Changes::new(level)?,
            }));
        }
        Ok(Self { runtime, compressions, sinks, hashes: Vec::new() })
    }

    /// Puts a frame into a pack of each destination that wants it. `blocks` are those of the
    /// payload; where it lies and what its hashes are is told to `placed`.
    fn frame<'b>(
        &mut self,
        to: &Wanted,
        (what, payload): (FramePayload<'_>, &[u8]),
        blocks: &(impl Iterator<Item = &'b [u8]> + Clone),
        placed: &mut dyn FnMut(usize, Placed, &[FullBlockHash]),
    ) -> Result<()> {
        self.lose_those_gone();
        self.serve(|place, packs| to.has(place) && packs.needs_pack(), &PackSink::begin);
        for compression in &mut self.compressions {
            let level = compression.level;
            if wanting(&self.sinks, to).any(|(_, sink)| sink.level == level) {
                compression.body.fill(what, payload, &mut compression.compressor)?;
            }
        }
        let mut failed = Vec::new();
        for (place, sink) in self.sinks.iter_mut().enumerate() {
            let Some(sink) = sink.as_mut().filter(|_| to.has(place)) else { continue };
            let Some(compression) = self.compressions.iter().find(|it| it.level == sink.level)
            else {
                continue;
            };
            self.hashes.clear();
            self.hashes.extend(blocks.clone().map(|block| sink.hasher.block(block)));
            match sink.packs.frame(&compression.body, &self.hashes) {
                Ok(frame) => placed(place, frame, &self.hashes),
                Err(error) => failed.push((place, error)),
            }
        }
        failed.into_iter().for_each(|(place, error)| self.lose(place, error));
        self.serve(|place, packs| to.has(place) && packs.has_part(), &PackSink::write_part);
        Ok(())
    }

    /// Takes blocks for those who have what was before.
    fn changed_blocks(
        &mut self,
        onto: &[Option<usize>],
        (path, first_block): (&[u8], u32),
        bytes: &[u8],
    ) -> Result<()> {
        for (place, file) in onto.iter().enumerate() {
            let Some(file) = *file else { continue };
            for (block, bytes) in (first_block..).zip(bytes.chunks(BLOCK_BYTES)) {
                let is_full = |sink: &Sink| sink.changes.is_full(path);
                if self.sinks.get(place).and_then(Option::as_ref).is_some_and(is_full) {
                    self.seal_changes(place);
                }
                let Some(Some(sink)) = self.sinks.get_mut(place) else { break };
                sink.changes.block(file, (path, block), bytes, &sink.hasher)?;
            }
        }
        Ok(())
    }

    /// Puts the changed blocks that wait into a frame.
    fn seal_changes(&mut self, place: usize) {
        self.serve(|at, packs| at == place && packs.needs_pack(), &PackSink::begin);
        let Some(Some(sink)) = self.sinks.get_mut(place) else { return };
        if let Err(error) = sink.changes.seal(&mut sink.packs) {
            self.lose(place, error);
        }
        self.serve(|at, packs| at == place && packs.has_part(), &PackSink::write_part);
    }

    /// Does what some packs need of their stores, for all of these at once: the slowest takes as
    /// long as all.
    fn serve<T>(
        &mut self,
        needs: impl Fn(usize, &PackSink) -> bool,
        act: &impl AsyncFn(&mut PackSink) -> Result<T>,
    ) -> Vec<(usize, T)> {
        let acting: Vec<_> = self
            .sinks
            .iter_mut()
            .enumerate()
            .filter_map(|(place, sink)| sink.as_mut().map(|sink| (place, sink)))
            .filter(|(place, sink)| needs(*place, &sink.packs))
            .map(async |(place, sink)| (place, act(&mut sink.packs).await))
            .collect();
        if acting.is_empty() {
            return Vec::new();
        }
        let mut done = Vec::new();
        for (place, outcome) in self.runtime.block_on(join_all(acting)) {
            match outcome {
                Ok(outcome) => done.push((place, outcome)),
                Err(error) => self.lose(place, error),
            }
        }
        done
    }

    /// Finishes some packs, for all of these at once, and hands them to their destinations.
    fn finish(&mut self, which: impl Fn(&PackSink) -> bool) {
        self.lose_those_gone();
        for (place, pack) in self.serve(|_, packs| which(packs), &PackSink::finish) {
            pack.into_iter().for_each(|pack| self.give(place, Packed::Pack(pack)));
        }
    }

    /// Hands a result to a destination that is still there.
    fn give(&self, place: usize, packed: Packed) {
        if let Some(Some(sink)) = self.sinks.get(place) {
            hand_over(&sink.results, packed);
        }
    }

    /// Goes on without a destination.
    fn lose(&mut self, place: usize, error: Error) {
        self.give(place, Packed::Failed(error));
        if let Some(sink) = self.sinks.get_mut(place) {
            *sink = None;
        }
    }

    /// Packs nothing any more for who has failed elsewhere.
    fn lose_those_gone(&mut self) {
        for sink in &mut self.sinks {
            *sink = sink.take().filter(|sink| !sink.results.is_closed());
        }
    }
}

/// The destinations that want something and are still there, by their places.
fn wanting<'s>(sinks: &'s [Option<Sink>], to: &Wanted) -> impl Iterator<Item = (usize, &'s Sink)> {
    let there = sinks.iter().enumerate().filter(|(place, _)| to.has(*place));
    there.filter_map(|(place, sink)| sink.as_ref().map(|sink| (place, sink)))
}

impl Packer for DestinationsPacker {
    type Part = Part;

    fn is_wanted(&self, to: &Wanted) -> bool {
        wanting(&self.sinks, to).any(|(_, sink)| !sink.results.is_closed())
    }

    fn tell(&self, to: &Wanted, absent: &Absent) {
        for (_, sink) in wanting(&self.sinks, to) {
            hand_over(&sink.results, absent.clone().into());
        }
    }

    fn small(&mut self, to: &Wanted, bundle: Bundle) -> Result<()> {
        let each = bundle.files.iter().map(|file| bundle.bytes(file));
        let blocks = each.flat_map(|bytes| bytes.chunks(BLOCK_BYTES));
        let mut there: Vec<(usize, Vec<Packed>)> = Vec::new();
        let what = FramePayload::Blob { files: &bundle.names };
        self.frame(to, (what, &bundle.payload), &blocks, &mut |place, frame, hashes| {
            there.push((place, packed_files(&bundle, frame, hashes)));
        })?;
        for (place, files) in there {
            files.into_iter().for_each(|file| self.give(place, file));
        }
        Ok(())
    }

    fn lacking(&self, to: &Wanted, file: &SmallRead) -> Wanted {
        Wanted::new((0..self.sinks.len()).map(|place| {
            let Some(Some(sink)) = self.sinks.get(place).filter(|_| to.has(place)) else {
                return false;
            };
            let Some((before, parent)) = file.before.of(place).zip(sink.parent.as_ref()) else {
                return true;
            };
            let (incidents, is_lacking) = match small_now(before, file, parent.window, &sink.hasher)
            {
                SmallNow::Anew { incidents } => (incidents, true),
                SmallNow::Kept { errors, incidents } => {
                    let content = Some(before.content.clone());
                    let entry = Entry { content, ..file.entry.clone() };
                    let SmallRead { sequence, read_bytes, .. } = *file;
                    let kept = Packed::Small { sequence, entry, errors, read_bytes };
                    hand_over(&sink.results, kept);
                    (incidents, false)
                }
            };
            tell_incidents(sink, incidents);
            is_lacking
        }))
    }

    fn begin(&self, to: &Wanted) -> Part {
        let each = self.sinks.iter().map(|_| Blocks::default()).collect();
        Part { to: to.clone(), anew: to.clone(), each, onto: Vec::new() }
    }

    fn begin_onto(&mut self, to: &Wanted, before: &EachBefore) -> Part {
        let mut part = self.begin(to);
        let mut begin = |(place, sink): (usize, &mut Option<Sink>)| {
            let sink = sink.as_mut().filter(|_| to.has(place))?;
            let base = sink.parent.as_ref()?.base(before.of(place)?)?;
            is_worth_changing(&base).then(|| sink.changes.begin(base))
        };
        part.onto = self.sinks.iter_mut().enumerate().map(&mut begin).collect();
        let is_anew = |(place, onto): (usize, &Option<usize>)| to.has(place) && onto.is_none();
        part.anew = Wanted::new(part.onto.iter().enumerate().map(is_anew));
        part
    }

    fn to_read(&self, part: &Part) -> Option<BlockSet> {
        if !part.anew.is_empty() {
            return None;
        }
        let mut all = BlockSet::new();
        for (sink, file) in self.sinks.iter().zip(&part.onto) {
            if let (Some(sink), Some(file)) = (sink, file)
                && !sink.changes.reads_into(*file, &mut all)
            {
                return None;
            }
        }
        Some(all)
    }

    /// Zero blocks are stored nowhere and end a frame.
    fn blocks(
        &mut self,
        part: &mut Part,
        path: &[u8],
        first_block: u32,
        bytes: &[u8],
    ) -> Result<()> {
        let Part { anew, each, onto, .. } = part;
        self.changed_blocks(onto, (path, first_block), bytes)?;
        if anew.is_empty() {
            return Ok(());
        }
        let (mut number, mut rest) = (first_block, bytes);
        while !rest.is_empty() {
            let (stretch, after) = stretch(rest);
            rest = after;
            let blocks = stretch.bytes.chunks(BLOCK_BYTES);
            // At most a frame's.
            let count = u32::try_from(blocks.len()).unwrap_or(FRAME_BLOCKS);
            if stretch.is_zero {
                for blocks in each.iter_mut() {
                    blocks.map.zero(count);
                    blocks.hashes.extend(std::iter::repeat_n([0; 8], count as usize));
                }
            } else {
                let what = FramePayload::Base { path, first_block: number };
                self.frame(anew, (what, stretch.bytes), &blocks, &mut |place, frame, hashes| {
                    let Some(blocks) = each.get_mut(place) else { return };
                    blocks.map.frame(count, frame.pack, frame.frame);
                    blocks.hashes.extend(hashes.iter().map(FullBlockHash::short));
                })?;
            }
            number = number.saturating_add(count);
        }
        Ok(())
    }

    fn span(&self, mut part: Part, span: &SpanRead) {
        let &SpanRead { sequence, number, ref errors, read_bytes } = span;
        for (place, sink) in wanting(&self.sinks, &part.to) {
            let blocks = part.each.get_mut(place).map(mem::take).unwrap_or_default();
            let (span, errors) = (number, errors.clone());
            let packed = Packed::Span { sequence, span, blocks, errors, read_bytes };
            hand_over(&sink.results, packed);
        }
    }

    fn whole(&mut self, mut part: Part, whole: &WholeRead) -> Wanted {
        for (place, sink) in wanting(&self.sinks, &part.anew) {
            let blocks = part.each.get_mut(place).map(mem::take).unwrap_or_default();
            let WholeRead { sequence, entry, errors, read_bytes } = whole.clone();
            let packed = Packed::Whole { sequence, entry, blocks, errors, read_bytes };
            hand_over(&sink.results, packed);
        }
        let onto = part.onto.into_iter().chain(std::iter::repeat(None));
        Wanted::new(self.sinks.iter_mut().zip(onto).map(|(sink, file)| {
            let (Some(sink), Some(file)) = (sink, file) else { return false };
            if let Some((map, blocks)) = sink.changes.doubtful(file)
                && let Some(parent) = &sink.parent
            {
                let changed = parent.changed_since_stored(map, blocks);
                sink.changes.add_unmarked(file, changed);
            }
            let incidents = sink.changes.end(file, whole.clone());
            let again = incidents.iter().any(|it| it.kind == IncidentKind::Unmarked);
            tell_incidents(sink, incidents);
            again
        }))
    }

    /// Ends the files of which some blocks changed.
    fn flush(&mut self) {
        for place in 0..self.sinks.len() {
            let waits = |sink: &Sink| sink.changes.has_blocks();
            if self.sinks.get(place).and_then(Option::as_ref).is_some_and(waits) {
                self.seal_changes(place);
            }
            let Some(Some(sink)) = self.sinks.get_mut(place) else { continue };
            let files: Vec<Packed> = sink.changes.take_files().collect();
            files.into_iter().for_each(|file| self.give(place, file));
        }
    }

    fn rotate(&mut self) -> Result<()> {
        self.finish(PackSink::is_full);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.finish(|packs| !packs.needs_pack());
        Ok(())
    }
}

fn tell_incidents(sink: &Sink, incidents: Vec<Incident>) {
    incidents.into_iter().for_each(|it| hand_over(&sink.results, Packed::Incident(it)));
}

/// Blocks that are all zero, or that go into one frame.
struct Stretch<'b> {
    bytes: &'b [u8],
    is_zero: bool,
}

/// The first stretch of blocks, and the bytes behind it.
fn stretch(bytes: &[u8]) -> (Stretch<'_>, &[u8]) {
    let first = bytes.get(..BLOCK_BYTES).unwrap_or(bytes);
    let is_zero = is_all_zero(first);
    let mut blocks = bytes.chunks(BLOCK_BYTES).take(BLOCKS_OF_A_FRAME);
    let alike = if is_zero { 1 } else { blocks.position(is_all_zero).unwrap_or(BLOCKS_OF_A_FRAME) };
    let (bytes, rest) = bytes.split_at(bytes.len().min(alike * BLOCK_BYTES));
    (Stretch { bytes, is_zero }, rest)
}

/// What is told of the files of a bundle that lies in a frame.
fn packed_files(bundle: &Bundle, placed: Placed, hashes: &[FullBlockHash]) -> Vec<Packed> {
    let mut hashes = hashes.iter();
    let packed = bundle.files.iter().map(|file| {
        let blocks = bundle.bytes(file).chunks(BLOCK_BYTES);
        let of_block = |(block, hash): (&[u8], &FullBlockHash)| as_stored(block, hash);
        let hashes = blocks.zip(hashes.by_ref()).flat_map(of_block).collect();
        let (pack, frame, offset) = (placed.pack, placed.frame, file.offset);
        let content = Some(Content::Blob { pack, frame, offset, hashes });
        Packed::Small {
            sequence: file.sequence,
            entry: Entry { content, ..file.entry.clone() },
            errors: file.errors.clone(),
            read_bytes: file.read_bytes,
        }
    });
    packed.collect()
}

/// A block's hash as metadata has it.
fn as_stored(block: &[u8], hash: &FullBlockHash) -> BlockHash {
    if is_all_zero(block) { [0; 8] } else { hash.short() }
}

impl From<Absent> for Packed {
    fn from(absent: Absent) -> Self {
        match absent {
            Absent::Empty { sequence, entry } => Self::Entry { sequence, entry, had: None },
            Absent::LeftOut { sequence, file } => Self::LeftOut { sequence, file },
            Absent::Gone { sequence } => Self::Gone { sequence },
            Absent::SpanGone { sequence, span } => Self::SpanGone { sequence, span },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stretches of some blocks, each given by its first byte: their lengths, and whether they
    /// are zero.
    fn stretches(blocks: &[u8], last_bytes: usize) -> Vec<(usize, bool)> {
        let mut bytes: Vec<u8> =
            blocks.iter().flat_map(|first| std::iter::repeat_n(*first, BLOCK_BYTES)).collect();
        bytes.truncate((blocks.len() - 1) * BLOCK_BYTES + last_bytes);
        let (mut found, mut rest) = (Vec::new(), bytes.as_slice());
        while !rest.is_empty() {
            let (stretch, after) = stretch(rest);
            found.push((stretch.bytes.len(), stretch.is_zero));
            rest = after;
        }
        found
    }

    #[test]
    fn a_zero_block_ends_a_frame_and_so_does_its_length() {
        const B: usize = BLOCK_BYTES;
        assert_eq!(stretches(&[1], 5), [(5, false)]);
        assert_eq!(stretches(&[0], 5), [(5, true)]);
        assert_eq!(
            stretches(&[1, 1, 0, 0, 2], B),
            [(2 * B, false), (B, true), (B, true), (B, false)]
        );
        assert_eq!(stretches(&[1; 17], 9), [(16 * B, false), (9, false)]);
        assert_eq!(stretches(&[&[1; 16][..], &[0]].concat(), B), [(16 * B, false), (B, true)]);
    }
}
