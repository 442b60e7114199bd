use seawall_core::{Code, Error, Result};
use seawall_store::{ObjectPath, Store};

use super::{Entry, Manifest};
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
        let counter = index as u32;
        let entries: Vec<Entry> =
            self.chunk(store, Section::FIRST, counter, address.offset, address.length).await?;
        let sorted = entries.is_sorted_by(|a, b| a.path() < b.path());
        let first = entries.first().map(Entry::path) == Some(&address.first_path);
        let next = self.manifest.pages.get(index + 1).map(|next| &next.first_path);
        let before_next = next
            .is_none_or(|next| entries.last().is_some_and(|last| last.path() < next.as_slice()));
        if sorted && first && before_next && entries.len() == address.entries as usize {
            Ok(entries)
        } else {
            Err(error::inconsistent(&self.path, format!("page {index} is out of order")))
        }
    }

    /// Reads the pack list.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn packs(&self, store: &dyn Store) -> Result<Vec<PackInfo>> {
        let mut packs = Vec::new();
        for (counter, address) in self.manifest.pack_pages.iter().enumerate() {
            let page: Vec<PackInfo> = self
                .chunk(store, Section::SECOND, counter as u32, address.offset, address.length)
                .await?;
            if page.len() != address.packs as usize {
                return Err(error::inconsistent(&self.path, "a page of its pack list is cut"));
            }
            packs.extend(page);
        }
        Ok(packs)
    }

    async fn chunk<T>(
        &self,
        store: &dyn Store,
        section: Section,
        counter: u32,
        offset: u64,
        length: u32,
    ) -> Result<T>
    where
        T: for<'b> minicbor::Decode<'b, ()>,
    {
        let end = offset.saturating_add(u64::from(length));
        let mut bytes: Vec<u8> = store.read_range(&self.path, offset..end).await?.into();
        let mut plaintext = Vec::new();
        let open = |damage: Damage| damage.at(&self.path);
        self.opener
            .chunk(section, counter, &mut bytes, offset, &mut Decompressor::new()?, &mut plaintext)
            .map_err(open)?;
        cbor::decode(&plaintext).map_err(open)
    }
}
