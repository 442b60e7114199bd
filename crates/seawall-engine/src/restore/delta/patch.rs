//! Writing the blocks of a file that differ.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use seawall_core::{Code, Error, Result};
use seawall_repo::hash::BlockHash;
use seawall_repo::pack::BLOCK_BYTES;

use super::compare::Difference;
use crate::durable::local;
use crate::restore::execute::{BlockSink, crc_of_zeroes};
use crate::stored::block_offset;

/// A file of which some blocks are written, in their order, and the CRC-32C of what it is then.
pub(super) struct Patch<'p> {
    path: &'p Path,
    file: File,
    size_bytes: u64,
    hashes: &'p [BlockHash],
    difference: &'p Difference,
    /// Of the stretches that are the same, those that were not passed yet.
    crcs: std::slice::Iter<'p, u32>,
    /// The first block that is not in `crc`.
    next: u32,
    crc: u32,
    written_bytes: u64,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patched {
    pub crc: u32,
    pub written_bytes: u64,
}

impl<'p> Patch<'p> {
    /// Opens a file that was compared and gives it the right length.
    ///
    /// # Errors
    /// [`Code::LocalIo`], [`Code::TargetDiskFull`].
    pub fn open(
        path: &'p Path,
        size_bytes: u64,
        hashes: &'p [BlockHash],
        difference: &'p Difference,
    ) -> Result<Self> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let file = file.map_err(|error| local(error, "opening", path))?;
        file.set_len(size_bytes).map_err(|error| local(error, "cutting", path))?;
        let crcs = difference.crcs.iter();
        Ok(Self {
            path,
            file,
            size_bytes,
            hashes,
            difference,
            crcs,
            next: 0,
            crc: 0,
            written_bytes: 0,
        })
    }

    /// Writes what is left, which can be zeroes only.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Code::Internal`] if a block was not written that differs.
    pub fn finish(mut self) -> Result<Patched> {
        let blocks = u32::try_from(self.hashes.len());
        self.pass_to(
            blocks.map_err(|_| Error::new(Code::Internal, "a file has too many blocks"))?,
        )?;
        Ok(Patched { crc: self.crc, written_bytes: self.written_bytes })
    }

    fn offset(&self, block: u32) -> u64 {
        block_offset(block, self.size_bytes)
    }

    /// Passes over blocks up to this one: they are the same, or zero.
    fn pass_to(&mut self, end: u32) -> Result<()> {
        while self.next < end {
            let block = self.next;
            if !self.difference.blocks.contains(block) {
                let stretch = (block..end).find(|it| self.difference.blocks.contains(*it));
                self.next = stretch.unwrap_or(end);
                let bytes = self.offset(self.next) - self.offset(block);
                let (Some(crc), Ok(bytes)) = (self.crcs.next(), usize::try_from(bytes)) else {
                    return Err(Error::new(Code::Internal, "a stretch of a file was not compared"));
                };
                self.crc = crc32c::crc32c_combine(self.crc, *crc, bytes);
                continue;
            }
            if self.hashes.get(block as usize) != Some(&BlockHash::default()) {
                let what = format!("block {block} of {} was not read", self.path.display());
                return Err(Error::new(Code::Internal, what));
            }
            self.zero(block)?;
        }
        Ok(())
    }

    fn zero(&mut self, block: u32) -> Result<()> {
        static ZEROES: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        let offset = self.offset(block);
        let bytes = self.offset(block + 1) - offset;
        let zeroes = usize::try_from(bytes).ok().and_then(|bytes| ZEROES.get(..bytes));
        self.put(offset, zeroes.unwrap_or_default())?;
        self.crc = crc_of_zeroes(self.crc, bytes);
        self.next = block + 1;
        Ok(())
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.written_bytes += bytes.len() as u64;
        self.file.write_all_at(bytes, offset).map_err(|error| local(error, "writing", self.path))
    }
}

impl BlockSink for Patch<'_> {
    fn zeroes(&mut self, _: u64) {}

    fn reserve(&mut self, _: u64, _: u64) {}

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let first = u32::try_from(offset / BLOCK_BYTES as u64);
        let first = first.map_err(|_| Error::new(Code::Internal, "a file has too many blocks"))?;
        let is_wanted = |block: u32| {
            let is_zero = self.hashes.get(block as usize) == Some(&BlockHash::default());
            self.difference.blocks.contains(block) && !is_zero
        };
        let blocks = (first..).zip(bytes.chunks(BLOCK_BYTES));
        let wanted: Vec<_> = blocks.filter(|(block, _)| is_wanted(*block)).collect();
        for (block, bytes) in wanted {
            self.pass_to(block)?;
            self.put(self.offset(block), bytes)?;
            self.crc = crc32c::crc32c_append(self.crc, bytes);
            self.next = block + 1;
        }
        Ok(())
    }
}
