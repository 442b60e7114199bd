use std::fs::File;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use seawall_core::{BlockNumber, Code, Error, Result};
use seawall_pgdata::page::{PAGE_BYTES, Page, is_all_zero};
use seawall_repo::hash::{BlockHash, ContentHasher, FullBlockHash};
use seawall_repo::manifest::{Entry, LeftOut, PageError};
use seawall_repo::map::BlockMapBuilder;
use seawall_repo::pack::{BLOCK_BYTES, FRAME_BLOCKS, FramePayload};
use seawall_store::direct::AlignedBuffer;

use super::bundle::{Bundle, Bundled, short_hash};
use super::copy::{
    Copied, CopyRule, SMALL_FILE_BYTES, SPAN_BYTES, SPAN_STEP, SmallFile, Span, Task,
};
use super::pack_sink::PackSink;
use super::page_rule::PageRule;
use super::settled::{ATTEMPTS, Settled, describe, is_unchanged, pause, read_settled, restless};
use super::source::{Source, read_at, unreadable};
use crate::pace::Pace;

/// How often a large file is stored that changes while it is: what is in a pack stays there.
const COPIES_MAX: u32 = 3;

/// Reads files, judges their pages and puts them into frames.
pub(super) struct Worker {
    rule: Arc<PageRule>,
    pace: Arc<Pace>,
    hasher: ContentHasher,
    sink: PackSink,
    buffers: Vec<AlignedBuffer>,
}

/// Where a piece of a file was read from, and what its pages are called.
struct Place<'f> {
    file: &'f File,
    path: &'f [u8],
    /// The number within the relation of the file's first page; `None` for what is not a relation.
    relation_block: Option<BlockNumber>,
    offset: u64,
}

/// Who is told what came of the work.
pub(super) type Done<'d> = &'d mut dyn FnMut(Copied) -> Result<()>;

/// What came of reading a file that was found to be small.
enum Read {
    Small(Bundled),
    /// It has grown.
    Larger(SmallFile),
    /// It has no content to store.
    None(Copied),
}

/// One way through a large file.
#[derive(Default)]
struct Pass {
    map: BlockMapBuilder,
    hashes: Vec<BlockHash>,
    read_bytes: u64,
}

/// Reads a small file as it is at one moment.
fn settled(file: SmallFile, is_own: bool) -> Result<Read> {
    let sequence = file.sequence;
    Ok(match read_settled(&file.location, SMALL_FILE_BYTES)? {
        Settled::Gone => Read::None(Copied::Gone { sequence }),
        Settled::Larger => Read::Larger(file),
        Settled::Restless => Read::None(left_out(sequence, file.entry, &file.location, is_own)?),
        Settled::Content(bytes, read) => {
            let (read_bytes, mut entry) = (bytes.len() as u64, file.entry);
            describe(&mut entry, read_bytes, &read);
            if bytes.is_empty() {
                return Ok(Read::None(Copied::Entry { sequence, entry, reused: false }));
            }
            Read::Small(Bundled { sequence, entry, bytes, errors: Vec::new(), read_bytes })
        }
    })
}

/// What is said of a file that changed each time it was read.
fn left_out(sequence: u64, entry: Entry, location: &Path, is_own: bool) -> Result<Copied> {
    if is_own {
        return Err(restless(location));
    }
    let reason = format!("it changed each of the {ATTEMPTS} times that it was read");
    Ok(Copied::LeftOut { sequence, file: LeftOut { path: entry.path, reason } })
}

impl Worker {
    pub fn new(
        rule: Arc<PageRule>,
        pace: Arc<Pace>,
        hasher: ContentHasher,
        sink: PackSink,
    ) -> Self {
        Self { rule, pace, hasher, sink, buffers: Vec::new() }
    }

    /// Does one task and hands over what came of it.
    pub fn work(&mut self, task: Task, done: Done<'_>) -> Result<()> {
        match task {
            Task::Small(files) => self.small_files(files, done)?,
            Task::Settled(file) => self.large_settled(file, done)?,
            Task::Span(span) => self.span(&span, done)?,
        }
        match self.sink.rotate()? {
            Some(pack) => done(Copied::Pack(pack)),
            None => Ok(()),
        }
    }

    /// Finishes the open pack.
    pub fn end(&mut self, done: Done<'_>) -> Result<()> {
        match self.sink.finish()? {
            Some(pack) => done(Copied::Pack(pack)),
            None => Ok(()),
        }
    }

