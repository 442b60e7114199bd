//! Which timeline a restore follows, and when that cannot be told.
//!
//! The newest timeline is followed unless something speaks for another one as much. A restore that
//! was promoted by mistake, or for a drill, makes a new timeline too, while production goes on where
//! it was; an ordinary restore to a point in time leaves commits behind on purpose. They are told
//! apart by what came after the fork:
//!
//! - What has neither a commit nor a backup beyond the fork speaks for nothing.
//! - A backup made on the newest timeline settles it, unless a later one was made beside it.
//! - Without one, the newest timeline is followed if its own commits began after those beside it had
//!   ended: one server went on after the other. If it has none, or both went on at the same time,
//!   the user has to choose; so too between branches of which neither led to the other.
//! - Timelines that no history file connects are never told apart. One whose history is damaged may
//!   have left any other of a lower number, at any place.
//!
//! Whatever is followed, a plan tells what it leaves behind ([`LeftBehind`]).

use jiff::Timestamp;
use seawall_core::{Action, BackupId, Code, Error, Lsn, Result, TimelineId, counted, hint};
use seawall_pgdata::history::Ancestry;
use seawall_repo::wal::Ancestries;

use super::BackupFacts;
use super::lost::{refuse_newer, refuse_rivals};
use crate::restore::TimelineChoice;
use crate::restored::LeftBehind;

/// A timeline beside the one that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// What is archived of it.
    pub left: LeftBehind,
    /// When the first transaction committed that the followed timeline has and this one has not.
    pub first_commit_followed: Option<Timestamp>,
}

/// The timeline that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// It and its ancestors.
    pub ancestry: Ancestry,
    /// Others that may be meant; none if the user chose.
    pub rivals: Vec<Ancestry>,
}

/// The timeline a restore follows. A backup that is named implies those that it leads to.
///
/// # Errors
/// [`Code::NoSuchBackup`], [`Code::TargetUnreachable`] for a timeline that does not exist, and damage
/// of a history if the timeline is the one to follow, or may be and none was chosen.
pub fn choose_timeline(
    choice: TimelineChoice,
    backup: Option<BackupId>,
    all: &Ancestries,
    backups: &[BackupFacts],
) -> Result<Chosen> {
    let newest = || all.known.iter().map(Ancestry::tip).max();
    let wanted = match choice {
        TimelineChoice::Current => return current_timeline(backup, all, backups),
        TimelineChoice::Latest => {
            refuse_newer(all, newest())?;
            newest()
        }
        TimelineChoice::Id(id) => Some(id),
        TimelineChoice::OfBackup(id) => {
            let backup = backups.iter().find(|backup| backup.id == id);
            Some(backup.ok_or_else(|| no_such_backup(id))?.stop_timeline)
        }
    };
    let found = wanted.map(|wanted| all.of(wanted)).transpose()?.flatten();
    let chosen = |ancestry: &Ancestry| Chosen { ancestry: ancestry.clone(), rivals: Vec::new() };
    found.map(chosen).ok_or_else(|| {
        let known: Vec<String> = all.known.iter().map(|it| it.tip().to_string()).collect();
        let wanted = wanted.map_or_else(|| "?".to_owned(), |wanted| wanted.to_string());
        Error::new(Code::TargetUnreachable, format!("timeline {wanted} is not in the repository"))
            .with_hint(format!("Timelines with WAL or a history file there: {}.", known.join(", ")))
    })
}

/// The newest, of those a named backup leads to.
fn current_timeline(
    backup: Option<BackupId>,
    all: &Ancestries,
    backups: &[BackupFacts],
) -> Result<Chosen> {
    let ancestries = &all.known;
    let named = backups.iter().find(|it| Some(it.id) == backup);
    let leads_to = |ancestry: &&Ancestry| {
        named.is_some_and(|named| ancestry.contains(named.stop_timeline, named.stop_lsn))
    };
    let mut candidates: Vec<&Ancestry> = ancestries.iter().filter(leads_to).collect();
    if candidates.is_empty() {
        candidates = ancestries.iter().collect();
    }
    let newest = candidates.iter().copied().max_by_key(|ancestry| ancestry.tip());
    refuse_rivals(all, newest.map(Ancestry::tip), backup, backups)?;
    let Some(newest) = newest else {
        return Err(Error::new(Code::TargetUnreachable, "there is no WAL in the repository")
            .with_hint(hint![
                "Archive it: ",
                Action::Check { cluster: None },
                " prints the `archive_command`, and proves it."
            ]));
    };
    let mut chosen = Chosen { ancestry: newest.clone(), rivals: Vec::new() };
    let is_rival = |other: &&Ancestry| {
        let may_be_meant = candidates.contains(other) || chosen.is_unrelated(other);
        other.tip() != newest.tip() && may_be_meant
    };
    let rivals = ancestries.iter().filter(is_rival).cloned().collect();
    chosen.rivals = rivals;
    Ok(chosen)
}

