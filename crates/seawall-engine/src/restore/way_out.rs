//! What is left to do where the backup that a restore starts from cannot be read.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use seawall_core::{Action, BackupId, Code, Error, ExitClass, Hint, Result, TimelineId, hint};
use seawall_repo::{Line, READS_AT_ONCE};

use super::known::Known;
use super::plan::BackupFacts;
use super::run::{Resumed, make_plan};
use super::{RestoreRequest, Target, WalSource};
use crate::restored::RestorePlan;
use crate::stored::Sources;

/// So many other backups are tried before none is named: each costs a plan.
const TRIALS_MAX: usize = 5;

/// Another backup that a restore can start from.
struct Other {
    id: BackupId,
    /// The one that is followed from it.
    timeline: TimelineId,
}

/// The error, with what is left to do. Of a directory that was begun to be written that is the same
/// however often it is tried.
pub(super) async fn tell_way_out(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
    (plan, resumed): (&RestorePlan, Option<Resumed>),
    error: Error,
) -> Error {
    match resumed {
        Some(Resumed { is_complete: false, .. }) => tell_unstartable(error, request),
        Some(_) | None => {
            let (unread, follows) = (BackupId(plan.backup.ulid), Some(plan.timeline));
            if error.code() == Code::UnknownFormat {
                return tell_other_format(line, wal, request, (unread, follows), error).await;
            }
            match &plan.backup.found_damaged {
                Some(told) if error.exit_class() == ExitClass::Integrity => {
                    let other = start_elsewhere(line, wal, request, (unread, follows)).await;
                    error.with_hint(hint![
                        format!("{told} Another repository may be whole; "),
                        other
                    ])
                }
                Some(_) | None => error,
            }
        }
    }
}

/// The error of a plan that could not be made. Where the backup that was asked for is of another
/// format, it says what else there is.
pub(super) async fn tell_unread(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
    error: Error,
) -> Error {
    match request.backup {
        Some(asked) if error.code() == Code::UnknownFormat => {
            tell_other_format(line, wal, request, (asked, None), error).await
        }
        Some(_) | None => error,
    }
}

async fn tell_other_format(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
    (unread, follows): (BackupId, Option<TimelineId>),
    error: Error,
) -> Error {
    let why = own_hint(&error);
    let other = start_elsewhere(line, wal, request, (unread, follows)).await;
    error.with_hint(hint![why, other])
}

/// What an error says by itself, before something more is said.
fn own_hint(error: &Error) -> Hint {
    error.hint().map(|hint| hint![hint.clone(), " "]).unwrap_or_default()
}

/// What was met while files were written and cannot be read: what became of the directory, and what
/// else there is.
pub(super) fn tell_unstartable(error: Error, request: &RestoreRequest) -> Error {
    let into = request.into.as_path();
    let others = if error.code() == Code::UnknownFormat {
        hint![own_hint(&error), other_backups()]
    } else if error.exit_class() == ExitClass::Integrity {
        hint![
            Action::Verify,
            " tells which backups are whole, and restores pass over the others; another repository may \
             have this one whole."
        ]
    } else {
        return error;
    };
    let told = hint![format!("PostgreSQL does not start on {}. ", into.display()), others];
    // What was there before is nobody's to be removed, and any restore may go onto it.
    error.with_hint(match request.delta {
        Some(_) => told,
        None => {
            let discard = Action::Discard { directory: into.into() };
            hint![told, " Before that, ", discard, " makes room."]
        }
    })
}

/// Which other backup to start from, as a sentence. Where it is not known which timeline `follows`
/// from the one that is `unread`, the other one's is told.
async fn start_elsewhere(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
    (unread, follows): (BackupId, Option<TimelineId>),
) -> Hint {
    // The error at hand is what matters; what cannot be looked at adds nothing to it.
    let other = other_backup(line, wal, request, (unread, follows)).await;
    let Ok(Some(Other { id, timeline })) = other else {
        return other_backups();
    };
    let leads = match (&request.target, follows) {
        (Target::BackupOnly, _) => String::new(),
        (Target::Latest | Target::To(_) | Target::Before(_), Some(_)) => {
            " and leads there".to_owned()
        }
        (Target::Latest | Target::To(_) | Target::Before(_), None) => {
            format!(" and follows timeline {timeline}")
        }
    };
    hint![
        format!(
            "`--backup {id}` starts from another one, which is whole as far as is known{leads}; "
        ),
        Action::List,
        " shows all."
    ]
}

fn other_backups() -> Hint {
    hint![Action::List, " shows what backups there are; `--backup ID` starts from another one."]
}

/// The backup that is farthest in the log of those that can be read, were not found damaged and lead
/// to what is asked for, by the timeline that is to be followed: a backup of a past that was left
/// would lead back there. Only the farthest are tried.
async fn other_backup(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
    (unread, follows): (BackupId, Option<TimelineId>),
) -> Result<Option<Other>> {
    let mut others = Known::of(line, None).await?.backups;
    others.retain(|backup| backup.id != unread && backup.found_damaged.is_none());
    others.sort_by_key(|backup| (backup.stop_timeline, backup.stop_lsn));
    for BackupFacts { id, .. } in others.into_iter().rev().take(TRIALS_MAX) {
        let request = RestoreRequest { backup: Some(id), ..request.clone() };
        let Ok(RestorePlan { timeline, .. }) = make_plan(line, wal, &request).await else {
            continue;
        };
        let leads = follows.is_none_or(|followed| followed == timeline);
        if leads && prove_readable(line, id).await.is_ok() {
            return Ok(Some(Other { id, timeline }));
        }
    }
    Ok(None)
}

/// Opens what a backup is made of; of its packs as many as are read at once, which tells what format
/// they are of.
async fn prove_readable(line: &Line, id: BackupId) -> Result<()> {
    let Some(manifest) = line.manifest(id).await? else {
        return Err(Error::new(Code::NoSuchBackup, format!("backup {id} was given up")));
    };
    let sources = &Sources::open(line, &manifest, 0).await?;
    let packs = 0..sources.packs().min(READS_AT_ONCE);
    let tables = packs.map(async |pack| sources.read_table(pack).await);
    stream::iter(tables).buffered(READS_AT_ONCE).try_for_each(async |_| Ok(())).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::{Delta, TimelineChoice};
    use crate::restored::{Mode, TargetAction};

    #[test]
    fn a_format_that_is_not_known_is_told_with_the_program_that_knows_it_while_files_are_written() {
        let request = |delta| RestoreRequest {
            target: Target::Latest,
            target_text: "latest".to_owned(),
            asked_at: jiff::Timestamp::UNIX_EPOCH,
            backup: None,
            timeline: TimelineChoice::Current,
            mode: Mode::Clone,
            then: TargetAction::Promote,
            into: "/room".into(),
            tablespaces: Vec::new(),
            databases: Vec::new(),
            delta,
            starts: false,
        };
        let told = |delta| {
            let error = Error::new(Code::UnknownFormat, "a pack is of format 2")
                .with_hint("Use the Seawall that made the backup, or a newer one.");
            format!("{:?}", tell_unstartable(error, &request(delta)).hint())
        };
        for told in [told(None), told(Some(Delta::default()))] {
            for part in ["does not start on /room", "Use the Seawall that made", "--backup ID"] {
                assert!(told.contains(part), "no {part} in {told}");
            }
        }
        assert!(told(None).contains("Discard"));
        assert!(!told(Some(Delta::default())).contains("Discard"), "it was there before");
    }
}
