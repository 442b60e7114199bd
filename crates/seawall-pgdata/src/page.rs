//! Data pages: their header, and whether the bytes read from a file are a page at all.

use seawall_core::{BlockNumber, Lsn};

use crate::checksum::page_checksum;
use crate::{Cursor, Truncated};

/// The size of a page (`BLCKSZ`) in bytes. `pg_control` of any other size is refused.
pub const PAGE_BYTES: usize = 8192;

/// The bytes of one page.
pub type Page = [u8; PAGE_BYTES];

/// Flags a page may have (`PD_VALID_FLAG_BITS`, bufpage.h, 12–18).
const VALID_FLAGS: u16 = 0x0007;

/// What stands at the start of every page (`PageHeaderData`, bufpage.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// The end of the last WAL record that changed the page (`pd_lsn`).
    pub lsn: Lsn,
    /// The stored checksum; zero where checksums are off.
    pub checksum: u16,
    /// `pd_flags`.
    pub flags: u16,
    /// Where free space starts, in bytes from the start of the page.
    pub lower: u16,
    /// Where free space ends. Zero in a page that was added and never written to.
    pub upper: u16,
    /// Where the access method's own data starts.
    pub special: u16,
    /// Page size and layout version in one number (`pd_pagesize_version`).
    pub pagesize_version: u16,
}

impl PageHeader {
    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// [`Truncated`] if there are fewer than 20 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Truncated> {
        let mut cursor = Cursor::new(bytes);
        Ok(Self {
            lsn: read_lsn(&mut cursor)?,
            checksum: cursor.u16()?,
            flags: cursor.u16()?,
            lower: cursor.u16()?,
            upper: cursor.u16()?,
            special: cursor.u16()?,
            pagesize_version: cursor.u16()?,
        })
    }

    /// Whether PostgreSQL would take this for the header of a page in use
    /// (`PageIsVerified`, bufpage.c).
    #[must_use]
    pub const fn is_plausible(&self) -> bool {
        self.upper != 0
            && self.flags & !VALID_FLAGS == 0
            && self.lower <= self.upper
            && self.upper <= self.special
            && self.special as usize <= PAGE_BYTES
            && self.special.is_multiple_of(8)
    }
}

/// `pd_lsn`: the high half first, each half little-endian.
fn read_lsn(cursor: &mut Cursor<'_>) -> Result<Lsn, Truncated> {
    let high = cursor.u32()?;
    let low = cursor.u32()?;
    Ok(Lsn(u64::from(high) << 32 | u64::from(low)))
}

/// The end of the last WAL record that changed the page (`pd_lsn`).
#[must_use]
pub fn page_lsn(page: &Page) -> Lsn {
    read_lsn(&mut Cursor::new(page)).unwrap_or_default()
}

/// Whether every byte is zero. Runs at the speed of `memcmp`.
#[must_use]
pub fn is_all_zero(bytes: &[u8]) -> bool {
    // Each byte equals the one before it, and the first is zero.
    match (bytes.split_first(), bytes.split_last()) {
        (Some((first, tail)), Some((_, head))) => *first == 0 && tail == head,
        _ => true,
    }
}

/// What the bytes of a page are worth by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageVerdict {
    /// A page PostgreSQL would read without complaint.
    Valid,
    /// All zero: added to the file and never written to.
    Zero,
    /// Neither: torn by a write going on, or damaged.
    Bad(PageFault),
}

/// What is wrong with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// The stored checksum is not the one of these bytes at this block.
    #[error("checksum {stored} in the page, {computed} computed")]
    ChecksumMismatch {
        /// The one in the page.
        stored: u16,
        /// The one of its bytes.
        computed: u16,
    },
    /// The header cannot be that of a page.
    #[error("page header is not valid")]
    HeaderInvalid,
}