impl Chosen {
    /// Where the log of another timeline becomes another one.
    #[must_use]
    pub fn fork_from(&self, other: &Ancestry) -> Lsn {
        let mut fork = Lsn::INVALID;
        for (ours, theirs) in self.ancestry.spans().zip(other.spans()) {
            if ours.timeline != theirs.timeline {
                break;
            }
            let end = |end: Option<Lsn>| end.unwrap_or(Lsn(u64::MAX));
            fork = end(ours.end).min(end(theirs.end));
            if ours.end != theirs.end {
                break;
            }
        }
        fork
    }

    /// Whether no history file that is archived connects them. One is missing, or they are of two
    /// clusters.
    fn is_unrelated(&self, other: &Ancestry) -> bool {
        self.fork_from(other) == Lsn::INVALID
    }

    /// Whether another timeline is an ancestor of this one.
    fn descends_from(&self, other: TimelineId) -> bool {
        self.ancestry.span(other).is_some()
    }

    /// The branches that may be meant as much as the timeline that is followed; see the module.
    #[must_use]
    pub fn doubts<'b>(&self, branches: &'b [Branch], backups: &[BackupFacts]) -> Vec<&'b Branch> {
        let doubtful = |branch: &&Branch| {
            let rival = self.rivals.iter().find(|rival| rival.tip() == branch.left.timeline);
            rival.is_some_and(|rival| self.is_doubtful(rival, branch, backups))
        };
        branches.iter().filter(doubtful).collect()
    }

    fn is_doubtful(&self, rival: &Ancestry, branch: &Branch, backups: &[BackupFacts]) -> bool {
        let fork = self.fork_from(rival);
        let is_ours = |it: &BackupFacts| self.ancestry.contains(it.stop_timeline, it.stop_lsn);
        let newest = |of_this: &dyn Fn(&BackupFacts) -> bool| {
            let beyond = backups.iter().filter(|it| it.stop_lsn > fork && of_this(it));
            beyond.map(|backup| backup.finished_at).max()
        };
        let ours = newest(&is_ours);
        let theirs = newest(&|it| it.stop_timeline == rival.tip() && !is_ours(it));
        if theirs.is_none() && !branch.left.has_commits() {
            return false;
        }
        if self.is_unrelated(rival) {
            return true;
        }
        if ours.is_some() {
            return theirs > ours;
        }
        if !self.descends_from(rival.tip()) || branch.left.perhaps_more {
            return true;
        }
        let last_commit = branch.left.last_commit.map(|commit| commit.time);
        branch.first_commit_followed.is_none_or(|first| theirs.max(last_commit) > Some(first))
    }

    /// That the user has to choose between what is followed, of which `own` is archived, and the
    /// branches in doubt.
    #[must_use]
    pub fn ambiguous(&self, own: &LeftBehind, doubts: &[&Branch]) -> Error {
        let mut candidates: Vec<&LeftBehind> = doubts.iter().map(|branch| &branch.left).collect();
        candidates.push(own);
        let timelines: Vec<String> = candidates.iter().map(|it| it.timeline.to_string()).collect();
        let choices: Vec<String> = candidates.iter().map(|it| choice_of(it)).collect();
        Error::new(
            Code::TimelineAmbiguous,
            format!(
                "timelines {} went different ways, so it is not clear which one to restore",
                timelines.join(", ")
            ),
        )
        .with_hint(format!(
            "Choose the one your server is on (`SELECT timeline_id FROM pg_catalog.pg_control_checkpoint();` tells): {}. A backup of timeline {} makes it the one that is followed.",
            choices.join("; "),
            own.timeline
        ))
    }
}

/// One candidate, for the user to choose.
fn choice_of(left: &LeftBehind) -> String {
    let LeftBehind { timeline, after, .. } = left;
    let last = left.last_commit.map_or_else(
        || "has no commit after it".to_owned(),
        |last| format!("has {}, the last at {}", commits_of(left), shown(last.time)),
    );
    format!("`--timeline {timeline}` goes its own way from LSN {after} and {last}")
}

/// How many there are, as far as is known.
pub(super) fn commits_of(left: &LeftBehind) -> String {
    let least = if left.perhaps_more { "at least " } else { "" };
    format!("{least}{}", counted(left.commits, "commit"))
}

pub(super) fn shown(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

pub(super) fn no_such_backup(id: BackupId) -> Error {
    Error::new(Code::NoSuchBackup, format!("there is no usable backup {id}"))
        .with_hint(hint![Action::List, " shows the backups there are."])
}
