use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use seawall_core::Result;
use seawall_store::{ObjectPath, Store};

use super::{Commit, Entry, ManifestFooter, ManifestInfo, PackPageAddress, Page, PageAddress};
use crate::envelope::{Decompressor, ObjectKind, ObjectOpener, Section, read_ends};
use crate::hash::ContentHasher;
use crate::keys::Keyring;
use crate::layout::{LineObject, LinePaths};
use crate::pack::PackInfo;
use crate::{Damage, READS_AT_ONCE, cbor, error};

/// Reads a backup's files page by page, from whichever manifests they are in.
#[derive(Debug)]
pub struct ManifestReader {
    /// What makes the backup.
    pub commit: Commit,
    path: ObjectPath,
    manifests: Vec<OpenManifest>,
    hasher: ContentHasher,
}

/// A manifest whose ends were read.
#[derive(Debug)]
struct OpenManifest {
    path: ObjectPath,
    opener: ObjectOpener,
    footer: ManifestFooter,
    /// Where its pages end.
    pages_end: u64,
}

/// Where a page is, of entries or of packs.
#[derive(Clone, Copy)]
struct ChunkPlace {
    section: Section,
    manifest: u32,
    counter: u32,
    offset: u64,
    length: u32,
}

impl ManifestReader {
    /// Opens the manifests that the commit at `path` names, many at a time.
    ///
    /// # Errors
    /// Damage, a missing object, or a store that fails: of the first manifest, in the order of the
    /// commit, with which something is wrong.
    pub async fn open(
        store: &dyn Store,
        keyring: &Keyring,
        paths: &LinePaths,
        path: ObjectPath,
        commit: Commit,
    ) -> Result<Self> {
        let opening = commit.parts.manifests.iter().map(async |info| {
            let path = paths.path(&LineObject::Manifest(info.id))?;
            OpenManifest::read(store, keyring, path, info).await
        });
        let manifests = stream::iter(opening).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(Self { commit, path, manifests, hasher: keyring.hasher().clone() })
    }

    /// How many pages of entries there are.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.commit.parts.pages.len()
    }

    /// Reads one page of entries.
    ///
    /// # Errors
    /// Damage, a page that is not there, or a store that fails.
    pub async fn page(&self, store: &dyn Store, index: usize) -> Result<Vec<Entry>> {
        let pages = &self.commit.parts.pages;
        let address = pages
            .get(index)
            .ok_or_else(|| error::inconsistent(&self.path, format!("it has no page {index}")))?;
        let place = ChunkPlace {
            section: Section::FIRST,
            manifest: address.manifest,
            counter: address.counter,
            offset: address.offset,
            length: address.length,
        };
        let (path, plaintext) = self.chunk(store, place).await?;
        if self.hasher.object(&plaintext) != address.hash {
            return Err(error::inconsistent(path, "a page is not the one that a backup names"));
        }
        let entries = decode_page(&plaintext, address).map_err(|damage| damage.at(path))?;
        let next = pages.get(index + 1).map(|next| &next.first_path);
        let before_next = next
            .is_none_or(|next| entries.last().is_some_and(|last| last.path() < next.as_slice()));
        if before_next {
            Ok(entries)
        } else {
            Err(error::inconsistent(&self.path, format!("page {index} is out of order")))
        }
    }

    /// Reads the list of all packs of the backup.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn packs(&self, store: &dyn Store) -> Result<Vec<PackInfo>> {
        let mut packs = Vec::new();
        for address in &self.commit.parts.pack_pages {
            let place = ChunkPlace {
                section: Section::SECOND,
                manifest: address.manifest,
                counter: address.counter,
                offset: address.offset,
                length: address.length,
            };
            let (path, plaintext) = self.chunk(store, place).await?;
            let page = decode_pack_page(&plaintext, address);
            packs.extend(page.map_err(|damage| damage.at(path))?);
        }
        Ok(packs)
    }

    /// A page's plaintext, and the manifest it is in.
    async fn chunk(&self, store: &dyn Store, place: ChunkPlace) -> Result<(&ObjectPath, Vec<u8>)> {
        let nowhere = |what: &str| error::inconsistent(&self.path, format!("it names {what}"));
        let manifest = usize::try_from(place.manifest)
            .ok()
            .and_then(|index| self.manifests.get(index))
            .ok_or_else(|| nowhere("a manifest that it does not list"))?;
        let end = place.offset.saturating_add(u64::from(place.length));
        if place.counter >= manifest.footer.pages_of(place.section) || end > manifest.pages_end {
            return Err(nowhere("a page that its manifest does not have"));
        }
        let path = &manifest.path;
        let mut bytes: Vec<u8> = store.read_range(path, place.offset..end).await?.into();
        let (mut decompressor, mut plaintext) = (Decompressor::new()?, Vec::new());
        let ChunkPlace { section, counter, offset, .. } = place;
        manifest
            .opener
            .chunk(section, counter, &mut bytes, offset, &mut decompressor, &mut plaintext)
            .map_err(|damage| damage.at(path))?;
        Ok((path, plaintext))
    }
}

impl OpenManifest {
    async fn read(
        store: &dyn Store,
        keyring: &Keyring,
        path: ObjectPath,
        expected: &ManifestInfo,
    ) -> Result<Self> {
        let ends = read_ends(store, keyring, ObjectKind::Manifest, &path).await?;
        let hash = keyring.hasher().object(&ends.footer);
        if ends.length_bytes != expected.length_bytes || hash != expected.footer_hash {
            return Err(error::inconsistent(&path, "it is not the manifest the backup names"));
        }
        let footer = cbor::decode(&ends.footer).map_err(|damage| damage.at(&path))?;
        Ok(Self { path, opener: ends.opener, footer, pages_end: ends.footer_offset })
    }
}

/// Reads a page of entries. Whoever writes one reads it first.
pub(super) fn decode_page(
    plaintext: &[u8],
    address: &PageAddress,
) -> std::result::Result<Vec<Entry>, Damage> {
    let Page(entries) = cbor::decode(plaintext)?;
    if let Some((entry, what)) =
        entries.iter().find_map(|entry| Some((entry, entry.check().err()?)))
    {
        let path = String::from_utf8_lossy(entry.path());
        return Err(Damage::Content(format!("the entry of {path} {what}")));
    }
    let sorted = entries.is_sorted_by(|a, b| a.path() < b.path());
    let first = entries.first().map(Entry::path) == Some(&address.first_path);
    if sorted && first && entries.len() == address.entries as usize {
        Ok(entries)
    } else {
        Err(Damage::Content("a page of entries is out of order".to_owned()))
    }
}

/// Reads a page of a list of packs.
pub(super) fn decode_pack_page(
    plaintext: &[u8],
    address: &PackPageAddress,
) -> std::result::Result<Vec<PackInfo>, Damage> {
    let page: Vec<PackInfo> = cbor::decode(plaintext)?;
    if page.len() == address.packs as usize {
        Ok(page)
    } else {
        Err(Damage::Content("a page of a list of packs is cut".to_owned()))
    }
}