    /// Bundles small files into one frame, or more if they have grown.
    fn small_files(&mut self, files: Vec<SmallFile>, done: Done<'_>) -> Result<()> {
        let mut bundle = Bundle::default();
        let mut larger = Vec::new();
        for file in files {
            let read = match file.rule {
                CopyRule::Replayed { .. } => self.replayed(file)?,
                CopyRule::Settled { is_own } => settled(file, is_own)?,
            };
            match read {
                Read::Small(file) => {
                    self.pace.take(file.read_bytes)?;
                    if !bundle.has_room_for(&file) {
                        mem::take(&mut bundle).store(&mut self.sink, done)?;
                    }
                    bundle.add(file, &self.hasher)?;
                }
                Read::Larger(file) => larger.push(file),
                Read::None(copied) => done(copied)?,
            }
        }
        bundle.store(&mut self.sink, done)?;
        larger.into_iter().try_for_each(|file| self.large_settled(file, done))
    }

    /// A file with the length with which it was found, its pages judged.
    fn replayed(&self, file: SmallFile) -> Result<Read> {
        let SmallFile { sequence, location, rule, entry } = file;
        let Some(source) = Source::open(&location)? else {
            return Ok(Read::None(Copied::Gone { sequence }));
        };
        let mut bytes = vec![0; narrow(entry.size_bytes())?];
        let read = read_at(source.file(), &mut bytes, 0);
        let read_bytes = read.map_err(|error| unreadable(&location, error))?;
        let (file, relation_block) = (source.file(), rule.relation_block());
        let place = Place { file, path: entry.path(), relation_block, offset: 0 };
        let errors = self.judge(&place, &mut bytes)?;
        Ok(Read::Small(Bundled { sequence, entry, bytes, errors, read_bytes }))
    }

    /// Copies a large file as it is at one moment: all that is read is read of one open file, and
    /// again if that changed. After a copy that came to nothing, it must have come to rest before it is
    /// stored again.
    fn large_settled(&mut self, file: SmallFile, done: Done<'_>) -> Result<()> {
        let SmallFile { sequence, location, rule, mut entry } = file;
        let failed = |error| unreadable(&location, error);
        let mut copies = 0;
        for attempt in 1..=ATTEMPTS {
            let Some(mut source) = Source::open(&location)? else {
                return done(Copied::Gone { sequence });
            };
            if copies > 0 && !self.rests(&mut source, &location)? {
                pause(attempt);
                continue;
            }
            copies += 1;
            let opened = source.file().metadata().map_err(failed)?;
            let size_bytes = opened.len();
            let Pass { map, hashes, read_bytes } =
                self.pass(&mut source, (&location, entry.path()), size_bytes, done)?;
            let read = source.file().metadata().map_err(failed)?;
            let whole = read_bytes == size_bytes;
            if whole
                && (is_unchanged(&opened, &read)
                    || self.reads_again(&mut source, &location, size_bytes, &hashes)?)
            {
                describe(&mut entry, size_bytes, &read);
                if size_bytes == 0 {
                    return done(Copied::Entry { sequence, entry, reused: false });
                }
                return done(Copied::Whole { sequence, entry, map, hashes, read_bytes });
            }
            if copies == COPIES_MAX {
                break;
            }
            pause(attempt);
        }
        let is_own = matches!(rule, CopyRule::Settled { is_own: true });
        done(left_out(sequence, entry, &location, is_own)?)
    }

    /// Reads a file from its beginning to `size_bytes` and puts it into frames.
    fn pass(
        &mut self,
        source: &mut Source,
        (location, path): (&Path, &[u8]),
        size_bytes: u64,
        done: Done<'_>,
    ) -> Result<Pass> {
        let mut pass = Pass::default();
        let mut buffers = mem::take(&mut self.buffers);
        for offset in (0..size_bytes).step_by(SPAN_STEP) {
            let part = (offset, SPAN_BYTES.min(size_bytes - offset));
            let mut map = BlockMapBuilder::default();
            source.pieces(location, part, &mut buffers, &mut |file, piece| {
                let place = Place { file, path, relation_block: None, offset: piece.offset };
                pass.read_bytes += piece.read_bytes;
                self.pace.take(piece.read_bytes)?;
                self.frames(&place, piece.bytes, &mut map, &mut pass.hashes)
            })?;
            pass.map.append(map);
            if let Some(pack) = self.sink.rotate()? {
                done(Copied::Pack(pack))?;
            }
        }
        self.buffers = buffers;
        Ok(pass)
    }

    /// Whether a file reads the same twice.
    fn rests(&mut self, source: &mut Source, location: &Path) -> Result<bool> {
        let opened = source.file().metadata().map_err(|error| unreadable(location, error))?;
        let (hashes, read_bytes) = self.read_hashes(source, location, opened.len())?;
        Ok(read_bytes == opened.len()
            && self.reads_again(source, location, opened.len(), &hashes)?)
    }

    /// Whether a file still begins with what was read.
    fn reads_again(
        &mut self,
        source: &mut Source,
        location: &Path,
        size_bytes: u64,
        hashes: &[BlockHash],
    ) -> Result<bool> {
        let (again, read_bytes) = self.read_hashes(source, location, size_bytes)?;
        Ok(read_bytes == size_bytes && again == hashes)
    }

