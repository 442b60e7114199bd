//! The write-ahead log: pages, records, and what they say (PostgreSQL 12 to 18).
//!
//! - [`WalReader`] turns bytes into [`Record`]s: validated, CRC-checked, in bounded memory.
//! - [`Operation`] decodes what a record does, [`ChangedBlocks`] which blocks it changes.
//! - [`SegmentIndexer`] makes the [`RangeIndex`] that is stored beside a range of WAL, and
//!   [`RangeChain`] joins such indexes into one log without reading the WAL again.
//!
//! The end of the log is a value, [`EndOfWal`], never an error.

mod block_ref;
mod block_set;
mod chain;
mod changes;
mod end;
mod facts;
mod fragment;
mod operation;
pub mod page;
mod reader;
mod record;
pub mod rmgr;
mod segment_index;
mod stitch;
mod storage;
mod xact;
mod xlog;

pub use block_ref::{BlockImage, BlockRef, RelFileLocator};
pub use block_set::BlockSet;
pub use chain::{Link, RangeChain};
pub use changes::{
    BrokenMap, BrokenReason, ChangedBlocks, DatabaseDirectory, RelationChanges, RelationState,
};
pub use end::{EndOfWal, EndReason};
pub use facts::{CommitRow, Event, EventKind, RestorePoint, TablespaceChange, TimeMark, WalFacts};
pub use fragment::{FRAGMENT_CAP_BYTES, FragmentBytes, HeadFragment, HeadState, TailFragment};
pub use operation::{Operation, PayloadFault};
pub use page::{PageContext, PageFault, PageHeader};
pub use reader::{DEFAULT_MAX_RECORD_BYTES, ReaderStart, StartError, WalReader};
pub use record::{RECORD_HEADER_BYTES, Record, RecordFault, RecordHeader};
pub use rmgr::Rmgr;
pub use segment_index::{FirstRecord, LastRecord, NoValidPage, RangeIndex, SegmentIndexer};
pub use stitch::{Stitch, StitchFault, StitchedRecord, join_heads, stitch};
pub use storage::{
    DatabaseCreate, DatabaseDrop, RelationCreate, RelationTruncate, TablespaceCreate,
};
pub use xact::{XactEnd, XactEndKind, XactOrigin, XactPrepare};
pub use xlog::{
    Checkpoint, EndOfRecovery, OverwrittenRecord, ParameterChange, RestorePointBody, WalLevel,
};
