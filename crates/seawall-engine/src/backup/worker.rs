use std::fs::File;
use std::sync::Arc;

use seawall_core::{BlockNumber, Result};
use seawall_pgdata::page::{PAGE_BYTES, Page, is_all_zero};
use seawall_repo::hash::{BlockHash, ContentHasher, FullBlockHash};
use seawall_repo::manifest::{Content, PageError};
use seawall_repo::map::BlockMapBuilder;
use seawall_repo::pack::{BLOCK_BYTES, FRAME_BLOCKS, FramePayload};
use seawall_store::direct::AlignedBuffer;

use super::copy::{Copied, SmallFile, Span, Task};
use super::pack_sink::PackSink;
use super::page_rule::PageRule;
use super::source::{Source, read_at, unreadable};
use crate::pace::Pace;

const FRAME_BYTES: usize = FRAME_BLOCKS as usize * BLOCK_BYTES;

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
            let Some(source) = Source::open(&location)? else {
                done(Copied::Gone { sequence })?;
                continue;
            };
            let file = source.file();
            let start = payload.len();
            payload.resize(start + entry.size_bytes() as usize, 0);
            let bytes = payload.get_mut(start..).unwrap_or_default();
            let read = read_at(file, bytes, 0).map_err(|error| unreadable(&location, error))?;
            let place = Place { file, path: entry.path(), relation_block, offset: 0 };
            let errors = self.judge(&place, bytes)?;
            self.pace.take(read)?;
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
        let Some(mut source) = Source::open(&span.location)? else {
            return done(Copied::SpanGone { sequence: span.sequence, span: span.number });
        };
        let mut map = BlockMapBuilder::default();
        let mut hashes = Vec::new();
        let mut errors = Vec::new();
        let mut read_bytes = 0;
        let mut buffers = std::mem::take(&mut self.buffers);
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
                let first_block = (first + start as u64) as u32;
                let what = FramePayload::Base { path: place.path, first_block };
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
    fn judge(&self, place: &Place<'_>, bytes: &mut [u8]) -> Result<Vec<PageError>> {
        let Some(relation_block) = place.relation_block else { return Ok(Vec::new()) };
        let mut errors = Vec::new();
        let first = (place.offset / PAGE_BYTES as u64) as u32;
        let (pages, _) = bytes.as_chunks_mut::<PAGE_BYTES>();
        for (index, page) in pages.iter_mut().enumerate() {
            let page: &mut Page = page;
            let block = first + index as u32;
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
