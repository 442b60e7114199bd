use seawall_core::{Code, Error, Result};
use seawall_store::{ObjectPath, Store};

use super::{Entry, Manifest, PackPageAddress, PageAddress};
use crate::envelope::{Decompressor, ObjectKind, ObjectOpener, Section, read_ends};
use crate::keys::Keyring;
use crate::pack::PackInfo;
use crate::{Damage, cbor, error};

/// Reads a manifest page by page.
#[derive(Debug)]
pub struct ManifestReader {
    path: ObjectPath,
    opener: ObjectOpener,
    /// What the footer says.
    pub manifest: Manifest,
}

impl ManifestReader {
    /// Reads and authenticates a manifest's footer.
    ///
    /// # Errors
    /// Damage, a missing object, a store that fails, or a feature this program does not know.
    pub async fn read(store: &dyn Store, keyring: &Keyring, path: &ObjectPath) -> Result<Self> {
        let ends = read_ends(store, keyring, ObjectKind::Manifest, path).await?;
        let manifest = Manifest::decode(&ends.footer).map_err(|damage| damage.at(path))?;
        if let Some(feature) = manifest.info.required_features.first() {
            return Err(Error::new(
                Code::UnknownFormat,
                format!("{path} needs the feature \"{feature}\", which this program does not know"),
            )
            .with_hint("Use the Seawall that made the backup, or a newer one."));
        }
        Ok(Self { path: path.clone(), opener: ends.opener, manifest })
    }

    /// How many pages of entries there are.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.manifest.pages.len()
    }

    /// Reads one page of entries.
    ///
    /// # Errors
    /// Damage, a page that is not there, or a store that fails.
    pub async fn page(&self, store: &dyn Store, index: usize) -> Result<Vec<Entry>> {
        let address =
            self.manifest.pages.get(index).ok_or_else(|| {
                error::inconsistent(&self.path, format!("it has no page {index}"))
            })?;
        let out_of_order =
            || error::inconsistent(&self.path, format!("page {index} is out of order"));
        let counter = u32::try_from(index).map_err(|_| out_of_order())?;
        let (section, offset, length) = (Section::FIRST, address.offset, address.length);
        let plaintext = self.chunk(store, section, counter, offset, length).await?;
        let entries = decode_page(&plaintext, address).map_err(|damage| damage.at(&self.path))?;
        let next = self.manifest.pages.get(index + 1).map(|next| &next.first_path);
        let before_next = next
            .is_none_or(|next| entries.last().is_some_and(|last| last.path() < next.as_slice()));
        if before_next { Ok(entries) } else { Err(out_of_order()) }
    }

    /// Reads the pack list.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn packs(&self, store: &dyn Store) -> Result<Vec<PackInfo>> {
        let mut packs = Vec::new();
        for (counter, address) in (0..).zip(&self.manifest.pack_pages) {
            let (section, offset, length) = (Section::SECOND, address.offset, address.length);
            let plaintext = self.chunk(store, section, counter, offset, length).await?;
            let page = decode_pack_page(&plaintext, *address);
            packs.extend(page.map_err(|damage| damage.at(&self.path))?);
        }
        Ok(packs)
    }

    async fn chunk(
        &self,
        store: &dyn Store,
        section: Section,
        counter: u32,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>> {
        let end = offset.saturating_add(u64::from(length));
        let mut bytes: Vec<u8> = store.read_range(&self.path, offset..end).await?.into();
        let mut plaintext = Vec::new();
        self.opener
            .chunk(section, counter, &mut bytes, offset, &mut Decompressor::new()?, &mut plaintext)
            .map_err(|damage| damage.at(&self.path))?;
        Ok(plaintext)
    }
}

/// Reads a page of entries. Whoever writes one reads it first.
pub(super) fn decode_page(
    plaintext: &[u8],
    address: &PageAddress,
) -> std::result::Result<Vec<Entry>, Damage> {
    let entries: Vec<Entry> = cbor::decode(plaintext)?;
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

/// Reads a page of the pack list.
pub(super) fn decode_pack_page(
    plaintext: &[u8],
    address: PackPageAddress,
) -> std::result::Result<Vec<PackInfo>, Damage> {
    let page: Vec<PackInfo> = cbor::decode(plaintext)?;
    if page.len() == address.packs as usize {
        Ok(page)
    } else {
        Err(Damage::Content("a page of the pack list is cut".to_owned()))
    }
}
