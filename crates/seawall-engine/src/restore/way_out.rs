//! What is left to do where the backup that a restore starts from cannot be read.

use std::path::Path;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use seawall_core::{Action, BackupId, Code, Error, ExitClass, Hint, Result, hint};
use seawall_repo::{Line, READS_AT_ONCE};

use super::run::{Known, Resumed, make_plan};
use super::{RestoreRequest, Target, WalSource};
use crate::restored::RestorePlan;
use crate::stored::Sources;

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
        Some(Resumed { is_complete: false, .. }) => tell_unstartable(error, &request.into),
        Some(_) | None => {
            let unread = BackupId(plan.backup.ulid);
            if error.code() == Code::UnknownFormat {
                return tell_other_format(line, wal, request, unread, error).await;
            }
            match &plan.backup.found_damaged {
                Some(told) if error.exit_class() == ExitClass::Integrity => {
                    let other = start_elsewhere(line, wal, request, unread).await;
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
            tell_other_format(line, wal, request, asked, error).await
        }
        Some(_) | None => error,
    }
}

async fn tell_other_format(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
    unread: BackupId,
    error: Error,
) -> Error {
    let why = error.hint().map(|hint| hint![hint.clone(), " "]).unwrap_or_default();
    let other = start_elsewhere(line, wal, request, unread).await;
    error.with_hint(hint![why, other])
}

/// What was met while files were written and cannot be read: what became of the directory, and what
/// else there is.
pub(super) fn tell_unstartable(error: Error, into: &Path) -> Error {
    let others = if error.code() == Code::UnknownFormat {
        other_backups()
    } else if error.exit_class() == ExitClass::Integrity {
        hint![
            Action::Verify,
            " tells which backups are whole, and restores pass over the others; another repository may \
             have this one whole."
        ]
    } else {
        return error;
    };
    error.with_hint(hint![
        format!("PostgreSQL does not start on {}. ", into.display()),
        others,
        " Before that, ",
        Action::Discard { directory: into.into() },
        " makes room."
    ])
}

/// Which other backup to start from, as a sentence.
async fn start_elsewhere(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
    unread: BackupId,
) -> Hint {
    // The error at hand is what matters; what cannot be looked at adds nothing to it.
    let Ok(Some(other)) = other_backup(line, wal, request, unread).await else {
        return other_backups();
    };
    let leads = match request.target {
        Target::BackupOnly => "",
        Target::Latest | Target::To(_) | Target::Before(_) => " and leads there",
    };
    hint![
        format!(
            "`--backup {other}` starts from another one, which is whole as far as is known{leads}; "
        ),
        Action::List,
        " shows all."
    ]
}

fn other_backups() -> Hint {
    hint![Action::List, " shows what backups there are; `--backup ID` starts from another one."]
}

/// The backup that is farthest in the log of those that can be read, were not found damaged and lead
/// to what is asked for.
async fn other_backup(
    line: &Line,
    wal: &dyn WalSource,
    request: &RestoreRequest,
    unread: BackupId,
) -> Result<Option<BackupId>> {
    let mut others = Known::of(line, None).await?.backups;
    others.retain(|backup| backup.id != unread && backup.found_damaged.is_none());
    others.sort_by_key(|backup| (backup.stop_timeline, backup.stop_lsn));
    for other in others.into_iter().rev() {
        let request = RestoreRequest { backup: Some(other.id), ..request.clone() };
        let leads = make_plan(line, wal, &request).await.is_ok();
        if leads && prove_readable(line, other.id).await.is_ok() {
            return Ok(Some(other.id));
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
