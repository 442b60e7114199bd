use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use seawall_core::{BlockNumber, Code, Error, Result};
use seawall_pgdata::page::{PAGE_BYTES, Page, is_all_zero};
use seawall_repo::hash::{BlockHash, ContentHasher, FullBlockHash};
use seawall_repo::manifest::{Content, PageError};
use seawall_repo::map::BlockMapBuilder;
use seawall_repo::pack::{BLOCK_BYTES, FRAME_BLOCKS, FramePayload};

use super::copy::{Copied, SmallFile, Span, Task};
use super::pack_sink::PackSink;
use super::page_rule::PageRule;

/// How much of a large file is read at a time: whole frames.
const READ_BYTES: usize = 8 * FRAME_BYTES;

const FRAME_BYTES: usize = FRAME_BLOCKS as usize * BLOCK_BYTES;

/// Reads files, judges their pages and puts them into frames.
pub(super) struct Worker {
    rule: Arc<PageRule>,
    hasher: ContentHasher,
    sink: PackSink,
    buffer: Vec<u8>,
}

/// Where a piece of a file is read from, and what its pages are called.
struct Piece<'f> {
    file: &'f File,
    path: &'f [u8],
    /// The number within the relation of the file's first page; `None` for what is not a relation.
    relation_block: Option<BlockNumber>,
    offset: u64,
}

impl Worker {
    pub fn new(rule: Arc<PageRule>, hasher: ContentHasher, sink: PackSink) -> Self {
        Self { rule, hasher, sink, buffer: Vec::new() }
    }

    /// Does one task and hands over what came of it.
    pub fn work(&mut self, task: Task, done: &mut dyn FnMut(Copied) -> Result<()>) -> Result<()> {
        match task {
            Task::Small(files) => self.small_files(files, done)?,
            Task::Span(span) => self.span(&span, done)?,
        }
        match self.sink.rotate()? {
            Some(pack) => done(Copied::Pack(pack)),
            None => Ok(()),
        }
    }

    /// Finishes the open pack.
    pub fn end(&mut self, done: &mut dyn FnMut(Copied) -> Result<()>) -> Result<()> {
        match self.sink.finish()? {
            Some(pack) => done(Copied::Pack(pack)),
            None => Ok(()),
        }
    }

    /// Bundles small files into one frame.
    fn small_files(
        &mut self,
        files: Vec<SmallFile>,
        done: &mut dyn FnMut(Copied) -> Result<()>,
    ) -> Result<()> {
        let mut payload = Vec::with_capacity(FRAME_BYTES);
        let mut hashes = Vec::new();
        let mut names = Vec::new();
        let mut bundled = Vec::new();
        for SmallFile { sequence, location, relation_block, mut entry } in files {
            let Some(file) = open(&location)? else {
                done(Copied::Gone { sequence })?;
                continue;
            };
            let start = payload.len();
            payload.resize(start + entry.size_bytes() as usize, 0);
            let bytes = payload.get_mut(start..).unwrap_or_default();
            let read = read_at(&file, bytes, 0).map_err(|error| unreadable(&location, error))?;
            let piece = Piece { file: &file, path: entry.path(), relation_block, offset: 0 };
            let errors = self.judge(&piece, bytes)?;
            let blocks: Vec<FullBlockHash> =
                bytes.chunks(BLOCK_BYTES).map(|block| self.hasher.block(block)).collect();
            let short: Vec<BlockHash> = bytes
                .chunks(BLOCK_BYTES)
                .zip(&blocks)
                .map(|(block, hash)| if is_all_zero(block) { [0; 8] } else { hash.short() })
                .collect();
            hashes.extend(blocks);
            names.push((entry.path().to_vec(), bytes.len() as u32));
            entry.content = Some(Content::Blob {
                pack: 0,
                frame: 0,
                offset: start as u32,
                hashes: short.as_flattened().to_vec(),
            });
            bundled.push((sequence, entry, errors, read));
        }
        if bundled.is_empty() {
            return Ok(());
        }
        let placed = self.sink.frame(FramePayload::Blob { files: &names }, &payload, &hashes)?;
        for (sequence, mut entry, errors, read_bytes) in bundled {
            if let Some(Content::Blob { pack, frame, .. }) = &mut entry.content {
                (*pack, *frame) = (placed.pack_index, placed.frame);
            }
            done(Copied::Small { sequence, entry, errors, read_bytes })?;
        }
        Ok(())
    }

    /// Copies one span of a large file.
    fn span(&mut self, span: &Span, done: &mut dyn FnMut(Copied) -> Result<()>) -> Result<()> {
        let Some(file) = open(&span.location)? else {
            return done(Copied::SpanGone { sequence: span.sequence, span: span.number });
        };
        let mut map = BlockMapBuilder::default();
        let mut hashes = Vec::new();
        let mut errors = Vec::new();
        let mut read_bytes = 0;
        let end = span.offset + span.length;
        let mut offset = span.offset;
        while offset < end {
            let length = READ_BYTES.min((end - offset) as usize);
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            buffer.resize(length, 0);
            read_bytes += read_at(&file, &mut buffer, offset)
                .map_err(|error| unreadable(&span.location, error))?;
            let piece = Piece {
                file: &file,
                path: &span.path,
                relation_block: span.relation_block,
                offset,
            };
            errors.extend(self.judge(&piece, &mut buffer)?);
            self.frames(&piece, &buffer, &mut map, &mut hashes)?;
            self.buffer = buffer;
            offset += length as u64;
        }
        let (sequence, number) = (span.sequence, span.number);
        done(Copied::Span { sequence, span: number, map, hashes, errors, read_bytes })
    }

    /// Puts blocks into frames. Zero blocks are stored nowhere and end a frame.
    fn frames(
        &mut self,
        piece: &Piece<'_>,
        bytes: &[u8],
        map: &mut BlockMapBuilder,
        hashes: &mut Vec<BlockHash>,
    ) -> Result<()> {
        let first = piece.offset / BLOCK_BYTES as u64;
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
                let first_block = (first + start as u64) as u32;
                let what = FramePayload::Base { path: piece.path, first_block };
                let placed = self.sink.frame(what, payload, &frame)?;
                map.frame(frame.len() as u32, placed.pack, placed.frame);
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
    fn judge(&self, piece: &Piece<'_>, bytes: &mut [u8]) -> Result<Vec<PageError>> {
        let Some(relation_block) = piece.relation_block else { return Ok(Vec::new()) };
        let mut errors = Vec::new();
        let first = (piece.offset / PAGE_BYTES as u64) as u32;
        let (pages, _) = bytes.as_chunks_mut::<PAGE_BYTES>();
        for (index, page) in pages.iter_mut().enumerate() {
            let page: &mut Page = page;
            let block = first + index as u32;
            let offset = u64::from(block) * PAGE_BYTES as u64;
            if let Some(fault) =
                self.rule.judge(page, relation_block + block, piece.file, offset)?
            {
                errors.push(PageError {
                    path: piece.path.to_vec().into(),
                    block,
                    reason: fault.to_string(),
                });
            }
        }
        Ok(errors)
    }
}

/// Opens a file; `None` if it vanished since it was found.
fn open(location: &PathBuf) -> Result<Option<File>> {
    match File::open(location) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(location, error)),
    }
}

/// Fills `buffer` from the file; what lies past the file's end stays zero. Returns the bytes read.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<u64> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled as u64)
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(Code::ClusterUnreadable, format!("cannot read {}", path.display()))
        .with_source(error)
        .with_hint("Run as the owner of the data directory; if the disk fails, `seawall restore` brings back the last good backup.")
}