/// Judges a page as PostgreSQL does when it reads one (`PageIsVerified`, bufpage.c, 12–18).
///
/// `block` counts from the start of the relation fork, not of the segment file. Without checksums
/// only the header can be judged.
#[must_use]
pub fn check_page(page: &Page, block: BlockNumber, checksums_enabled: bool) -> PageVerdict {
    if is_all_zero(page) {
        return PageVerdict::Zero;
    }
    let header = match PageHeader::parse(page) {
        Ok(header) if header.is_plausible() => header,
        _ => return PageVerdict::Bad(PageFault::HeaderInvalid),
    };
    if checksums_enabled {
        let (stored, computed) = (header.checksum, page_checksum(page, block));
        if stored != computed {
            return PageVerdict::Bad(PageFault::ChecksumMismatch { stored, computed });
        }
    }
    PageVerdict::Valid
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ZERO: &Page = &[0; PAGE_BYTES];

    /// An empty heap page with a right checksum, last changed at `lsn`.
    fn whole_page(lsn: u64, block: BlockNumber) -> Box<Page> {
        let mut header = Vec::new();
        header.extend(((lsn >> 32) as u32).to_le_bytes());
        header.extend((lsn as u32).to_le_bytes());
        for field in [0u16, 0, 24, 8192, 8192, 0x2004] {
            header.extend(field.to_le_bytes());
        }
        let mut page = Box::new(*ZERO);
        overwrite(&mut page, 0, &header);
        let checksum = page_checksum(&page, block);
        overwrite(&mut page, 8, &checksum.to_le_bytes());
        page
    }

    fn overwrite(page: &mut Page, at: usize, bytes: &[u8]) {
        for (old, new) in page.iter_mut().skip(at).zip(bytes) {
            *old = *new;
        }
    }

    #[test]
    fn the_header_is_read_field_by_field() {
        let page = whole_page(0x2A_0500_0148, 3);
        let header = PageHeader::parse(page.as_slice());
        let expected = PageHeader {
            lsn: Lsn(0x2A_0500_0148),
            checksum: page_checksum(&page, 3),
            flags: 0,
            lower: 24,
            upper: 8192,
            special: 8192,
            pagesize_version: 0x2004,
        };
        assert_eq!(header, Ok(expected));
        assert_eq!(page_lsn(&page), expected.lsn);
        assert!(PageHeader::parse(page.get(..19).unwrap_or_default()).is_err());
    }

    #[test]
    fn a_page_in_the_wrong_place_is_bad() {
        let page = whole_page(100, 131_072);
        assert_eq!(check_page(&page, 131_072, true), PageVerdict::Valid);
        assert!(matches!(
            check_page(&page, 0, true),
            PageVerdict::Bad(PageFault::ChecksumMismatch { .. })
        ));
        assert_eq!(check_page(&page, 0, false), PageVerdict::Valid);
    }

    #[test]
    fn a_page_is_zero_only_as_a_whole() {
        assert_eq!(check_page(ZERO, 9, true), PageVerdict::Zero);
        for at in [0, 1, 4096, PAGE_BYTES - 1] {
            let mut page = *ZERO;
            overwrite(&mut page, at, &[1]);
            let bad = PageVerdict::Bad(PageFault::HeaderInvalid);
            assert_eq!(check_page(&page, 9, true), bad, "byte {at}");
            assert_eq!(check_page(&page, 9, false), bad, "byte {at}");
        }
        assert!(is_all_zero(&[]));
    }

    #[test]
    fn implausible_headers_are_bad_even_without_checksums() {
        // Flags, lower, upper, special: each wrong in one way.
        let wrong: [(usize, u16); 5] = [(10, 8), (12, 8193), (14, 8200), (16, 8184), (16, 8196)];
        for (at, value) in wrong {
            let mut page = whole_page(100, 0);
            overwrite(&mut page, at, &value.to_le_bytes());
            let verdict = check_page(&page, 0, false);
            assert_eq!(verdict, PageVerdict::Bad(PageFault::HeaderInvalid), "{value} at {at}");
        }
    }

    proptest! {
        #[test]
        fn all_zero_means_every_byte(bytes in proptest::collection::vec(0u8..2, 0..40)) {
            prop_assert_eq!(is_all_zero(&bytes), bytes.iter().all(|byte| *byte == 0));
        }
    }
}
