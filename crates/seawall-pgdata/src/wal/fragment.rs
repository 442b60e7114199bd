//! The parts of records that a range of WAL cuts off at its edges.

use seawall_core::Lsn;

use super::record::{RECORD_HEADER_BYTES, is_wal_switch};
use super::rmgr::Rmgr;

/// A cut-off part longer than this is kept by reference: its place is known, its bytes are not
/// held.
pub const FRAGMENT_CAP_BYTES: usize = 1 << 20;

/// Bytes of a record without the page headers between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FragmentBytes {
    /// The bytes themselves, at most [`FRAGMENT_CAP_BYTES`].
    Verbatim(Vec<u8>),
    /// Too many to hold; they have to be read from the range again.
    ByReference {
        /// How many they are.
        len_bytes: u64,
    },
}

impl FragmentBytes {
    /// Keeps the bytes up to the cap.
    #[must_use]
    pub fn keep(bytes: &[u8]) -> Self {
        let mut kept = Self::Verbatim(Vec::new());
        kept.append(bytes);
        kept
    }

    /// How many bytes the fragment has, held or not.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::Verbatim(bytes) => bytes.len() as u64,
            Self::ByReference { len_bytes } => *len_bytes,
        }
    }

    /// Appends what follows; past the cap the bytes are let go.
    pub(super) fn append(&mut self, more: &[u8]) {
        match self {
            Self::Verbatim(bytes) if bytes.len() + more.len() <= FRAGMENT_CAP_BYTES => {
                bytes.extend_from_slice(more);
            }
            _ => *self = Self::ByReference { len_bytes: self.len_bytes() + more.len() as u64 },
        }
    }

    /// Appends another fragment.
    pub(super) fn append_fragment(&mut self, more: &Self) {
        match more {
            Self::Verbatim(bytes) => self.append(bytes),
            Self::ByReference { len_bytes } => {
                *self = Self::ByReference { len_bytes: self.len_bytes() + len_bytes };
            }
        }
    }
}

/// How the record that a range begins in the middle of went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadState {
    /// Its last byte is in the range.
    Complete,
    /// The range ends before the record does, or the WAL is damaged before it does.
    Unfinished,
    /// The server gave the record up after a crash and wrote on from [`HeadFragment::end`].
    Overwritten,
}

/// The end of a record that begins before the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadFragment {
    /// The start of the range: a page boundary.
    pub lsn: Lsn,
    /// The position after the fragment's last byte, not aligned.
    pub end: Lsn,
    /// How many bytes the record still had at `lsn`, as the first page header says
    /// (`xlp_rem_len`); 0 if that page overwrites the record.
    pub remaining_bytes: u32,
    /// What is there of them.
    pub bytes: FragmentBytes,
    /// How it ended.
    pub state: HeadState,
}

impl HeadFragment {
    /// Whether these may be the last bytes of a tablespace's creation: its path and a zero byte
    /// (`xl_tblspc_create_rec`, tablespace.h).
    #[must_use]
    pub fn may_end_tablespace_creation(&self) -> bool {
        let FragmentBytes::Verbatim(bytes) = &self.bytes else { return false };
        let before = bytes.strip_suffix(&[0]);
        self.state == HeadState::Complete && before.is_some_and(|path| path.last() != Some(&0))
    }

    /// Whether these are the last bytes of a segment switch, as far as they tell: of its header,
    /// which is all it has, the first 8 or 16 bytes are in the range before, and resource manager
    /// and info in this one.
    pub(super) fn may_end_switch(&self) -> bool {
        let FragmentBytes::Verbatim(bytes) = &self.bytes else { return false };
        match bytes.as_slice() {
            [before @ .., info, rmgr, 0, 0, _, _, _, _] => {
                self.state == HeadState::Complete
                    && before.len() < RECORD_HEADER_BYTES - 8
                    && is_wal_switch(Rmgr(*rmgr), *info)
            }
            _ => false,
        }
    }
}

/// The beginning of a record that ends after the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailFragment {
    /// Where the record begins.
    pub lsn: Lsn,
    /// The end of the range, where the record goes on.
    pub end: Lsn,
    /// The record's whole length, if its first four bytes are there.
    pub total_bytes: Option<u32>,
    /// What is there of it.
    pub bytes: FragmentBytes,
}

impl TailFragment {
    /// Bytes that the record still lacks; `None` if its length is cut off too.
    #[must_use]
    pub fn open_bytes(&self) -> Option<u32> {
        let have = u32::try_from(self.bytes.len_bytes()).ok()?;
        self.total_bytes?.checked_sub(have)
    }
}
