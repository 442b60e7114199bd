use std::collections::BTreeMap;
use std::fs::File;
use std::mem;
use std::path::Path;

use seawall_core::{BlockNumber, Code, Error, Result};
use seawall_pgdata::page::{PAGE_BYTES, Page};
use seawall_repo::manifest::{Entry, LeftOut, PageError};
use seawall_repo::pack::BLOCK_BYTES;
use seawall_store::direct::AlignedBuffer;

use super::bundle::{Bundle, SmallRead};
use super::files::Shared;
use super::read_ahead::{OpenFile, Piece, read_at, unreadable};
use super::settled::{ATTEMPTS, Settled, describe, is_unchanged, pause, read_settled, restless};
use super::task::{CopyRule, FoundFile, SMALL_FILE_BYTES, SPAN_BYTES, SPAN_STEP, Span, Task, Work};
use super::{Absent, Packer, SpanRead, Wanted, WholeRead};

/// How often a large file is stored that changes while it is: what is in a pack stays there.
const COPIES_MAX: u32 = 3;

/// Reads files, judges their pages and hands them over.
pub(super) struct Worker<P> {
    shared: Shared,
    packer: P,
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

/// What came of reading a file that was found to be small.
enum Read {
    Small(SmallRead),
    /// It has grown.
    Larger(FoundFile),
    /// It has no content to store.
    None(Absent),
}

/// What a file held when it was read from its beginning: as much as is needed to tell whether it
/// holds the same now.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    digest: blake3::Hash,
    read_bytes: u64,
}

/// Puts together what a file holds.
#[derive(Default)]
struct Look {
    hasher: blake3::Hasher,
    read_bytes: u64,
}

impl Look {
    fn piece(&mut self, piece: &Piece<'_>) {
        self.hasher.update(piece.bytes);
        self.read_bytes += piece.read_bytes;
    }

    fn end(&self) -> Seen {
        Seen { digest: self.hasher.finalize(), read_bytes: self.read_bytes }
    }
}

/// Reads a small file as it is at one moment.
fn settled(file: FoundFile, is_own: bool) -> Result<Read> {
    let sequence = file.sequence;
    Ok(match read_settled(&file.location, SMALL_FILE_BYTES)? {
        Settled::Gone => Read::None(Absent::Gone { sequence }),
        Settled::Larger => Read::Larger(file),
        Settled::Restless => Read::None(left_out(sequence, file.entry, &file.location, is_own)?),
        Settled::Content(bytes, read) => {
            let (read_bytes, mut entry) = (bytes.len() as u64, file.entry);
            describe(&mut entry, read_bytes, &read);
            if bytes.is_empty() {
                return Ok(Read::None(Absent::Empty { sequence, entry }));
            }
            let (before, errors) = (file.before, Vec::new());
            Read::Small(SmallRead { sequence, entry, before, bytes, errors, read_bytes })
        }
    })
}

/// What is said of a file that changed each time it was read.
fn left_out(sequence: u64, entry: Entry, location: &Path, is_own: bool) -> Result<Absent> {
    if is_own {
        return Err(restless(location));
    }
    let reason = format!("it changed each of the {ATTEMPTS} times that it was read");
    Ok(Absent::LeftOut { sequence, file: LeftOut { path: entry.path, reason } })
}

impl<P: Packer> Worker<P> {
    pub fn new(shared: Shared, packer: P) -> Self {
        Self { shared, packer, buffers: Vec::new() }
    }

    /// Does one task and hands over what came of it.
    pub fn work(&mut self, task: Task) -> Result<()> {
        let Task { to, what } = task;
        if !self.packer.is_wanted(&to) {
            return Ok(());
        }
        match what {
            Work::Small(files) => self.small_files(&to, files)?,
            Work::Settled(file) => self.large_settled(&to, file)?,
            Work::Span(span) => self.span(&to, &span)?,
            Work::Changed(files) => {
                files.into_iter().try_for_each(|file| self.changed(&to, file))?;
            }
        }
        self.packer.flush();
        self.packer.rotate()
    }

    /// There is nothing left to do.
    pub fn end(&mut self) -> Result<()> {
        self.packer.end()
    }

