//! What one repository has of a backup: its journal and what can be taken over from an attempt that
//! died, block maps and manifest, the proof of its WAL, and the commit.

mod audit;
mod collector;
mod enter;
mod file_copies;
mod history;
mod journal;
mod parent;
mod predecessor;
mod publish;

pub(super) use audit::ChangeWindow;
pub use collector::LedOn;
pub(super) use collector::{Collected, Collector, Totals};
pub(super) use enter::{
    Entered, Ready, Start, enter, prepare, refuse_other_cluster, refuse_used_id,
};
pub(super) use journal::Journal;
pub(crate) use journal::give_up;
pub(super) use parent::{Base, FromParent, Parent};
pub(super) use predecessor::Predecessor;
pub(super) use publish::{Published, Whole, publish};
