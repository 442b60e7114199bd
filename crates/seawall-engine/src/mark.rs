//! What people say of a backup: that it stays, that it may go, that it is to go, and notes. Each is an
//! event in every repository that has the backup.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use jiff::Timestamp;
use seawall_core::{Action, BackupId, Code, Error, Result, hint};
use seawall_repo::Line;
use seawall_repo::layout::LineObject;
use seawall_repo::retention::KeepReason;

use crate::events::{Said, record, standings};
use crate::retention::{facts, why_last_good};
use crate::survey::{BackupState, CopyAt};

/// What is said of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// It stays, whatever the retention; a wish that it goes is taken back.
    Hold {
        /// Until when; for ever, if that is not said.
        until: Option<Timestamp>,
        /// Why.
        reason: Option<String>,
    },
    /// The hold ends.
    Release,
    /// Notes by name; an empty one takes that of its name away.
    Annotate(BTreeMap<String, String>),
    /// It is to go.
    Delete,
}

/// What came of it in one repository.
#[derive(Debug)]
pub struct Marked {
    /// The repository's name.
    pub repository: String,
    /// Why it is not recorded there.
    pub outcome: Result<()>,
}

/// Records it in every repository that has the backup.
pub async fn mark(copies: &[CopyAt], id: BackupId, mark: &Mark) -> Vec<Marked> {
    let marks = copies.iter().map(async |copy| Marked {
        repository: copy.repository.clone(),
        outcome: mark_copy(copy, id, mark).await,
    });
    join_all(marks).await
}

async fn mark_copy(copy: &CopyAt, id: BackupId, mark: &Mark) -> Result<()> {
    // Nothing is written under the key from before if it was rotated meanwhile.
    let newest = copy.line.repository().with_newest_keys().await?;
    let line = newest.line(copy.line.cluster(), copy.line.id())?;
    let said = match mark {
        Mark::Hold { until, reason } => Said::Hold { until: *until, reason: reason.clone() },
        Mark::Release => Said::Release,
        Mark::Annotate(notes) => Said::Annotate(notes.clone()),
        Mark::Delete => {
            refuse_held(&line, id).await?;
            Said::DeleteIntent
        }
    };
    record(&line, id, &said, Timestamp::now()).await?;
    // What was decided before the hold was there goes all the same.
    if matches!(mark, Mark::Hold { .. }) && copy.state == BackupState::Going {
        refuse_decided(&line, id).await?;
    }
    Ok(())
}

/// What keeps a backup from being deleted just so: in which repository it is the last good one, and of
/// what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// The repository's name.
    pub repository: String,
    /// Of what it is the last good one.
    pub why: KeepReason,
}

/// Proves that nobody holds a backup, in any repository that has it; whether it is the last good one
/// of its line somewhere.
///
/// # Errors
/// [`Code::BackupKept`] if somebody holds it; what keeps from telling.
pub async fn look_before_delete(copies: &[CopyAt], id: BackupId) -> Result<Option<LastGood>> {
    let mut last = None;
    for copy in copies {
        refuse_held(&copy.line, id).await?;
        // One that cannot be read is no good one.
        if matches!(copy.state, BackupState::Not(_) | BackupState::Going) {
            continue;
        }
        let facts = facts(&copy.line, Timestamp::now()).await?;
        if let Some(why) = why_last_good(&copy.line, &facts, id)? {
            last = last.or(Some(LastGood { repository: copy.repository.clone(), why }));
        }
    }
    Ok(last)
}

async fn refuse_held(line: &Line, id: BackupId) -> Result<()> {
    let standings = standings(line).await;
    let hold = standings.of(id).and_then(|standing| standing.hold_at(Timestamp::now()));
    let Some(hold) = hold else {
        // An event that cannot be read may be a hold of this one.
        return standings.undecided.map_or(Ok(()), Err);
    };
    let why = hold.reason.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    let what = format!("backup {id} is held{why}, so it is not deleted");
    Err(Error::new(Code::BackupKept, what).with_hint(hint![
        "If it need not stay any more: ",
        Action::Release { backup: id.to_string() },
        "."
    ]))
}

async fn refuse_decided(line: &Line, id: BackupId) -> Result<()> {
    let decided = line.condemnations().await?.decided();
    let commits = line.all_backups_as(|backup| {
        let generation = backup.info.map_or(0, |info| info.generation);
        (backup.id, LineObject::Backup(backup.id, generation))
    });
    let goes =
        commits.await?.into_iter().any(|(of, commit)| of == id && decided.is_decided(&commit));
    if !goes {
        return Ok(());
    }
    let what = format!("backup {id} was about to be deleted before it was held, and goes");
    Err(Error::new(Code::Condemned, what).with_hint(hint![Action::List, " shows what stays."]))
}
