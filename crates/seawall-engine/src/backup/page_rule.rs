use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use seawall_core::{BlockNumber, Code, Error, Lsn, Result};
use seawall_pgdata::page::{PAGE_BYTES, Page, PageFault, ReplayRange, accept_page, page_lsn};
use tokio::runtime::Handle;

use crate::cluster::Server;

/// A page that stays bad is read this often before it is called an error. PostgreSQL writes a page
/// with one call; what is torn now is whole a moment later.
const READS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// The position up to which replay is certain, asked of the server when it matters.
#[derive(Debug)]
pub(super) struct ReplayLimit {
    known: AtomicU64,
    server: Mutex<Server>,
    runtime: Handle,
}

impl ReplayLimit {
    pub fn new(start: Lsn, server: Server, runtime: Handle) -> Self {
        Self { known: AtomicU64::new(start.0), server: Mutex::new(server), runtime }
    }

    /// Whether a record at `lsn` had been written when this was called. Asking later than the page
    /// was read is what makes the answer sound.
    fn has_reached(&self, lsn: Lsn) -> Result<bool> {
        if lsn.0 <= self.known.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let mut server = self
            .server
            .lock()
            .map_err(|_| Error::new(Code::Internal, "a worker died while asking for the LSN"))?;
        let now = self.runtime.block_on(server.insert_lsn())?;
        self.known.fetch_max(now.0, Ordering::Relaxed);
        Ok(lsn <= now)
    }
}

/// What all pages of a backup are judged by.
#[derive(Debug)]
pub(super) struct PageRule {
    pub data_checksums: bool,
    pub start: Lsn,
    pub limit: ReplayLimit,
}

impl PageRule {
    /// Judges a page that was read from `file` at `offset`. A page that may not be stored is read
    /// again, into the same place; what is wrong with it then is returned, and it is stored anyway.
    pub fn judge(
        &self,
        page: &mut Page,
        block: BlockNumber,
        file: &File,
        offset: u64,
    ) -> Result<Option<PageFault>> {
        let Some(mut fault) = self.verdict(page, block)? else { return Ok(None) };
        for _ in 1..READS {
            sleep(PAUSE);
            let mut again = [0; PAGE_BYTES];
            // A page that is gone was truncated away; WAL says so too.
            if file.read_exact_at(&mut again, offset).is_err() {
                return Ok(None);
            }
            *page = again;
            match self.verdict(page, block)? {
                Some(still) => fault = still,
                None => return Ok(None),
            }
        }
        Ok(Some(fault))
    }

    fn verdict(&self, page: &Page, block: BlockNumber) -> Result<Option<PageFault>> {
        let untouched = ReplayRange { start: self.start, limit: Lsn::INVALID };
        let Err(fault) = accept_page(page, block, self.data_checksums, untouched) else {
            return Ok(None);
        };
        let lsn = page_lsn(page);
        let repaired = lsn >= self.start && self.limit.has_reached(lsn)?;
        Ok((!repaired).then_some(fault))
    }
}
