use std::collections::BTreeSet;

use seawall_core::{Code, Error, Result, Ulid};
use seawall_store::ObjectPath;

use super::page::PageBuilder;
use super::reader::{decode_pack_page, decode_page};
use super::{Entry, ManifestFooter, ManifestInfo, PackPageAddress, PageAddress, Parts};
use crate::envelope::{Compressor, ObjectKind, ObjectSealer, Section};
use crate::hash::ContentHasher;
use crate::keys::Keyring;
use crate::map::MapInfo;
use crate::pack::PackInfo;
use crate::{Damage, cbor, error};

/// A page is closed when its entries have so many bytes: pages decode alone, in bounded memory.
const ENTRY_PAGE_BYTES: usize = 256 * 1024;

/// Packs on one page of a pack list.
const PACKS_PER_PAGE: usize = 4096;

/// Makes a manifest from entries that come in path order, holding one page at a time.
#[derive(Debug)]
pub struct ManifestWriter {
    id: Ulid,
    sealer: ObjectSealer,
    hasher: ContentHasher,
    compressor: Compressor,
    page: PageBuilder,
    page_first: Vec<u8>,
    last_path: Option<Vec<u8>>,
    pages: Vec<PageAddress>,
    /// The packs and maps the entries are in.
    packs: BTreeSet<Ulid>,
    maps: BTreeSet<Ulid>,
}

impl ManifestWriter {
    /// Begins the manifest `id` at `path`.
    ///
    /// # Errors
    /// [`Code::Internal`] without randomness.
    pub fn begin(
        keyring: &Keyring,
        id: Ulid,
        path: &ObjectPath,
        out: &mut Vec<u8>,
    ) -> Result<Self> {
        Ok(Self {
            id,
            sealer: ObjectSealer::begin(keyring, ObjectKind::Manifest, path, out)?,
            hasher: keyring.hasher().clone(),
            compressor: Compressor::new(3)?,
            page: PageBuilder::default(),
            page_first: Vec::new(),
            last_path: None,
            pages: Vec::new(),
            packs: BTreeSet::new(),
            maps: BTreeSet::new(),
        })
    }

    /// Adds the next entry.
    ///
    /// # Errors
    /// [`Code::Internal`] if its path does not come after the last one's, or if its page would not
    /// be read again.
    pub fn entry(&mut self, entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
        if self.last_path.as_deref().is_some_and(|last| last >= entry.path()) {
            let path = String::from_utf8_lossy(entry.path());
            return Err(Error::new(Code::Internal, format!("manifest entry {path} out of order")));
        }
        self.last_path = Some(entry.path().to_vec());
        if self.page.entries() == 0 {
            self.page_first = entry.path().to_vec();
        }
        self.packs.extend(entry.packs());
        self.maps.extend(entry.maps());
        self.page.add(entry);
        if self.page.bytes() >= ENTRY_PAGE_BYTES { self.close_page(out) } else { Ok(()) }
    }

    /// Ends the manifest. `packs` and `maps` have those the entries are in, and may have others.
    /// Gives what a commit says of a backup of these entries.
    ///
    /// # Errors
    /// [`Code::Internal`] if a pack or map is not among them, or a part would not be read again.
    pub fn finish(
        mut self,
        packs: &[PackInfo],
        maps: &[MapInfo],
        out: &mut Vec<u8>,
    ) -> Result<Parts> {
        self.close_page(out)?;
        let packs: Vec<PackInfo> =
            packs.iter().filter(|pack| self.packs.remove(&pack.id)).copied().collect();
        let maps: Vec<MapInfo> =
            maps.iter().filter(|map| self.maps.remove(&map.id)).copied().collect();
        if !self.packs.is_empty() || !self.maps.is_empty() {
            let what = "its entries name packs or maps that were never finished";
            return Err(unreadable(&Damage::Content(what.to_owned())));
        }
        let mut pack_pages = Vec::new();
        for page in packs.chunks(PACKS_PER_PAGE) {
            let address = self.pack_page(page, number(pack_pages.len())?, out)?;
            pack_pages.push(address);
        }
        let (pages, pack_page_count) = (number(self.pages.len())?, number(pack_pages.len())?);
        let footer = cbor::encode(&ManifestFooter { pages, pack_pages: pack_page_count });
        let footer_hash = self.hasher.object(&footer);
        let length_bytes = self.sealer.finish(&footer, out)?;
        let manifest = ManifestInfo { id: self.id, length_bytes, footer_hash };
        Ok(Parts { pages: self.pages, pack_pages, maps, manifests: vec![manifest] })
    }

    fn pack_page(
        &mut self,
        packs: &[PackInfo],
        counter: u32,
        out: &mut Vec<u8>,
    ) -> Result<PackPageAddress> {
        let offset = self.sealer.offset();
        let plaintext = cbor::encode(&packs);
        let packs = number(packs.len())?;
        let mut address = PackPageAddress { manifest: 0, counter, offset, length: 0, packs };
        decode_pack_page(&plaintext, &address).map_err(|damage| unreadable(&damage))?;
        let compressor = Some(&mut self.compressor);
        address.length = self.sealer.chunk(Section::SECOND, &plaintext, compressor, out)?;
        Ok(address)
    }

    fn close_page(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.page.entries() == 0 {
            return Ok(());
        }
        let page = std::mem::take(&mut self.page);
        let entries = page.entries();
        let plaintext = page.finish();
        let mut address = PageAddress {
            first_path: std::mem::take(&mut self.page_first).into(),
            manifest: 0,
            counter: number(self.pages.len())?,
            offset: self.sealer.offset(),
            length: 0,
            entries,
            hash: self.hasher.object(&plaintext),
        };
        decode_page(&plaintext, &address).map_err(|damage| unreadable(&damage))?;
        let compressor = Some(&mut self.compressor);
        address.length = self.sealer.chunk(Section::FIRST, &plaintext, compressor, out)?;
        self.pages.push(address);
        Ok(())
    }
}

fn number(count: usize) -> Result<u32> {
    u32::try_from(count).map_err(|_| Error::new(Code::Internal, "a manifest has too many pages"))
}

fn unreadable(damage: &Damage) -> Error {
    error::unreadable("manifest", damage)
}