    /// The hashes of a file's blocks up to `size_bytes`, and how many bytes there were. Nothing is
    /// stored.
    fn read_hashes(
        &mut self,
        source: &mut Source,
        location: &Path,
        size_bytes: u64,
    ) -> Result<(Vec<BlockHash>, u64)> {
        let (mut hashes, mut read_bytes) = (Vec::new(), 0);
        let mut buffers = mem::take(&mut self.buffers);
        source.pieces(location, (0, size_bytes), &mut buffers, &mut |_, piece| {
            self.pace.take(piece.read_bytes)?;
            let blocks = piece.bytes.chunks(BLOCK_BYTES);
            hashes.extend(blocks.map(|block| short_hash(&self.hasher, block)));
            read_bytes += piece.read_bytes;
            Ok(())
        })?;
        self.buffers = buffers;
        Ok((hashes, read_bytes))
    }

    /// Copies one span of a large file.
    fn span(&mut self, span: &Span, done: Done<'_>) -> Result<()> {
        let Some(mut source) = Source::open(&span.location)? else {
            return done(Copied::SpanGone { sequence: span.sequence, span: span.number });
        };
        let mut map = BlockMapBuilder::default();
        let mut hashes = Vec::new();
        let mut errors = Vec::new();
        let mut read_bytes = 0;
        let mut buffers = mem::take(&mut self.buffers);
        let part = (span.offset, span.length);
        source.pieces(&span.location, part, &mut buffers, &mut |file, piece| {
            let (path, offset) = (&span.path, piece.offset);
            let place = Place { file, path, relation_block: span.relation_block, offset };
            errors.extend(self.judge(&place, piece.bytes)?);
            read_bytes += piece.read_bytes;
            self.pace.take(piece.read_bytes)?;
            self.frames(&place, piece.bytes, &mut map, &mut hashes)
        })?;
        self.buffers = buffers;
        let (sequence, number) = (span.sequence, span.number);
        done(Copied::Span { sequence, span: number, map, hashes, errors, read_bytes })
    }

    /// Puts blocks into frames. Zero blocks are stored nowhere and end a frame.
    fn frames(
        &mut self,
        place: &Place<'_>,
        bytes: &[u8],
        map: &mut BlockMapBuilder,
        hashes: &mut Vec<BlockHash>,
    ) -> Result<()> {
        let first = place.offset / BLOCK_BYTES as u64;
        let mut frame: Vec<FullBlockHash> = Vec::with_capacity(FRAME_BLOCKS as usize);
        let blocks = bytes.chunks(BLOCK_BYTES).count();
        for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let zero = is_all_zero(block);
            if !zero {
                let hash = self.hasher.block(block);
                hashes.push(hash.short());
                frame.push(hash);
            }
            let end = if zero { index } else { index + 1 };
            let complete = zero || frame.len() == FRAME_BLOCKS as usize || index + 1 == blocks;
            if complete && !frame.is_empty() {
                let start = end - frame.len();
                let payload = bytes
                    .get(start * BLOCK_BYTES..bytes.len().min(end * BLOCK_BYTES))
                    .unwrap_or_default();
                let first_block = narrow(first + start as u64)?;
                let what = FramePayload::Base { path: place.path, first_block };
                let placed = self.sink.frame(what, payload, &frame)?;
                map.frame(narrow(frame.len())?, placed.pack, placed.frame);
                frame.clear();
            }
            if zero {
                hashes.push([0; 8]);
                map.zero(1);
            }
        }
        Ok(())
    }

    /// Judges every whole page of a relation's file.
    fn judge(&self, place: &Place<'_>, bytes: &mut [u8]) -> Result<Vec<PageError>> {
        let Some(relation_block) = place.relation_block else { return Ok(Vec::new()) };
        let mut errors = Vec::new();
        let first: BlockNumber = narrow(place.offset / PAGE_BYTES as u64)?;
        let (pages, _) = bytes.as_chunks_mut::<PAGE_BYTES>();
        for (block, page) in (first..).zip(pages) {
            let page: &mut Page = page;
            let offset = u64::from(block) * PAGE_BYTES as u64;
            if let Some(fault) =
                self.rule.judge(page, relation_block + block, place.file, offset)?
            {
                errors.push(PageError {
                    path: place.path.to_vec().into(),
                    block,
                    reason: fault.to_string(),
                });
            }
        }
        Ok(errors)
    }
}

/// A length or a number of a file's, as narrow as the format has it. What is longer was refused
/// when the file was found.
pub(super) fn narrow<From, To: TryFrom<From>>(value: From) -> Result<To> {
    To::try_from(value).map_err(|_| Error::new(Code::Internal, "a file is longer than it was"))
}
