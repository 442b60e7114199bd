//! Deleting what nobody needs: condemn, wait, decide, delete (docs/adr/0015-how-things-go.md).
//!
//! What goes by a policy or by word is a value, [`Going`], that others make. This room adds what
//! follows from it, and what nobody needs anyway: parts of backups that are gone, and what attempts
//! left that died. Nothing is deleted in the run that condemns it.

mod condemn;
mod decide;
mod delete;
mod foreign;
mod look;
mod marks;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use seawall_core::{BackupId, Progress, Result, Stage, TimelineId};
use seawall_repo::records::PinRole;
use seawall_repo::retention::LinePlan;
use seawall_repo::wal::LsnRange;
use seawall_repo::{Condemned, Line, ObjectSet};
use serde::Serialize;

use crate::pinned::Pinned;
use look::Look;

/// How long what is condemned stays at least, unless something longer is asked for: three times as
/// long as a silence that counts as death ([`crate::liveness`]). Who reads a repository that cannot
/// be written to has no pin.
// By number in docs/adr/0015-how-things-go.md.
pub const LEAST_GRACE: SignedDuration = SignedDuration::from_mins(15);

/// How long it stays where nothing is said.
pub const DEFAULT_GRACE: SignedDuration = SignedDuration::from_hours(24);

/// More heads than these are replaced by one, also where nothing was deleted.
const HEADS_MAX: usize = 100;

/// What goes of a line, as whoever plans decides. It is decided anew before each run: what was
/// condemned and does not go any more is spared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Going {
    /// The backups that go. Those that are condemned already are among them.
    pub backups: BTreeSet<BackupId>,
    /// The WAL that goes: a range goes if all of it does.
    pub wal: Vec<(TimelineId, LsnRange)>,
}

impl From<&LinePlan> for Going {
    fn from(plan: &LinePlan) -> Self {
        let backups = plan.going().map(|backup| backup.id.0).collect();
        Self { backups, wal: plan.going_wal().collect() }
    }
}

/// How to prune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneRequest {
    /// How long what is condemned stays, by the clock of the store; [`LEAST_GRACE`] at least.
    pub grace: SignedDuration,
}

impl Default for PruneRequest {
    fn default() -> Self {
        Self { grace: DEFAULT_GRACE }
    }
}

/// Objects, and their bytes in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    const fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// What was condemned or deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// The backups whose commits are among it.
    pub backups: Vec<String>,
    /// All of it.
    pub all: Amount,
    /// The WAL in it.
    pub wal: Amount,
}

/// What a prune of a line did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// What was deleted.
    pub deleted: Gone,
    /// What was condemned in this run.
    pub condemned: Gone,
    /// How many objects are condemned and wait, those of this run among them.
    pub waiting: u64,
    /// When the first of them may go, by the clock of the store.
    pub goes_at: Option<Timestamp>,
    /// The backups that were condemned and stay after all.
    pub spared: Vec<String>,
    /// Backups that began, died, and cannot be gone on with any more.
    pub fenced: Vec<String>,
}

/// Deletes what was condemned long enough ago and nobody needs, then condemns what goes now. A run
/// that died is gone on with by the next one.
///
/// # Errors
/// [`seawall_core::Code::PruneRunning`]; a name, a format or a feature that this program does not
/// know, or a commit or pin that cannot be read: nothing is deleted then. Those of the store.
pub async fn run(
    line: &Line,
    going: &Going,
    request: PruneRequest,
    progress: &dyn Progress,
) -> Result<PruneReport> {
    let newest = line.repository().with_newest_keys().await?;
    newest.keyring().current()?;
    let line = newest.line(line.cluster(), line.id())?;
    foreign::refuse(&newest).await?;
    // Seen first, then looking for others: of two that begin at once none goes on alone.
    let own = Pinned::begin(&line, PinRole::Collector, "prune", Vec::new()).await?;
    let done = prune(&line, &own, going, request, progress).await;
    own.end().await;
    done
}

async fn prune(
    line: &Line,
    own: &Pinned,
    going: &Going,
    request: PruneRequest,
    progress: &dyn Progress,
) -> Result<PruneReport> {
    progress.stage(Stage::Pruning, None);
    // Before pins are listed: whoever pins after that sees what may be decided by them.
    let before = line.condemnations().await?;
    let look = Look::take(line, own, going).await?;
    let scanned = look.scan(line, &before).await?;
    let fenced = look.fenced.iter().map(ToString::to_string).collect();
    let mut report = PruneReport { fenced, ..PruneReport::default() };

    let decided = decide::decide(line, &look, &before, &mut report).await?;
    let goes: ObjectSet = decided.0.iter().flat_map(|one| one.objects.iter()).collect();
    report.deleted = look.sizes(line, &goes).await?;
    delete::delete(line, &goes, progress).await?;
    let has_head_pins = look.dead.iter().any(|id| look.marks.has_commit(*id));
    if !decided.0.is_empty() || has_head_pins || line.heads().await?.len() > HEADS_MAX {
        line.replace_heads(Timestamp::now()).await?;
    }
    delete::finish(line, decided.0.iter().map(|one| one.id)).await?;
    for id in &look.dead {
        line.unpin(id.0).await?;
    }
    line.sweep_pins().await?;

    let grace = request.grace.max(LEAST_GRACE);
    report.condemned = condemn::condemn(line, scanned, grace).await?;
    let waiting = line.condemnations().await?;
    report.waiting = waiting.0.iter().map(|one| one.objects.len() as u64).sum();
    report.goes_at = waiting.0.iter().map(Condemned::until).min();
    Ok(report)
}
