//! The header every 8 KiB page of a WAL segment begins with (`XLogPageHeaderData`,
//! xlog_internal.h; layout equal in 12 to 18).

use seawall_core::{Lsn, SystemId, TimelineId, WalSegmentSize};

use crate::{Cursor, PgMajor, Truncated};

/// `XLOG_BLCKSZ`: bytes in a WAL page. Other builds of PostgreSQL are refused.
pub const WAL_PAGE_BYTES: u64 = 8192;

/// `SizeOfXLogShortPHD`: the header of every page but a segment's first.
pub const SHORT_HEADER_BYTES: usize = 24;

/// `SizeOfXLogLongPHD`: the header of a segment's first page.
pub const LONG_HEADER_BYTES: usize = 40;

/// `XLP_FIRST_IS_CONTRECORD`: the page begins with the rest of a record.
const FIRST_IS_CONTRECORD: u16 = 0x0001;
/// `XLP_LONG_HEADER`.
const LONG_HEADER: u16 = 0x0002;
/// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`. (0x0004 is `XLP_BKP_REMOVABLE`, which says nothing here.)
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
/// `XLP_ALL_FLAGS`.
const ALL_FLAGS: u16 = 0x000F;

/// A page header as it stands in the file; nothing in it is believed before [`PageHeader::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// `xlp_magic`: tells the major.
    pub magic: u16,
    /// `xlp_info`: flag bits.
    pub info: u16,
    /// `xlp_tli`: the timeline that began the page.
    pub timeline: TimelineId,
    /// `xlp_pageaddr`: where the page lies in the log.
    pub address: Lsn,
    /// `xlp_rem_len`: bytes of the continued record from here on, without page headers.
    pub remaining_bytes: u32,
    /// What only a segment's first page carries.
    pub long: Option<LongHeader>,
}

/// The part that only a segment's first page carries (`XLogLongPageHeaderData`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader {
    /// `xlp_sysid`.
    pub system_id: SystemId,
    /// `xlp_seg_size`.
    pub segment_bytes: u32,
    /// `xlp_xlog_blcksz`.
    pub page_bytes: u32,
}

/// What a page at a known place of a known log must say.
#[derive(Debug, Clone, Copy)]
pub struct PageContext {
    /// The major, once one page or the caller has told it.
    pub major: Option<PgMajor>,
    /// The timeline that is read: pages of its ancestors may come first.
    pub timeline: TimelineId,
    /// The timeline of the page before, below which the log does not go back.
    pub earliest_timeline: TimelineId,
    /// Where the page lies.
    pub address: Lsn,
    /// The cluster's segment size.
    pub segment_size: WalSegmentSize,
    /// The cluster, if the caller knows it.
    pub system_id: Option<SystemId>,
}

/// Why a page header is not the one that belongs here (`XLogReaderValidatePageHeader`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// Zeros where a header belongs: the log was never written this far.
    #[error("the page is not written")]
    Blank,
    /// No known major, or another one than the pages before.
    #[error("page magic {magic:04X} is not the expected one")]
    Magic {
        /// What the page says.
        magic: u16,
    },
    /// Flag bits that no known major sets, or a long header where a short one belongs.
    #[error("page flags {info:04X} are invalid here")]
    Flags {
        /// What the page says.
        info: u16,
    },
    /// The page belongs elsewhere: a recycled segment.
    #[error("the page says it lies at {address}")]
    Address {
        /// What the page says.
        address: Lsn,
    },
    /// The page belongs to a timeline that cannot follow here.
    #[error("the page belongs to timeline {timeline}")]
    Timeline {
        /// What the page says.
        timeline: TimelineId,
    },
    /// The segment belongs to another cluster.
    #[error("the segment belongs to the cluster with system identifier {system_id}")]
    SystemId {
        /// What the page says.
        system_id: SystemId,
    },
    /// The segment or page size is another.
    #[error("segments of {segment_bytes} bytes with pages of {page_bytes} bytes")]
    Geometry {
        /// What the page says of segments.
        segment_bytes: u32,
        /// What the page says of pages.
        page_bytes: u32,
    },
}

impl PageHeader {
    /// Reads a header. The long part is read if its flag is set and its bytes are there.
    ///
    /// # Errors
    /// [`Truncated`] for less than [`SHORT_HEADER_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Truncated> {
        let mut cursor = Cursor::new(bytes);
        let (magic, info) = (cursor.u16()?, cursor.u16()?);
        let timeline = TimelineId(cursor.u32()?);
        let address = Lsn(cursor.u64()?);
        let remaining_bytes = cursor.u32()?;
        cursor.take(4)?;
        let long = if info & LONG_HEADER == 0 { None } else { LongHeader::parse(&mut cursor).ok() };
        Ok(Self { magic, info, timeline, address, remaining_bytes, long })
    }

    /// Checks the header against the place it was read from; returns the major it tells.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(&self, context: &PageContext) -> Result<PgMajor, PageFault> {
        if self.magic == 0 && self.info == 0 && self.address == Lsn(0) {
            return Err(PageFault::Blank);
        }
        let major = PgMajor::from_wal_page_magic(self.magic)
            .filter(|major| context.major.is_none_or(|expected| expected == *major))
            .ok_or(PageFault::Magic { magic: self.magic })?;
        let first_of_segment = context.address.0.is_multiple_of(context.segment_size.bytes());
        if self.info & !ALL_FLAGS != 0 || (self.info & LONG_HEADER != 0) != first_of_segment {
            return Err(PageFault::Flags { info: self.info });
        }
        if self.address != context.address {
            return Err(PageFault::Address { address: self.address });
        }
        if self.timeline > context.timeline
            || self.timeline < context.earliest_timeline
            || self.timeline.0 == 0
        {
            return Err(PageFault::Timeline { timeline: self.timeline });
        }
        self.long.map_or(Ok(major), |long| long.check(context).map(|()| major))
    }

    /// The bytes of the continued record from this page on, if the page begins with one.
    #[must_use]
    pub fn continuation_bytes(&self) -> Option<u32> {
        (self.info & FIRST_IS_CONTRECORD != 0).then_some(self.remaining_bytes)
    }

    /// Whether the record that was to continue here was given up after a crash: the server wrote
    /// on from this page (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`, in the minors since autumn 2021).
    #[must_use]
    pub fn overwrites_continuation(&self) -> bool {
        self.info & FIRST_IS_OVERWRITE_CONTRECORD != 0
    }
}

impl LongHeader {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Truncated> {
        Ok(Self {
            system_id: SystemId(cursor.u64()?),
            segment_bytes: cursor.u32()?,
            page_bytes: cursor.u32()?,
        })
    }

    fn check(&self, context: &PageContext) -> Result<(), PageFault> {
        if context.system_id.is_some_and(|expected| expected != self.system_id) {
            return Err(PageFault::SystemId { system_id: self.system_id });
        }
        let geometry = (u64::from(self.segment_bytes), u64::from(self.page_bytes));
        if geometry != (context.segment_size.bytes(), WAL_PAGE_BYTES) {
            let Self { segment_bytes, page_bytes, .. } = *self;
            return Err(PageFault::Geometry { segment_bytes, page_bytes });
        }
        Ok(())
    }
}

/// How many header bytes the page that holds `lsn` begins with.
#[must_use]
pub const fn header_bytes(lsn: Lsn, segment_size: WalSegmentSize) -> u64 {
    if lsn.0 % segment_size.bytes() < WAL_PAGE_BYTES {
        LONG_HEADER_BYTES as u64
    } else {
        SHORT_HEADER_BYTES as u64
    }
}
