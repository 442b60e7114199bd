use seawall_core::{Code, Error, Result};
use seawall_store::ObjectPath;

use super::{BackupInfo, Entry, Manifest, PackPageAddress, PageAddress};
use crate::cbor;
use crate::envelope::{Compressor, ObjectKind, ObjectSealer, Section};
use crate::keys::Keyring;
use crate::map::MapInfo;
use crate::pack::PackInfo;

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
        })
    }

    /// Adds the next entry.
    ///
    /// # Errors
    /// [`Code::Internal`] if its path does not come after the last one's.
    pub fn entry(&mut self, entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
        if self.last_path.as_deref().is_some_and(|last| last >= entry.path()) {
            let path = String::from_utf8_lossy(entry.path());
            return Err(Error::new(Code::Internal, format!("manifest entry {path} out of order")));
        }
        self.last_path = Some(entry.path().to_vec());
        if self.page_entries == 0 {
            self.page_first = entry.path().to_vec();
        }
        self.page.extend_from_slice(&cbor::encode(entry));
        self.page_entries += 1;
        if self.page.len() >= PAGE_BYTES { self.close_page(out) } else { Ok(()) }
    }

    /// Ends the manifest. `packs` and `maps` are the lists that the entries' indexes count.
    ///
    /// # Errors
    /// [`Code::Internal`] if a part cannot be sealed.
    pub fn finish(
        mut self,
        info: BackupInfo,
        packs: &[PackInfo],
        maps: Vec<MapInfo>,
        out: &mut Vec<u8>,
    ) -> Result<u64> {
        self.close_page(out)?;
        let mut pack_pages = Vec::new();
        for page in packs.chunks(PACKS_PER_PAGE) {
            let offset = self.sealer.offset();
            let bytes = cbor::encode(&page);
            let length =
                self.sealer.chunk(Section::SECOND, &bytes, Some(&mut self.compressor), out)?;
            pack_pages.push(PackPageAddress { offset, length, packs: page.len() as u32 });
        }
        let manifest = Manifest { info, pages: self.pages, pack_pages, maps };
        self.sealer.finish(&manifest.encode(), out)
    }

    fn close_page(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.page_entries == 0 {
            return Ok(());
        }
        let mut plaintext = Vec::with_capacity(self.page.len() + 5);
        cbor::array_head(self.page_entries, &mut plaintext);
        plaintext.append(&mut self.page);
        let offset = self.sealer.offset();
        let length =
            self.sealer.chunk(Section::FIRST, &plaintext, Some(&mut self.compressor), out)?;
        self.pages.push(PageAddress {
            first_path: std::mem::take(&mut self.page_first).into(),
            offset,
            length,
            entries: self.page_entries,
        });
        self.page_entries = 0;
        Ok(())
    }
}
