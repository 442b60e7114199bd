use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use seawall_core::{BlockNumber, Code, Error, Lsn, Result};
use seawall_pgdata::page::{PAGE_BYTES, Page, PageFault, PageVerdict, check_page, page_lsn};

/// A page that stays bad is read this often before it is called an error. PostgreSQL writes a page
/// with one call; what is torn now is whole a moment later.
const READS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// Asks the server for its insert LSN.
type Ask = Box<dyn FnMut() -> Result<Lsn> + Send>;

/// The position up to which replay is certain, asked of the server when it matters.
pub(in crate::backup) struct ReplayLimit {
    known: AtomicU64,
    ask: Mutex<Ask>,
}

impl ReplayLimit {
    /// `ask` gives the server's insert LSN at the time it is called.
    pub fn new(start: Lsn, ask: impl FnMut() -> Result<Lsn> + Send + 'static) -> Self {
        Self { known: AtomicU64::new(start.0), ask: Mutex::new(Box::new(ask)) }
    }

    /// Whether a record at `lsn` had been written when this was called. Asking later than the page
    /// was read is what makes the answer sound.
    fn has_reached(&self, lsn: Lsn) -> Result<bool> {
        if lsn.0 <= self.known.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let mut ask = self
            .ask
            .lock()
            .map_err(|_| Error::new(Code::Internal, "a worker died while asking for the LSN"))?;
        let now = ask()?;
        self.known.fetch_max(now.0, Ordering::Relaxed);
        Ok(lsn <= now)
    }
}

/// What all pages of a backup are judged by.
pub(in crate::backup) struct PageRule {
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
            match file.read_exact_at(&mut again, offset) {
                Ok(()) => *page = again,
                // It was truncated away; WAL says so too.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => {
                    let what = format!("block {block} cannot be read again");
                    return Err(Error::new(Code::ClusterUnreadable, what).with_source(error));
                }
            }
            match self.verdict(page, block)? {
                Some(still) => fault = still,
                None => return Ok(None),
            }
        }
        Ok(Some(fault))
    }

    /// What is wrong with a page, unless replay is certain to write it anew: its last change ended
    /// after the start, and the first change after a checkpoint logs the whole page.
    fn verdict(&self, page: &Page, block: BlockNumber) -> Result<Option<PageFault>> {
        let PageVerdict::Bad(fault) = check_page(page, block, self.data_checksums) else {
            return Ok(None);
        };
        let lsn = page_lsn(page);
        let repaired = lsn > self.start && self.limit.has_reached(lsn)?;
        Ok((!repaired).then_some(fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Lsn = Lsn(200);
    const INSERT: Lsn = Lsn(300);

    fn rule() -> PageRule {
        let limit = ReplayLimit::new(START, || Ok(INSERT));
        PageRule { data_checksums: true, start: START, limit }
    }

    /// A page whose checksum is wrong, last changed by a record that ended at `lsn`.
    fn torn(lsn: u32) -> Page {
        let mut page = [0; PAGE_BYTES];
        let header = [0u16, 0, 24, 8192, 8192, 0x2004];
        let header = header.into_iter().flat_map(u16::to_le_bytes);
        let bytes = [0; 4].into_iter().chain(lsn.to_le_bytes()).chain(header).chain([1]);
        page.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        page
    }

    fn stays(page: &Page) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(page, 0).unwrap();
        file
    }

    #[test]
    fn a_torn_page_is_accepted_only_if_a_record_after_the_start_brings_it_back() {
        for (lsn, accepted) in [(199, false), (200, false), (201, true), (300, true), (301, false)]
        {
            let mut page = torn(lsn);
            let fault = rule().judge(&mut page, 0, &stays(&torn(lsn)), 0).unwrap();
            assert_eq!(fault.is_none(), accepted, "{lsn}: {fault:?}");
        }
    }

    #[test]
    fn a_page_that_is_whole_when_read_again_is_taken_as_it_is_then() {
        let mut page = torn(1);
        assert_eq!(rule().judge(&mut page, 0, &stays(&[0; PAGE_BYTES]), 0).unwrap(), None);
        assert_eq!(page, [0; PAGE_BYTES]);
    }

    #[test]
    fn a_page_that_was_cut_off_is_no_error_and_one_that_cannot_be_read_is() {
        let cut = tempfile::tempfile().unwrap();
        assert_eq!(rule().judge(&mut torn(1), 0, &cut, 0).unwrap(), None);
        let dir = tempfile::tempdir().unwrap();
        let unreadable = File::create(dir.path().join("for writing only")).unwrap();
        let error = rule().judge(&mut torn(1), 0, &unreadable, 0).unwrap_err();
        assert_eq!(error.code(), Code::ClusterUnreadable);
    }
}
