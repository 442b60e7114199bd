//! What of a line is kept: collects what the planner (`seawall_repo::retention`) decides by.

mod collect;

use jiff::Timestamp;
use seawall_core::{Action, BackupId, Code, Error, Result, hint};
use seawall_repo::Line;
use seawall_repo::retention::{
    BackupFate, KeepReason, LineFacts, LinePlan, Policy, Refused, Unknown, plan,
};

pub use collect::facts;

/// Plans what of a line stays and goes.
///
/// # Errors
/// [`Code::PruneRefused`] if something is not known that has to be, damage, or a store that fails.
pub async fn plan_line(line: &Line, policy: &Policy, now: Timestamp) -> Result<LinePlan> {
    let facts = facts(line, now).await?;
    plan(&facts, policy).map_err(|refused| refusal(line, &refused))
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
