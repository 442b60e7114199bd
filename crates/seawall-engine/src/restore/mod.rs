//! Restore: a target is resolved and proven to be reachable before a byte is written, files are proven
//! as they are written, and what is written cannot start before it is whole.
//!
//! ```text
//! plan_restore → PlannedRestore::prove → ProvenRestore::run → start
//! ```

mod archive;
mod branches;
mod configuration;
mod delta;
mod discard;
mod execute;
mod facts;
mod forward;
mod future;
mod known;
mod lock;
mod look_ahead;
mod other_lines;
pub mod plan;
mod preflight;
mod request;
mod run;
mod start;
mod target;
mod way_out;

pub use delta::{Delta, DeltaReport};
pub use discard::Discard;
pub use facts::{CoveredSpan, Fact, RecordPlace, UnreadableWal, WalCoverage, WalSource, XactFact};
pub use forward::{ForwardOptions, Moved, PlannedForward, plan_forward, state_to_move};
pub use request::{RestoreRequest, TimelineChoice};
pub use run::{PlannedRestore, ProvenRestore, RestoreOptions, RestoreReport, plan_restore};
pub use start::{
    Archives, DEFAULT_ROLE, Ended, LeftOut, Listen, Login, PromoteOptions, Promoted, Recovered,
    StartOptions, Stretch, find_programs, look_at_databases, promote, start,
};
pub use target::{Point, Target};