    /// Bundles small files into one frame, or more if they have grown.
    fn small_files(&mut self, to: &Wanted, files: Vec<FoundFile>) -> Result<()> {
        let mut bundles: BTreeMap<Wanted, Bundle> = BTreeMap::new();
        let mut larger = Vec::new();
        for file in files {
            let read = match file.rule {
                CopyRule::Replayed { .. } => self.replayed(file)?,
                CopyRule::Settled { is_own } => settled(file, is_own)?,
            };
            match read {
                Read::Small(file) => {
                    self.shared.pace.take(file.read_bytes)?;
                    self.shared.count(file.read_bytes);
                    let to = self.packer.lacking(to, &file);
                    if to.is_empty() {
                        continue;
                    }
                    let bundle = bundles.entry(to.clone()).or_default();
                    if !bundle.has_room_for(&file) {
                        self.packer.small(&to, mem::take(bundle))?;
                    }
                    bundle.add(file)?;
                }
                Read::Larger(file) => larger.push(file),
                Read::None(absent) => self.packer.tell(to, &absent),
            }
        }
        for (to, bundle) in bundles {
            self.packer.small(&to, bundle)?;
        }
        larger.into_iter().try_for_each(|file| self.large_settled(to, file))
    }

    /// A file with the length with which it was found, its pages judged.
    fn replayed(&self, file: FoundFile) -> Result<Read> {
        let FoundFile { sequence, location, rule, entry, before } = file;
        let Some(open) = OpenFile::open(&location)? else {
            return Ok(Read::None(Absent::Gone { sequence }));
        };
        let mut bytes = vec![0; narrow(entry.size_bytes())?];
        let read = read_at(open.file(), &mut bytes, 0);
        let read_bytes = read.map_err(|error| unreadable(&location, error))?;
        let (file, relation_block) = (open.file(), rule.relation_block());
        let place = Place { file, path: entry.path(), relation_block, offset: 0 };
        let errors = self.judge(&place, &mut bytes)?;
        Ok(Read::Small(SmallRead { sequence, entry, before, bytes, errors, read_bytes }))
    }

    /// Copies a large file as it is at one moment: all that is read is read of one open file, and
    /// again if that changed. After a copy that came to nothing, it must have come to rest before it is
    /// stored again.
    fn large_settled(&mut self, to: &Wanted, file: FoundFile) -> Result<()> {
        let FoundFile { sequence, location, rule, mut entry, before } = file;
        let failed = |error| unreadable(&location, error);
        let mut copies = 0;
        for attempt in 1..=ATTEMPTS {
            let Some(mut open) = OpenFile::open(&location)? else {
                self.packer.tell(to, &Absent::Gone { sequence });
                return Ok(());
            };
            if copies > 0 && !self.rests(&mut open, &location)? {
                pause(attempt);
                continue;
            }
            copies += 1;
            let opened = open.file().metadata().map_err(failed)?;
            let size_bytes = opened.len();
            let part = self.packer.begin_onto(to, &before);
            let (part, seen) =
                self.pass(to, &mut open, (&location, entry.path(), part), size_bytes)?;
            if !self.packer.is_wanted(to) {
                return Ok(());
            }
            let read = open.file().metadata().map_err(failed)?;
            let read_bytes = seen.read_bytes;
            if read_bytes == size_bytes
                && (is_unchanged(&opened, &read)
                    || self.look(&mut open, &location, size_bytes)? == seen)
            {
                describe(&mut entry, size_bytes, &read);
                if size_bytes == 0 {
                    self.packer.tell(to, &Absent::Empty { sequence, entry });
                } else {
                    self.shared.count(read_bytes);
                    let errors = Vec::new();
                    // All of it was compared.
                    self.packer.whole(part, &WholeRead { sequence, entry, errors, read_bytes });
                }
                return Ok(());
            }
            if copies == COPIES_MAX {
                break;
            }
            pause(attempt);
        }
        let is_own = matches!(rule, CopyRule::Settled { is_own: true });
        self.packer.tell(to, &left_out(sequence, entry, &location, is_own)?);
        Ok(())
    }

    /// Reads a file from its beginning to `size_bytes`, for as long as anybody wants it, and hands it
    /// over.
    fn pass(
        &mut self,
        to: &Wanted,
        open: &mut OpenFile,
        (location, path, mut part): (&Path, &[u8], P::Part),
        size_bytes: u64,
    ) -> Result<(P::Part, Seen)> {
        let mut look = Look::default();
        let mut buffers = mem::take(&mut self.buffers);
        for offset in (0..size_bytes).step_by(SPAN_STEP) {
            let span = (offset, SPAN_BYTES.min(size_bytes - offset));
            open.pieces(location, span, &mut buffers, &mut |_, piece| {
                self.shared.pace.take(piece.read_bytes)?;
                look.piece(&piece);
                let first_block = narrow(piece.offset / BLOCK_BYTES as u64)?;
                self.packer.blocks(&mut part, path, first_block, piece.bytes)
            })?;
            self.packer.rotate()?;
            if !self.packer.is_wanted(to) {
                break;
            }
        }
        self.buffers = buffers;
        Ok((part, look.end()))
    }

