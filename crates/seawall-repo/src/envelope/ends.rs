use seawall_core::Result;
use seawall_store::{ObjectPath, Store};

use super::open::footer_offset;
use super::{HEADER_BYTES, ObjectKind, ObjectOpener, TRAILER_BYTES};
use crate::Damage;
use crate::keys::Keyring;

/// How much of an object's end is read at once, in the hope that the whole footer is in it.
const TAIL_BYTES: u64 = 64 * 1024;

/// No footer is longer; it is read before anything of the object is proven.
const FOOTER_BYTES_MAX: u64 = 256 << 20;

/// What a large object's header and footer say; the chunks between were not read.
#[derive(Debug)]
pub struct Ends {
    /// Opens the chunks between.
    pub opener: ObjectOpener,
    /// The footer's plaintext.
    pub footer: Vec<u8>,
    /// Where the footer begins.
    pub footer_offset: u64,
    /// The object's length.
    pub length_bytes: u64,
}

/// Reads and authenticates a large object's header and footer.
///
/// # Errors
/// Damage, a missing object, or a store that fails.
pub async fn read_ends(
    store: &dyn Store,
    keyring: &Keyring,
    kind: ObjectKind,
    path: &ObjectPath,
) -> Result<Ends> {
    let end = store.read_end(path, TAIL_BYTES).await?;
    let (tail_start, length_bytes) = (end.offset(), end.size_bytes);
    if length_bytes < (HEADER_BYTES + TRAILER_BYTES) as u64 {
        return Err(Damage::Length.at(path));
    }
    let tail = end.bytes;
    let header = match tail.get(..HEADER_BYTES).filter(|_| tail_start == 0) {
        Some(header) => tail.slice_ref(header),
        None => store.read_range(path, 0..HEADER_BYTES as u64).await?,
    };
    keyring.learn(store, &header).await?;
    let opener =
        ObjectOpener::new(keyring, kind, path, &header).map_err(|damage| damage.at(path))?;
    let trailer = tail.get(tail.len().saturating_sub(TRAILER_BYTES)..).unwrap_or_default();
    let offset = footer_offset(trailer, length_bytes).map_err(|damage| damage.at(path))?;
    if length_bytes - offset > FOOTER_BYTES_MAX {
        return Err(Damage::Length.at(path));
    }
    let mut tail: Vec<u8> = match offset.checked_sub(tail_start) {
        // It lies within the tail, which is short.
        Some(skip) => usize::try_from(skip)
            .ok()
            .and_then(|skip| tail.get(skip..))
            .unwrap_or_default()
            .to_vec(),
        None => store.read_range(path, offset..length_bytes).await?.into(),
    };
    let footer = opener.footer(&mut tail, length_bytes).map_err(|damage| damage.at(path))?;
    Ok(Ends { opener, footer, footer_offset: offset, length_bytes })
}
