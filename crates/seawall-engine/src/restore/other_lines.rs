//! The cluster's other lines: `seawall adopt` begins a new one, and what was archived before stays
//! in the old one.

use seawall_core::{Action, Code, Error, Hint, Result, hint, shown_utc};
use seawall_repo::Line;
use seawall_repo::wal::WalArchive;

use super::branches::archived_from;
use super::plan::BackupFacts;
use super::{Point, RestoreRequest, Target, TimelineChoice};
use crate::lines::{KnownLine, lines_of};

/// The error with a hint at an earlier line that covers what was asked for, if there is one.
pub(super) async fn hint_at_earlier_line(
    line: &Line,
    request: &RestoreRequest,
    error: Error,
) -> Error {
    let may_be_there = matches!(error.code(), Code::TargetUnreachable | Code::NoSuchBackup);
    if !may_be_there || request.backup.is_some() {
        return error;
    }
    // The error at hand is what matters; a line that cannot be read adds nothing to it.
    let Ok(Some(earlier)) = earlier_line_with(line, request).await else { return error };
    let hint = error.hint().map(|hint| hint![hint.clone(), " "]).unwrap_or_default();
    error.with_hint(hint![hint, earlier])
}

/// What the newest earlier line that covers it has, as a sentence.
async fn earlier_line_with(line: &Line, request: &RestoreRequest) -> Result<Option<String>> {
    let (earlier, _) = others(line).await?;
    for other in earlier.into_iter().rev() {
        if let Some(told) = covers(&other, request).await? {
            return Ok(Some(told));
        }
    }
    Ok(None)
}

/// What to know before a server goes on in a line whose place another has taken.
pub(super) async fn warning_of_later_line(line: &Line) -> Option<Hint> {
    let later = match others(line).await {
        Ok((_, later)) => later,
        Err(error) => {
            let why = error.chain();
            let what = format!(
                "Whether another line has taken the place of this one is not known: {why}."
            );
            return Some(what.into());
        }
    };
    let newest = later.last()?;
    let (old, new, cluster) = (line.id(), newest.id(), line.cluster());
    Some(hint![
        format!(
            "The backup is of line {old}, whose place line {new} has taken. The restored server goes on in line {old}; to make it {cluster} again, run "
        ),
        Action::Adopt { cluster: Some(cluster.clone()) },
        " and ",
        Action::Backup { cluster: Some(cluster.clone()) },
        format!(" once it is up. Until then restores follow line {new}.")
    ])
}

/// The cluster's lines that were made before this one, and those made after it, oldest first.
async fn others(line: &Line) -> Result<(Vec<Line>, Vec<Line>)> {
    let lines = lines_of(line.repository(), line.cluster()).await?;
    let own = lines.iter().find(|known| known.line.id() == line.id());
    let Some(own) = own.map(KnownLine::age) else { return Ok(Default::default()) };
    let all = || lines.iter().cloned();
    let lines = |of: Vec<KnownLine>| of.into_iter().map(|known| known.line).collect();
    let earlier = all().filter(|known| known.age() < own).collect();
    Ok((lines(earlier), lines(all().filter(|known| known.age() > own).collect())))
}

async fn covers(line: &Line, request: &RestoreRequest) -> Result<Option<String>> {
    let infos = line.backups().await?.into_iter().filter_map(|summary| summary.info.ok());
    let mut backups: Vec<BackupFacts> = infos.map(|info| BackupFacts::from(&info)).collect();
    backups.sort_by_key(|backup| (backup.stop_timeline, backup.stop_lsn));
    let (Some(first), Some(newest)) = (backups.first(), backups.last()) else { return Ok(None) };
    let wal = WalArchive::open(line.clone()).await?;
    let ancestries = wal.ancestries().await?.known;
    if let TimelineChoice::Id(wanted) = request.timeline
        && ancestries.iter().all(|ancestry| ancestry.tip() != wanted)
    {
        return Ok(None);
    }
    let mut until = newest.finished_at;
    for ancestry in &ancestries {
        if ancestry.contains(newest.stop_timeline, newest.stop_lsn) {
            let left = archived_from(&wal, ancestry, newest.stop_lsn).await?;
            until = left.last_commit.map_or(until, |last| until.max(last.time));
        }
    }
    let suitable = match &request.target {
        Target::To(Point::Time(time)) | Target::Before(Point::Time(time)) => {
            backups.iter().rfind(|it| it.finished_at <= *time && *time <= until)
        }
        Target::To(Point::Lsn(lsn)) | Target::Before(Point::Lsn(lsn)) => {
            backups.iter().rfind(|it| it.stop_lsn <= *lsn)
        }
        // Whatever it has can be reached from its first backup.
        Target::To(_) | Target::Before(_) => Some(first),
        Target::Latest | Target::BackupOnly => Some(newest),
    };
    Ok(suitable.map(|backup| {
        format!(
            "An earlier line of {} covers {} to {}: name one of its backups, `--backup {}`.",
            line.cluster(),
            shown_utc(first.finished_at),
            shown_utc(until),
            backup.id
        )
    }))
}