    /// Whether a file reads the same twice.
    fn rests(&mut self, open: &mut OpenFile, location: &Path) -> Result<bool> {
        let opened = open.file().metadata().map_err(|error| unreadable(location, error))?;
        let seen = self.look(open, location, opened.len())?;
        Ok(seen.read_bytes == opened.len() && self.look(open, location, opened.len())? == seen)
    }

    /// What a file holds up to `size_bytes`. Nothing is handed over.
    fn look(&mut self, open: &mut OpenFile, location: &Path, size_bytes: u64) -> Result<Seen> {
        let mut look = Look::default();
        let mut buffers = mem::take(&mut self.buffers);
        open.pieces(location, (0, size_bytes), &mut buffers, &mut |_, piece| {
            self.shared.pace.take(piece.read_bytes)?;
            look.piece(&piece);
            Ok(())
        })?;
        self.buffers = buffers;
        Ok(look.end())
    }

    /// Copies one span of a large file.
    fn span(&mut self, to: &Wanted, span: &Span) -> Result<()> {
        let (sequence, number) = (span.sequence, span.number);
        let Some(mut open) = OpenFile::open(&span.location)? else {
            self.packer.tell(to, &Absent::SpanGone { sequence, span: number });
            return Ok(());
        };
        let mut part = self.packer.begin(to);
        let mut errors = Vec::new();
        let mut read_bytes = 0;
        let mut buffers = mem::take(&mut self.buffers);
        let range = (span.offset, span.length);
        open.pieces(&span.location, range, &mut buffers, &mut |file, piece| {
            let (path, offset) = (&span.path, piece.offset);
            let place = Place { file, path, relation_block: span.relation_block, offset };
            errors.extend(self.judge(&place, piece.bytes)?);
            read_bytes += piece.read_bytes;
            self.shared.pace.take(piece.read_bytes)?;
            self.shared.count(piece.read_bytes);
            let first_block = narrow(offset / BLOCK_BYTES as u64)?;
            self.packer.blocks(&mut part, path, first_block, piece.bytes)
        })?;
        self.buffers = buffers;
        self.packer.span(part, &SpanRead { sequence, number, errors, read_bytes });
        Ok(())
    }

    /// Copies what changed of a file that replay makes right, or all of it for who cannot tell.
    fn changed(&mut self, to: &Wanted, file: FoundFile) -> Result<()> {
        let FoundFile { sequence, location, rule, entry, before } = file;
        let Some(mut open) = OpenFile::open(&location)? else {
            self.packer.tell(to, &Absent::Gone { sequence });
            return Ok(());
        };
        let mut part = self.packer.begin_onto(to, &before);
        let (mut errors, mut read_bytes) = (Vec::new(), 0);
        let (size_bytes, relation_block) = (entry.size_bytes(), rule.relation_block());
        let to_read = self.packer.to_read(&part);
        let mut buffers = mem::take(&mut self.buffers);
        let mut take = |file: &File, piece: Piece<'_>| {
            let (path, offset) = (entry.path(), piece.offset);
            let place = Place { file, path, relation_block, offset };
            errors.extend(self.judge(&place, piece.bytes)?);
            read_bytes += piece.read_bytes;
            self.shared.pace.take(piece.read_bytes)?;
            self.shared.count(piece.read_bytes);
            let first_block = narrow(offset / BLOCK_BYTES as u64)?;
            self.packer.blocks(&mut part, path, first_block, piece.bytes)
        };
        match to_read {
            None => open.pieces(&location, (0, size_bytes), &mut buffers, &mut take)?,
            Some(blocks) => open.scattered(&location, &blocks, size_bytes, &mut take)?,
        }
        self.buffers = buffers;
        let whole = WholeRead { sequence, entry: entry.clone(), errors, read_bytes };
        let again = self.packer.whole(part, &whole);
        if again.is_empty() {
            return Ok(());
        }
        let before = before.doubted();
        self.changed(&again, FoundFile { sequence, location, rule, entry, before })
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
                self.shared.rule.judge(page, relation_block + block, place.file, offset)?
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
