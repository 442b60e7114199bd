use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use seawall_core::{Result, Ulid};
use seawall_pgdata::Cursor;

use crate::durable::{local, remove, sync_filesystems};
use crate::stored::Layout;

/// The name of the journal, beside the restore's state.
pub(in crate::restore) const FILE_NAME: &str = "seawall.restore.journal";

/// A record: number of the entry, CRC-32C of its file, and a checksum of both.
const RECORD_BYTES: usize = 12;

/// So many bytes may have to be written again after an interruption.
const CHECKPOINT_BYTES: u64 = 1 << 30;

/// So many files may have to be written again.
const CHECKPOINT_FILES: usize = 20_000;

/// Which files are finished, and their checksums.
///
/// A file is in the file of this name only once its bytes are durable. Losing records costs time,
/// never correctness.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    seed: u32,
    finished: Mutex<Finished>,
    file: Mutex<File>,
}

#[derive(Debug)]
struct Finished {
    /// For each entry of the manifest whether its file is finished, and its CRC-32C.
    entries: Vec<Option<u32>>,
    /// Finished, and perhaps not durable yet.
    pending: Vec<u8>,
    pending_bytes: u64,
}

impl Journal {
    /// Opens the journal of a restore, or begins it. `entries` is how many entries the manifest
    /// has.
    pub fn open(data_directory: &Path, restore_id: Ulid, entries: usize) -> Result<Self> {
        let path = data_directory.join(FILE_NAME);
        let seed = crc32c::crc32c(&restore_id.to_bytes());
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(local(error, "reading", &path)),
        };
        let mut finished =
            Finished { entries: vec![None; entries], pending: Vec::new(), pending_bytes: 0 };
        let mut valid_bytes = 0;
        for record in bytes.chunks_exact(RECORD_BYTES) {
            // What follows a record that was cut by a crash is not read.
            let Some((number, crc)) = decode(seed, record) else { break };
            if let Some(entry) = finished.entries.get_mut(number as usize) {
                *entry = Some(crc);
            }
            valid_bytes += RECORD_BYTES as u64;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let file = file.and_then(|file| file.set_len(valid_bytes).map(|()| file));
        let file = file.map_err(|error| local(error, "opening", &path))?;
        Ok(Self { path, seed, finished: Mutex::new(finished), file: Mutex::new(file) })
    }

    /// The CRC-32C of an entry's file, if it is finished.
    pub fn finished(&self, number: u32) -> Option<u32> {
        self.lock().entries.get(number as usize).copied().flatten()
    }

    /// Notes a finished file. Now and then this waits until what was written is durable.
    pub fn note(&self, number: u32, crc: u32, bytes: u64, layout: &Layout) -> Result<()> {
        let mut finished = self.lock();
        if let Some(entry) = finished.entries.get_mut(number as usize) {
            *entry = Some(crc);
        }
        let record = encode(self.seed, number, crc);
        finished.pending.extend_from_slice(&record);
        finished.pending_bytes += bytes;
        let due = finished.pending_bytes >= CHECKPOINT_BYTES
            || finished.pending.len() >= CHECKPOINT_FILES * RECORD_BYTES;
        drop(finished);
        if due { self.settle(layout) } else { Ok(()) }
    }

    /// Makes everything that was written durable, and remembers it.
    pub fn settle(&self, layout: &Layout) -> Result<()> {
        let mut finished = self.lock();
        let pending = std::mem::take(&mut finished.pending);
        finished.pending_bytes = 0;
        drop(finished);
        self.checkpoint(&pending, layout)
    }

    fn checkpoint(&self, pending: &[u8], layout: &Layout) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        sync_filesystems(layout.directories())?;
        file.write_all(pending)
            .and_then(|()| file.sync_data())
            .map_err(|error| local(error, "writing", &self.path))
    }

    /// Removes the journal: all files are finished and durable.
    pub fn remove(data_directory: &Path) -> Result<()> {
        remove(&data_directory.join(FILE_NAME))
    }

    fn lock(&self) -> MutexGuard<'_, Finished> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode(seed: u32, number: u32, crc: u32) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    let body: Vec<u8> = number.to_le_bytes().into_iter().chain(crc.to_le_bytes()).collect();
    let check = crc32c::crc32c_append(seed, &body).to_le_bytes();
    record.iter_mut().zip(body.into_iter().chain(check)).for_each(|(to, from)| *to = from);
    record
}

fn decode(seed: u32, record: &[u8]) -> Option<(u32, u32)> {
    let mut cursor = Cursor::new(record);
    let (number, crc) = (cursor.u32().ok()?, cursor.u32().ok()?);
    (encode(seed, number, crc) == record).then_some((number, crc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_pgdata::tablespace_map::TablespaceMap;

    const ID: Ulid = Ulid(7);

    fn layout(dir: &Path) -> Layout {
        Layout::new(dir.to_owned(), &TablespaceMap::default())
    }

    #[test]
    fn what_was_made_durable_is_known_after_a_crash_and_the_rest_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), ID, 10).unwrap();
        journal.note(3, 0xAB, CHECKPOINT_BYTES, &layout(dir.path())).unwrap();
        journal.note(4, 0xCD, 1, &layout(dir.path())).unwrap();
        assert_eq!(journal.finished(4), Some(0xCD));
        let reopened = Journal::open(dir.path(), ID, 10).unwrap();
        assert_eq!((reopened.finished(3), reopened.finished(4)), (Some(0xAB), None));
    }

    #[test]
    fn a_torn_record_and_another_restores_records_count_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let journal = Journal::open(dir.path(), ID, 10).unwrap();
        journal.note(1, 1, CHECKPOINT_BYTES, &layout).unwrap();
        journal.note(2, 2, CHECKPOINT_BYTES, &layout).unwrap();
        let path = dir.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let torn = Journal::open(dir.path(), ID, 10).unwrap();
        assert_eq!((torn.finished(1), torn.finished(2)), (Some(1), None));
        torn.note(2, 2, CHECKPOINT_BYTES, &layout).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole, "it goes on behind the last whole record");
        let other = Journal::open(dir.path(), Ulid(8), 10).unwrap();
        assert_eq!(other.finished(1), None);
    }
}
