use seawall_core::{Code, Error, Result, TimelineId};
use seawall_pgdata::history::Ancestry;

use super::BackupFacts;
use crate::restore::TimelineChoice;

/// The timeline a restore follows, with its ancestors.
///
/// # Errors
/// [`Code::TimelineAmbiguous`], [`Code::NoSuchBackup`], and [`Code::TargetUnreachable`] for a
/// timeline that does not exist.
pub fn choose_timeline(
    choice: TimelineChoice,
    ancestries: &[Ancestry],
    backups: &[BackupFacts],
) -> Result<Ancestry> {
    let wanted = match choice {
        TimelineChoice::Current => {
            let current = current_timeline(ancestries)?;
            refuse_left_behind(current, backups)?;
            return Ok(current.clone());
        }
        TimelineChoice::Latest => ancestries.iter().map(Ancestry::tip).max(),
        TimelineChoice::Id(id) => Some(id),
        TimelineChoice::OfBackup(id) => {
            let backup = backups.iter().find(|backup| backup.id == id);
            Some(backup.ok_or_else(|| no_such_backup(id))?.stop_timeline)
        }
    };
    let found = ancestries.iter().find(|ancestry| Some(ancestry.tip()) == wanted);
    found.cloned().ok_or_else(|| {
        let known = list(ancestries.iter().map(Ancestry::tip));
        let wanted = wanted.map_or_else(|| "?".to_owned(), |wanted| wanted.to_string());
        Error::new(Code::TargetUnreachable, format!("timeline {wanted} is not in the repository"))
            .with_hint(format!("Timelines with WAL or a history file there: {known}."))
    })
}

/// A backup that was made on an older timeline, after the current one had left it, tells that the
/// cluster went on there: the current one may be a copy's that nobody wants.
fn refuse_left_behind(current: &Ancestry, backups: &[BackupFacts]) -> Result<()> {
    let left_behind = |backup: &&BackupFacts| {
        current.span(backup.stop_timeline).is_some()
            && !current.contains(backup.stop_timeline, backup.stop_lsn)
    };
    let Some(backup) = backups.iter().filter(left_behind).max_by_key(|backup| backup.stop_lsn)
    else {
        return Ok(());
    };
    let (current, other) = (current.tip(), backup.stop_timeline);
    Err(Error::new(
        Code::TimelineAmbiguous,
        format!(
            "timeline {current} is the newest, and backup {} was made on timeline {other} after {current} had left it",
            backup.id
        ),
    )
    .with_hint(format!(
        "Choose the one your server is on: `--timeline {other}` or `--timeline {current}`; `SELECT timeline_id FROM pg_control_checkpoint();` tells."
    )))
}

/// The timeline the line is on now: the highest, if all others are among its ancestors.
///
/// # Errors
/// [`Code::TimelineAmbiguous`] if another timeline goes its own way.
pub fn current_timeline(ancestries: &[Ancestry]) -> Result<&Ancestry> {
    let newest = ancestries.iter().max_by_key(|ancestry| ancestry.tip()).ok_or_else(|| {
        Error::new(Code::TargetUnreachable, "there is no WAL in the repository").with_hint(
            "Set `archive_command` as `seawall init` printed it; `seawall check` proves it.",
        )
    })?;
    let is_leaf = |tip: &TimelineId| {
        ancestries.iter().all(|other| other.tip() == *tip || other.span(*tip).is_none())
    };
    let mut leaves: Vec<TimelineId> =
        ancestries.iter().map(Ancestry::tip).filter(is_leaf).collect();
    leaves.sort_unstable();
    leaves.dedup();
    if leaves.len() <= 1 {
        return Ok(newest);
    }
    let list = list(leaves.iter().copied());
    let newest = newest.tip();
    Err(Error::new(
        Code::TimelineAmbiguous,
        format!("timelines {list} went different ways, so it is not clear which one to restore"),
    )
    .with_hint(format!(
        "Choose one, such as the newest: `--timeline {newest}`; `seawall wal list` shows where each begins."
    )))
}

pub(super) fn no_such_backup(id: seawall_core::BackupId) -> Error {
    Error::new(Code::NoSuchBackup, format!("there is no usable backup {id}"))
        .with_hint("`seawall list` shows the backups there are.")
}

fn list(timelines: impl Iterator<Item = TimelineId>) -> String {
    timelines.map(|timeline| timeline.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ancestry(timeline: u32, history: &str) -> Ancestry {
        let timeline = TimelineId(timeline);
        if history.is_empty() {
            return Ancestry::root(timeline);
        }
        Ancestry::parse(timeline, history.as_bytes()).unwrap()
    }

    fn current(ancestries: &[Ancestry]) -> Result<TimelineId> {
        current_timeline(ancestries).map(Ancestry::tip)
    }

    #[test]
    fn the_newest_timeline_is_current_if_all_others_lead_to_it() {
        let one = ancestry(1, "");
        let two = ancestry(2, "1\t0/5000000\tx\n");
        let three = ancestry(3, "1\t0/5000000\tx\n2\t0/7000000\tx\n");
        assert_eq!(current(std::slice::from_ref(&one)).unwrap(), TimelineId(1));
        assert_eq!(current(&[three, one, two]).unwrap(), TimelineId(3));
    }

    #[test]
    fn timelines_that_went_different_ways_are_listed_and_one_can_be_chosen() {
        let one = ancestry(1, "");
        let two = ancestry(2, "1\t0/5000000\tx\n");
        let three = ancestry(3, "1\t0/4000000\tx\n");
        let all = [one, two, three];
        let error = current(&all).unwrap_err();
        assert_eq!(error.code(), Code::TimelineAmbiguous);
        assert!(error.message().contains("2, 3"), "{error}");
        for (choice, expected) in
            [(TimelineChoice::Id(TimelineId(1)), 1), (TimelineChoice::Latest, 3)]
        {
            assert_eq!(choose_timeline(choice, &all, &[]).unwrap().tip(), TimelineId(expected));
        }
        let unknown = choose_timeline(TimelineChoice::Id(TimelineId(9)), &all, &[]).unwrap_err();
        assert_eq!(unknown.code(), Code::TargetUnreachable);
    }

    #[test]
    fn a_backup_that_the_newest_timeline_left_behind_makes_it_doubtful() {
        let all = [ancestry(1, ""), ancestry(2, "1\t0/5000000\tx\n")];
        let backup = |stop_lsn: u64| BackupFacts {
            id: seawall_core::BackupId(seawall_core::Ulid(1)),
            generation: 0,
            start_lsn: seawall_core::Lsn(stop_lsn - 0x100),
            start_timeline: TimelineId(1),
            stop_lsn: seawall_core::Lsn(stop_lsn),
            stop_timeline: TimelineId(1),
            finished_at: jiff::Timestamp::UNIX_EPOCH,
            page_errors: 0,
            cluster_bytes: 0,
        };
        let choose = |choice, stop| choose_timeline(choice, &all, &[backup(stop)]);
        let current = choose(TimelineChoice::Current, 0x400_0000).unwrap();
        assert_eq!(current.tip(), TimelineId(2), "it is on the way");
        let doubtful = choose(TimelineChoice::Current, 0x600_0000).unwrap_err();
        assert_eq!(doubtful.code(), Code::TimelineAmbiguous);
        let chosen = choose(TimelineChoice::Id(TimelineId(1)), 0x600_0000).unwrap();
        assert_eq!(chosen.tip(), TimelineId(1));
    }

    #[test]
    fn without_wal_there_is_nothing_to_follow() {
        assert_eq!(current(&[]).unwrap_err().code(), Code::TargetUnreachable);
    }
}
