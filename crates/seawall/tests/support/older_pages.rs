//! Backups that a test makes itself, of pages of its own and of an older backup's.

use seawall_repo::manifest::{PackPageAddress, PageAddress, Parts};

/// Lets a backup have the files of an older one before its own: the older manifest becomes its
/// second.
pub fn put_before(parts: &mut Parts, older: Parts) {
    parts.manifests.extend(older.manifests);
    let pages = older.pages.into_iter().map(|page| PageAddress { manifest: 1, ..page });
    parts.pages.splice(0..0, pages);
    let packs = older.pack_pages.into_iter();
    parts.pack_pages.extend(packs.map(|page| PackPageAddress { manifest: 1, ..page }));
    parts.maps.extend(older.maps);
}
