use std::fs::File;
use std::os::fd::AsRawFd;

/// The number of cachestat(2), the same on every architecture (since Linux 6.5).
const SYS_CACHESTAT: libc::c_long = 451;

/// The size of the pages that are counted: of those of x86-64, and the smallest anywhere. Where they
/// are larger, less seems to be cached than is, which only makes more reads direct.
const CACHE_PAGE_BYTES: u64 = 4096;

/// `struct cachestat_range` (linux/mman.h).
#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// `struct cachestat` (linux/mman.h): numbers of pages.
#[repr(C)]
#[derive(Default)]
struct Pages {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// What the page cache holds of a part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cached {
    /// All of it.
    All,
    /// Most of it, or some that is not on disk yet: best read through the cache.
    Mostly,
    /// Nothing or little, and that is on disk as well: best read around the cache.
    Hardly,
}

/// Looks, without reading. [`Cached::All`] where the kernel does not tell.
#[must_use]
pub fn cached(file: &File, offset: u64, length: u64) -> Cached {
    let Some(pages) = cachestat(file, &Range { offset, length }) else { return Cached::All };
    let all = length.div_ceil(CACHE_PAGE_BYTES);
    if pages.cached >= all {
        Cached::All
    } else if pages.cached > all / 2 || pages.dirty > 0 || pages.writeback > 0 {
        Cached::Mostly
    } else {
        Cached::Hardly
    }
}

/// The one system call that no safe library wraps yet.
#[allow(unsafe_code, reason = "cachestat(2) has no safe wrapper")]
fn cachestat(file: &File, range: &Range) -> Option<Pages> {
    let mut pages = Pages::default();
    // SAFETY: the descriptor is open as long as `file` is borrowed. Both structures have the layout
    // the kernel defines, live until the call returns, and it writes to the second only. A kernel
    // without the call fails with ENOSYS and touches nothing.
    let result = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            std::ptr::from_ref(range),
            std::ptr::from_mut(&mut pages),
            0 as libc::c_uint,
        )
    };
    (result == 0).then_some(pages)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use rustix::fs::{Advice, fadvise};

    use super::*;

    #[test]
    fn what_was_written_is_cached_until_it_is_dropped() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all_at(&[1; 1 << 20], 0).unwrap();
        let told = cachestat(&file, &Range { offset: 0, length: 1 << 20 });
        if told.is_none_or(|pages| pages.cached == 0) {
            return; // a kernel before 6.5, or a filesystem that caches in another's name
        }
        assert_eq!(cached(&file, 0, 1 << 20), Cached::All);
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        assert_eq!(cached(&file, 0, 1 << 20), Cached::Hardly);
        file.read_exact_at(&mut [0; 4096], 512 << 10).unwrap();
        file.write_all_at(&[2; 10], 0).unwrap();
        assert_eq!(cached(&file, 0, 256 << 10), Cached::Mostly, "it is not on disk");
    }
}
