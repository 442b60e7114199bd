//! Two data directories that were never started, compared page by page.
//!
//! What PostgreSQL changes without a record of it is no difference: hints that a transaction ended or
//! that an index tuple is dead, and what follows from them (`bufmask.c`, `heap_mask`, `btree_mask`, 17).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use seawall_core::Lsn;

const PAGE_BYTES: usize = 8192;

/// What is of the backup rather than of the cluster, or begins anew in every server.
const OF_THE_BACKUP: &[&str] = &[
    "backup_label",
    "backup_manifest",
    "global/pg_control",
    "pg_wal",
    "postgresql.auto.conf",
    "recovery.signal",
    "seawall",
];

/// Proves that two data directories hold the same files with the same pages, but for hints, and for
/// what was changed after `since`: replay makes that right. Returns how many pages that were.
///
/// # Errors
/// The first file or page that differs.
pub fn same_pages(one: &Path, other: &Path, since: Lsn) -> Result<u64> {
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    files(one, one, &mut ours)?;
    files(other, other, &mut theirs)?;
    let differing: Vec<_> = ours.symmetric_difference(&theirs).take(5).collect();
    ensure!(differing.is_empty(), "only one has {differing:?}");
    let mut pages = 0;
    for file in ours {
        let [mut a, mut b] = [fs::read(one.join(&file))?, fs::read(other.join(&file))?];
        ensure!(a.len() == b.len(), "{file} has {} and {} bytes", a.len(), b.len());
        if a == b {
            pages += (a.len() / PAGE_BYTES) as u64;
            continue;
        }
        let is_relation = file.starts_with("base/") || file.starts_with("global/");
        ensure!(is_relation && a.len().is_multiple_of(PAGE_BYTES), "{file} differs");
        for (number, (a, b)) in a.chunks_mut(PAGE_BYTES).zip(b.chunks_mut(PAGE_BYTES)).enumerate() {
            if a != b && (lsn(a) > since || lsn(b) > since) {
                continue;
            }
            if a != b {
                let whole = "a page is shorter than one";
                mask(a).context(whole)?;
                mask(b).context(whole)?;
            }
            let at = a.iter().zip(b.iter()).position(|(a, b)| a != b);
            ensure!(at.is_none(), "{file}, page {number} differs at byte {at:?}");
            pages += 1;
        }
    }
    Ok(pages)
}

fn files(root: &Path, directory: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let relative = path.strip_prefix(root)?.to_string_lossy().into_owned();
        if OF_THE_BACKUP.iter().any(|prefix| relative.starts_with(prefix)) {
            continue;
        }
        if path.is_dir() {
            files(root, &path, found)?;
        } else {
            found.insert(relative);
        }
    }
    Ok(())
}

fn number(page: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; 2] = page.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_le_bytes(bytes).into())
}

/// `pd_lsn`.
fn lsn(page: &[u8]) -> Lsn {
    let half = |at: usize| {
        let bytes = page.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u64::from(u32::from_le_bytes(bytes.unwrap_or_default()))
    };
    Lsn(half(0) << 32 | half(4))
}

/// Clears what may differ. A page that is not laid out as one stays as it is.
fn mask(page: &mut [u8]) -> Option<()> {
    const LOWER: usize = 12;
    const SPECIAL: usize = 16;
    const HEADER: usize = 24;
    let (lower, special) = (number(page, LOWER)?, number(page, SPECIAL)?);
    let is_page = (HEADER..=special).contains(&lower) && special <= PAGE_BYTES;
    if !is_page || !(lower - HEADER).is_multiple_of(4) {
        return Some(());
    }
    // pd_lsn and pd_checksum; PD_HAS_FREE_LINES and PD_PAGE_FULL; pd_prune_xid.
    page.get_mut(0..10)?.fill(0);
    *page.get_mut(10)? &= !0b11;
    page.get_mut(20..24)?.fill(0);
    let is_heap = special == PAGE_BYTES;
    for item in (HEADER..lower).step_by(4) {
        let bytes: [u8; 4] = page.get(item..item + 4)?.try_into().ok()?;
        let line = u32::from_le_bytes(bytes);
        let (offset, flags) = ((line & 0x7fff) as usize, (line >> 15) & 0b11);
        if is_heap && flags == 1 {
            // HEAP_XACT_MASK's hints, in t_infomask.
            *page.get_mut(offset + 21)? &= !0x0f;
        }
        if !is_heap {
            // LP_DEAD is a hint in an index.
            let masked = line & !(0b11 << 15);
            page.get_mut(item..item + 4)?.copy_from_slice(&masked.to_le_bytes());
        }
    }
    if special + 16 == PAGE_BYTES {
        // BTP_HAS_GARBAGE, LH_PAGE_HAS_DEAD_TUPLES, F_HAS_GARBAGE.
        *page.get_mut(special + 12)? &= !0xd0;
    }
    Some(())
}
