use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use seawall_core::{Action, Code, Error, Result, Ulid, hint};
use seawall_repo::Line;
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::ManifestReader;
use seawall_repo::map::{LeafPair, MapReader};
use seawall_repo::pack::{FrameTable, PackInfo};
use seawall_store::{ObjectPath, Store};

/// The objects one backup's bytes are in, opened as they are needed.
#[derive(Debug)]
pub(crate) struct Sources {
    line: Line,
    packs: Vec<PackInfo>,
    by_id: BTreeMap<Ulid, usize>,
    maps: BTreeMap<Ulid, MapReader>,
    /// Frame tables, the one used last at the end.
    tables: Mutex<Vec<(usize, Arc<FrameTable>)>>,
    tables_bytes_max: usize,
}

impl Sources {
    /// Reads the pack list and opens the maps. `tables_bytes_max` bounds the frame tables kept.
    pub async fn open(
        line: &Line,
        manifest: &ManifestReader,
        tables_bytes_max: usize,
    ) -> Result<Self> {
        let packs = manifest.packs(line.store()).await?;
        let by_id = packs.iter().enumerate().map(|(number, pack)| (pack.id, number)).collect();
        let mut maps = BTreeMap::new();
        for info in &manifest.commit.parts.maps {
            let path = line.paths().path(&LineObject::Map(info.id))?;
            let map = MapReader::read(line.store(), line.keyring(), &path, info).await?;
            maps.insert(info.id, map);
        }
        let tables = Mutex::new(Vec::new());
        Ok(Self { line: line.clone(), packs, by_id, maps, tables, tables_bytes_max })
    }

    /// Bounds the frame tables kept anew.
    pub const fn keep(&mut self, tables_bytes_max: usize) {
        self.tables_bytes_max = tables_bytes_max;
    }

    /// The store everything is in.
    pub fn store(&self) -> &dyn Store {
        self.line.store()
    }

    /// The line everything is of.
    pub const fn line(&self) -> &Line {
        &self.line
    }

    /// How many packs the backup uses.
    pub fn packs(&self) -> usize {
        self.packs.len()
    }

    /// The objects that hold the backup's bytes and say where they are.
    pub fn objects(&self, manifest: &ManifestReader) -> Result<Vec<ObjectPath>> {
        let parts = &manifest.commit.parts;
        let packs = self.packs.iter().map(|pack| LineObject::Pack(pack.id));
        let maps = parts.maps.iter().map(|map| LineObject::Map(map.id));
        let manifests = parts.manifests.iter().map(|manifest| LineObject::Manifest(manifest.id));
        let objects = packs.chain(maps).chain(manifests);
        objects.map(|object| self.line.paths().path(&object)).collect()
    }

    /// Proves that the backup lists the packs and maps that its files are in, each once, and no
    /// other: what is not listed is not kept, and what is listed is kept for nothing.
    pub fn prove_lists(&self, packs: &BTreeSet<Ulid>, maps: &BTreeSet<Ulid>) -> Result<()> {
        let listed = (self.by_id.len(), self.maps.len());
        if self.by_id.keys().eq(packs) && self.maps.keys().eq(maps) && self.packs.len() == listed.0
        {
            return Ok(());
        }
        Err(inconsistent(format!(
            "the backup lists {} packs and {} maps, and its files are in {} and {}",
            self.packs.len(),
            listed.1,
            packs.len(),
            maps.len()
        )))
    }

    /// The number of a pack that a file is in.
    pub fn pack_number(&self, id: Ulid) -> Result<usize> {
        self.by_id.get(&id).copied().ok_or_else(|| {
            inconsistent(format!("a file is in pack {id}, which the backup does not list"))
        })
    }

    /// The map that holds a file's leaves.
    pub fn map_of(&self, leaves: &LeafPair) -> Result<(&MapReader, &MapReader)> {
        let map = |id: Ulid| {
            self.maps.get(&id).ok_or_else(|| {
                inconsistent(format!("a file is in map {id}, which the backup does not list"))
            })
        };
        Ok((map(leaves.runs.map)?, map(leaves.hashes.map)?))
    }

    /// Reads a pack's frame table and proves that the pack is the one the backup names.
    pub async fn read_table(&self, number: usize) -> Result<FrameTable> {
        let info = self
            .packs
            .get(number)
            .ok_or_else(|| inconsistent(format!("the backup does not list a pack {number}")))?;
        let path = self.line.paths().path(&LineObject::Pack(info.id))?;
        FrameTable::read(self.store(), self.line.keyring(), &path, info).await
    }

    /// A pack's frame table, kept for the next one who asks.
    pub async fn table(&self, number: usize) -> Result<Arc<FrameTable>> {
        if let Some(table) = self.cached(number) {
            return Ok(table);
        }
        let table = Arc::new(self.read_table(number).await?);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.push((number, Arc::clone(&table)));
        let mut bytes: usize = tables.iter().map(|(_, table)| table.memory_bytes()).sum();
        while bytes > self.tables_bytes_max && tables.len() > 1 {
            bytes -= tables.remove(0).1.memory_bytes();
        }
        Ok(table)
    }

    fn cached(&self, number: usize) -> Option<Arc<FrameTable>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let index = tables.iter().position(|(known, _)| *known == number)?;
        let entry = tables.remove(index);
        let table = Arc::clone(&entry.1);
        tables.push(entry);
        Some(table)
    }
}

/// What a backup says contradicts what is stored.
pub(crate) fn inconsistent(what: String) -> Error {
    Error::new(Code::ObjectInconsistent, what).with_hint(hint![
        "Run ",
        Action::Verify,
        " to learn which backups are affected."
    ])
}
