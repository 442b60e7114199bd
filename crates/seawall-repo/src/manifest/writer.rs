use seawall_core::{Code, Error, Result};
use seawall_store::ObjectPath;

use super::reader::{decode_pack_page, decode_page};
use super::{BackupInfo, Content, Entry, Manifest, PackPageAddress, PageAddress};
use crate::envelope::{Compressor, ObjectKind, ObjectSealer, Section};
use crate::keys::Keyring;
use crate::map::MapInfo;
use crate::pack::PackInfo;
use crate::{Damage, cbor, error};

/// A page is closed when its entries have so many bytes: pages decode alone, in bounded memory.
const PAGE_BYTES: usize = 256 * 1024;

/// Packs on one page of the pack list.
const PACKS_PER_PAGE: usize = 4096;

/// Makes a manifest from entries that come in path order, holding one page at a time.
#[derive(Debug)]
pub struct ManifestWriter {
    sealer: ObjectSealer,
    compressor: Compressor,
    page: Vec<u8>,
    page_entries: u32,
    page_first: Vec<u8>,
    last_path: Option<Vec<u8>>,
    pages: Vec<PageAddress>,
    /// How many packs and maps the entries count on.
    packs_named: usize,
    maps_named: usize,
}

impl ManifestWriter {
    /// Begins the manifest at `path`.
    ///
    /// # Errors
    /// [`Code::Internal`] without randomness.
    pub fn begin(keyring: &Keyring, path: &ObjectPath, out: &mut Vec<u8>) -> Result<Self> {
        Ok(Self {
            sealer: ObjectSealer::begin(keyring, ObjectKind::Manifest, path, out)?,
            compressor: Compressor::new(3)?,
            page: Vec::new(),
            page_entries: 0,
            page_first: Vec::new(),
            last_path: None,
            pages: Vec::new(),
            packs_named: 0,
            maps_named: 0,
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
        if self.page_entries == 0 {
            self.page_first = entry.path().to_vec();
        }
        let after = |index: u32| (index as usize).saturating_add(1);
        match &entry.content {
            None => {}
            Some(Content::Blob { pack, .. }) => {
                self.packs_named = self.packs_named.max(after(*pack));
            }
            Some(Content::Mapped(leaves)) => {
                let named = after(leaves.runs.map).max(after(leaves.hashes.map));
                self.maps_named = self.maps_named.max(named);
            }
        }
        self.page.extend_from_slice(&cbor::encode(entry));
        self.page_entries += 1;
        if self.page.len() >= PAGE_BYTES { self.close_page(out) } else { Ok(()) }
    }

    /// Ends the manifest. `packs` and `maps` are the lists that the entries' indexes count.
    ///
    /// # Errors
    /// [`Code::Internal`] if a part would not be read again.
    pub fn finish(
        mut self,
        info: BackupInfo,
        packs: &[PackInfo],
        maps: Vec<MapInfo>,
        out: &mut Vec<u8>,
    ) -> Result<u64> {
        self.close_page(out)?;
        if self.packs_named > packs.len() || self.maps_named > maps.len() {
            let what = "its entries name packs or maps that it does not list";
            return Err(unreadable(&Damage::Content(what.to_owned())));
        }
        let mut pack_pages = Vec::new();
        for page in packs.chunks(PACKS_PER_PAGE) {
            pack_pages.push(self.pack_page(page, out)?);
        }
        let manifest = Manifest { info, pages: self.pages, pack_pages, maps };
        let footer = manifest.encode();
        Manifest::decode(&footer).map_err(|damage| unreadable(&damage))?;
        self.sealer.finish(&footer, out)
    }

    fn pack_page(&mut self, packs: &[PackInfo], out: &mut Vec<u8>) -> Result<PackPageAddress> {
        let offset = self.sealer.offset();
        let plaintext = cbor::encode(&packs);
        // A page has few.
        let packs = u32::try_from(packs.len()).unwrap_or(u32::MAX);
        let mut address = PackPageAddress { offset, length: 0, packs };
        decode_pack_page(&plaintext, address).map_err(|damage| unreadable(&damage))?;
        let compressor = Some(&mut self.compressor);
        address.length = self.sealer.chunk(Section::SECOND, &plaintext, compressor, out)?;
        Ok(address)
    }

    fn close_page(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.page_entries == 0 {
            return Ok(());
        }
        let mut plaintext = Vec::with_capacity(self.page.len() + 5);
        cbor::array_head(self.page_entries, &mut plaintext);
        plaintext.append(&mut self.page);
        let mut address = PageAddress {
            first_path: std::mem::take(&mut self.page_first).into(),
            offset: self.sealer.offset(),
            length: 0,
            entries: self.page_entries,
        };
        decode_page(&plaintext, &address).map_err(|damage| unreadable(&damage))?;
        let compressor = Some(&mut self.compressor);
        address.length = self.sealer.chunk(Section::FIRST, &plaintext, compressor, out)?;
        self.pages.push(address);
        self.page_entries = 0;
        Ok(())
    }
}

fn unreadable(damage: &Damage) -> Error {
    error::unreadable("manifest", damage)
}
