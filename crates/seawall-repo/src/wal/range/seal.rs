//! Writes ranges.

use seawall_core::{Code, Error, Lsn, Result, SystemId};
use seawall_pgdata::wal::page::WAL_PAGE_BYTES;
use seawall_pgdata::wal::{RangeIndex, WalFacts};
use seawall_store::ObjectPath;

use super::footer::FooterBody;
use super::open::footer;
use super::{CHUNK_BYTES, WalRange, page_parts, part_hash};
use crate::envelope::{Compressor, ObjectKind, ObjectSealer, Section};
use crate::keys::Keyring;
use crate::layout::WalRangeName;
use crate::wal::index::{self, Bounds};
use crate::wal::so_far::LogSoFar;
use crate::{Damage, cbor, error};

/// zstd level of WAL unless told otherwise: higher ones gain a tenth and cost three times the time.
pub const DEFAULT_COMPRESSION_LEVEL: i32 = 1;

/// Level of the index, which is small.
const INDEX_LEVEL: i32 = 3;

/// Seals ranges of one cluster.
#[derive(Debug)]
pub struct RangeSealer {
    system_id: SystemId,
    bodies: Compressor,
    indexes: Compressor,
}

impl RangeSealer {
    /// A sealer for ranges of the cluster with that identifier.
    ///
    /// # Errors
    /// [`Code::Internal`] if zstd cannot be set up.
    pub fn new(system_id: SystemId, compression_level: i32) -> Result<Self> {
        Ok(Self {
            system_id,
            bodies: Compressor::new(compression_level)?,
            indexes: Compressor::new(INDEX_LEVEL)?,
        })
    }

    /// Makes the object at `path` of the range's bytes and their index; `so_far` is of the log up to
    /// the range's end.
    ///
    /// # Errors
    /// [`Code::Internal`] if the range does not begin and end where ranges may (format.md, 9), if
    /// its index or footer would not be read again, or without randomness.
    pub fn seal(
        &mut self,
        keyring: &Keyring,
        path: &ObjectPath,
        index: &RangeIndex,
        so_far: LogSoFar,
        bytes: &[u8],
    ) -> Result<Vec<u8>> {
        check_shape(index, bytes)?;
        let mut out = Vec::with_capacity(bytes.len() / 2);
        let mut sealer = ObjectSealer::begin(keyring, ObjectKind::WalHot, path, &mut out)?;
        let mut chunk_lengths = Vec::new();
        for chunk in bytes.chunks(CHUNK_BYTES) {
            chunk_lengths.push(sealer.chunk(
                Section::FIRST,
                chunk,
                Some(&mut self.bodies),
                &mut out,
            )?);
        }
        let bounds = Bounds { start: index.start, end: index.end };
        let plaintext = index::encode(&index.facts, bounds);
        let unreadable = |damage: Damage| error::unreadable("range of WAL", &damage);
        index::decode(&plaintext, bounds).map_err(unreadable)?;
        let offset = sealer.offset();
        let length =
            sealer.chunk(Section::SECOND, &plaintext, Some(&mut self.indexes), &mut out)?;
        let range = WalRange {
            system_id: self.system_id,
            index: RangeIndex { facts: WalFacts::default(), ..index.clone() },
            page_hashes: page_parts(index.start, bytes)
                .map(|(_, part)| part_hash(keyring.hasher(), part))
                .collect(),
            so_far,
            chunk_lengths,
            index_at: (offset, length),
        };
        let plaintext = cbor::encode(&FooterBody::of(&range));
        let name = WalRangeName {
            timeline: index.timeline,
            segment: Lsn(index.start.0 - index.start.0 % index.segment_size.bytes()),
            start: index.start,
            end: index.end,
        };
        footer(&plaintext, name).map_err(unreadable)?;
        sealer.finish(&plaintext, &mut out)?;
        Ok(out)
    }
}

/// Whoever continues the log reads on at the end of a range: at a page, a record, or in filler.
fn check_shape(index: &RangeIndex, bytes: &[u8]) -> Result<()> {
    let readable_from = |lsn: u64| lsn.is_multiple_of(8);
    let padded = index.padding_from.is_some();
    let sound = index.end.bytes_since(index.start) == bytes.len() as u64
        && !bytes.is_empty()
        && index.ended.is_none()
        && readable_from(index.start.0)
        && (padded || readable_from(index.end.0))
        && (!index.ends_in_a_record() || index.end.0.is_multiple_of(WAL_PAGE_BYTES));
    if sound {
        return Ok(());
    }
    let what = format!("WAL from {} to {} cannot be a range of its own", index.start, index.end);
    Err(Error::new(Code::Internal, what))
}
