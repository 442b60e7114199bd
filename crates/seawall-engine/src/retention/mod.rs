//! What of a line is kept: collects what the planner (`seawall_repo::retention`) decides by.

mod collect;

use jiff::Timestamp;
use seawall_core::{Action, BackupId, Code, Error, Result, hint};
use seawall_repo::layout::LineObject;
use seawall_repo::records::PinRole;
use seawall_repo::retention::{
    BackupFate, KeepReason, LineFacts, LinePlan, Policy, Refused, Unknown, plan,
};
use seawall_repo::{Attempt, Line, new_ulid};

use crate::pinned::own_pin;

pub use collect::facts;

/// Plans what of a line stays and goes, for whoever looks: `now` is what the clock at hand shows.
///
/// # Errors
/// [`Code::PruneRefused`] if something is not known that has to be, damage, or a store that fails.
pub async fn plan_line(line: &Line, policy: &Policy, now: Timestamp) -> Result<LinePlan> {
    let facts = facts(line, now).await?;
    plan(&facts, policy).map_err(|refused| refusal(line, &refused))
}

/// Plans what of a line stays and goes, for whoever acts on it: by the clock of the store, which wrote
/// what it is compared with. A clock at hand that is a year ahead would let go a year of backups.
///
/// # Errors
/// As [`plan_line`], and a store that cannot be written to.
pub async fn plan_to_act(line: &Line, policy: &Policy) -> Result<LinePlan> {
    plan_line(line, policy, store_now(line).await?).await
}

/// What the clock of the store shows: it dates what is written.
async fn store_now(line: &Line) -> Result<Timestamp> {
    let id = BackupId(new_ulid(Timestamp::now())?);
    let attempt = Attempt { id, first_record: 0, newest_record: 0 };
    let path = line.paths().path(&LineObject::Pin(id.0, 0))?;
    line.repository().create_record(&path, &own_pin(PinRole::Reader, "prune", Vec::new())).await?;
    let written = line.record_written(&attempt, 0).await;
    line.unpin(id.0).await?;
    written?.ok_or_else(|| {
        let what = format!("{path} is gone as soon as it was written");
        Error::new(Code::ObjectMissing, what)
    })
}

/// Why a backup is the last good one of its line; `None` if it is not.
///
/// # Errors
/// [`Code::PruneRefused`] if it cannot be told.
pub fn why_last_good(line: &Line, facts: &LineFacts, id: BackupId) -> Result<Option<KeepReason>> {
    // Any policy tells: these stay whatever it is.
    let policy = Policy { age: Some(jiff::SignedDuration::ZERO), ..Policy::none() };
    let plan = plan(facts, &policy).map_err(|refused| refusal(line, &refused))?;
    let decided = plan.backups.into_iter().find(|decided| decided.id.0 == id);
    let why = match decided.map(|decided| decided.fate) {
        Some(BackupFate::Keep(why)) => why,
        Some(BackupFate::Go(_)) | None => Vec::new(),
    };
    let is_last = |why: &KeepReason| {
        matches!(why, KeepReason::LastGood | KeepReason::LastGoodOfTimeline { .. })
    };
    Ok(why.into_iter().find(is_last))
}

/// Says what has to be known, and what helps.
fn refusal(line: &Line, refused: &Refused) -> Error {
    let told: Vec<String> = refused.unknown.iter().map(Unknown::to_string).collect();
    let (cluster, id) = (line.cluster(), line.id());
    let what = format!(
        "what of line {id} of cluster {cluster} is to be kept cannot be decided, so nothing goes: {}",
        told.join("; ")
    );
    let unread = refused.unknown.iter().find_map(|unknown| match unknown {
        Unknown::Commit { id, .. } | Unknown::Place { id } => Some(*id),
        Unknown::History { .. }
        | Unknown::Event { .. }
        | Unknown::Job { .. }
        | Unknown::Name { .. } => None,
    });
    let error = Error::new(Code::PruneRefused, what);
    match unread {
        Some(id) => error.with_hint(hint![
            "If that backup is of no use, say that it is to go: ",
            Action::Delete { backup: id.to_string() },
            "."
        ]),
        None => error.with_hint(hint![Action::Verify, " tells what else is wrong there."]),
    }
}
