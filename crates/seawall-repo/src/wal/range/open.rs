//! Reads ranges: the ends of one, or all of it.

use seawall_core::Result;
use seawall_pgdata::wal::WalFacts;
use seawall_store::{ObjectPath, Store};

use super::footer::{FooterBody, wrong};
use super::{CHUNK_BYTES, WalRange};
use crate::envelope::{ChunkWalk, Decompressor, ObjectKind, Section, read_ends};
use crate::keys::Keyring;
use crate::layout::WalRangeName;
use crate::wal::index::{self, Bounds};
use crate::{Damage, cbor};

/// A range with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedRange {
    /// Its footer, and its index with all facts.
    pub range: WalRange,
    /// The WAL from [`WalRange::start`] to [`WalRange::end`].
    pub bytes: Vec<u8>,
}

/// Reads what the footer of a range says, without its body and its index.
///
/// # Errors
/// Damage, a missing object, or a store that fails.
pub async fn read_range(
    store: &dyn Store,
    keyring: &Keyring,
    path: &ObjectPath,
    name: WalRangeName,
) -> Result<WalRange> {
    let ends = read_ends(store, keyring, ObjectKind::WalHot, path).await?;
    footer(&ends.footer, name).map_err(|damage| damage.at(path))
}

/// Reads footer and index of a range, without its body.
///
/// # Errors
/// Damage, a missing object, or a store that fails.
pub async fn read_index(
    store: &dyn Store,
    keyring: &Keyring,
    path: &ObjectPath,
    name: WalRangeName,
) -> Result<WalRange> {
    read_facts(store, keyring, path, name, facts).await
}

/// As [`read_index`], of the facts the events alone: the others are many.
///
/// # Errors
/// Damage, a missing object, or a store that fails.
pub async fn read_events(
    store: &dyn Store,
    keyring: &Keyring,
    path: &ObjectPath,
    name: WalRangeName,
) -> Result<WalRange> {
    let of_index = |range: &WalRange, plaintext: &[u8]| {
        let events = index::decode_events(plaintext, bounds(range))?;
        Ok(WalFacts { events, ..WalFacts::default() })
    };
    read_facts(store, keyring, path, name, of_index).await
}

async fn read_facts(
    store: &dyn Store,
    keyring: &Keyring,
    path: &ObjectPath,
    name: WalRangeName,
    of_index: impl Fn(&WalRange, &[u8]) -> Result<WalFacts, Damage>,
) -> Result<WalRange> {
    let ends = read_ends(store, keyring, ObjectKind::WalHot, path).await?;
    let mut range = footer(&ends.footer, name).map_err(|damage| damage.at(path))?;
    let (offset, length) = range.index_at;
    let end = offset.checked_add(u64::from(length)).filter(|end| *end <= ends.footer_offset);
    let end = end.ok_or_else(|| wrong("its index is elsewhere").at(path))?;
    let mut chunk = store.read_range(path, offset..end).await?.to_vec();
    let mut plaintext = Vec::new();
    let mut decompressor = Decompressor::new()?;
    let opened = ends.opener.chunk(
        Section::SECOND,
        0,
        &mut chunk,
        offset,
        &mut decompressor,
        &mut plaintext,
    );
    let facts = opened.and_then(|plaintext| of_index(&range, plaintext));
    range.index.facts = facts.map_err(|damage| damage.at(path))?;
    Ok(range)
}

/// Opens a whole range in memory; every byte of the object is proven.
///
/// # Errors
/// [`Damage`], naming the first part that is not as it was written.
pub fn open_range(
    keyring: &Keyring,
    path: &ObjectPath,
    name: WalRangeName,
    object: &[u8],
) -> Result<OpenedRange, Damage> {
    let (mut chunks, plaintext) = ChunkWalk::begin(keyring, ObjectKind::WalHot, path, object)?;
    let mut range = footer(&plaintext, name)?;
    let range_bytes = usize::try_from(range.end().bytes_since(range.start()))
        .map_err(|_| wrong("it is too long"))?;
    let mut bytes = Vec::with_capacity(range_bytes);
    let mut facts_read = None;
    let other_parts = || wrong("it has other parts than bytes and an index");
    while let Some((section, chunk)) = chunks.next()? {
        let expected = CHUNK_BYTES.min(range_bytes - bytes.len());
        if expected > 0 {
            if section != Section::FIRST || chunk.len() != expected {
                return Err(wrong("its chunks are not those of its bytes"));
            }
            bytes.extend_from_slice(chunk);
        } else if section == Section::SECOND && facts_read.is_none() {
            facts_read = Some(facts(&range, chunk)?);
        } else {
            return Err(other_parts());
        }
    }
    range.index.facts = facts_read.ok_or_else(other_parts)?;
    Ok(OpenedRange { range, bytes })
}

/// Reads a footer. Whoever writes one reads it first.
pub(super) fn footer(plaintext: &[u8], name: WalRangeName) -> Result<WalRange, Damage> {
    cbor::decode::<FooterBody>(plaintext)?.range(name)
}

fn facts(range: &WalRange, plaintext: &[u8]) -> Result<WalFacts, Damage> {
    index::decode(plaintext, bounds(range))
}

const fn bounds(range: &WalRange) -> Bounds {
    Bounds { start: range.start(), end: range.end() }
}
