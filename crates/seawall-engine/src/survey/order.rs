//! The order in which backups are told.

use std::collections::BTreeMap;

use seawall_core::LineId;

use super::KnownBackup;
use crate::lines::LineAge;

/// A cluster's lines in the order in which they were made, by what several repositories know of them;
/// the line that is written last, whatever clocks say.
pub(super) fn lines_in_order<'a>(
    places: impl Iterator<Item = &'a Vec<LineAge>>,
    written: Option<LineId>,
) -> Vec<LineId> {
    let mut made_us = BTreeMap::<LineId, i64>::new();
    for age in places.flatten() {
        let first = made_us.entry(age.id).or_insert(age.created_us);
        *first = (*first).min(age.created_us);
    }
    let mut lines: Vec<LineId> = made_us.keys().copied().collect();
    lines.sort_by_key(|line| (Some(*line) == written, made_us.get(line), *line));
    lines
}

/// Backups line by line, and in each as far as they are in the log, the farthest last: ids are in the
/// order of clocks, which can be wrong. One whose commit does not tell stands where its id says.
pub(super) fn in_order(
    backups: impl Iterator<Item = KnownBackup>,
    lines: &[LineId],
) -> Vec<KnownBackup> {
    let rank = |backup: &KnownBackup| lines.iter().position(|line| *line == backup.line);
    let (mut ordered, mut others): (Vec<_>, Vec<_>) =
        backups.partition(|backup| backup.timeline.is_some() && backup.stop_lsn.is_some());
    ordered.sort_by_key(|backup| (rank(backup), backup.age(), backup.id));
    others.sort_by_key(|backup| backup.id);
    for other in others {
        let line = rank(&other);
        let before = ordered.iter().rposition(|known| rank(known) == line && known.id < other.id);
        let at = before.map_or_else(
            || ordered.partition_point(|known| rank(known) < line),
            |before| before + 1,
        );
        ordered.insert(at, other);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use seawall_core::{BackupId, Code, Error, Lsn, TimelineId, Ulid};
    use seawall_repo::BackupSummary;

    use super::*;

    fn line(branch: u32) -> LineId {
        format!("7-{branch}").parse().unwrap()
    }

    /// A backup of which nothing but its id can be read.
    fn unread(id: u128, branch: u32) -> KnownBackup {
        let info = Err(Error::new(Code::ObjectDamaged, "x"));
        let summary = BackupSummary { id: BackupId(Ulid(id)), info, goes_at: None };
        KnownBackup::of_line(&[summary], &BTreeMap::new(), line(branch), "primary").remove(0)
    }

    fn backup(id: u128, branch: u32, timeline: u32, stop: u64) -> KnownBackup {
        let (timeline, stop_lsn) = (Some(TimelineId(timeline)), Some(Lsn(stop)));
        KnownBackup { timeline, stop_lsn, ..unread(id, branch) }
    }

    fn ids(backups: Vec<KnownBackup>, lines: &[LineId]) -> Vec<u128> {
        let ordered = in_order(backups.into_iter(), lines);
        ordered.into_iter().map(|backup| backup.id.0.0).collect()
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_make_a_later_backup_an_earlier_one() {
        let all = vec![backup(1, 0, 1, 300), backup(2, 0, 1, 100), backup(3, 0, 2, 50)];
        assert_eq!(ids(all, &[line(0)]), [2, 1, 3]);
    }

    #[test]
    fn backups_are_told_line_by_line_the_one_that_is_written_last() {
        let ages = |all: &[(u32, i64)]| -> Vec<LineAge> {
            let age = |&(branch, created_us)| LineAge { created_us, id: line(branch) };
            all.iter().map(age).collect()
        };
        // Of the last two it is told in another order in the second repository.
        let places = [ages(&[(1, 10), (0, 20), (2, 30)]), ages(&[(0, 25), (2, 5)])];
        let lines = lines_in_order(places.iter(), Some(line(0)));
        assert_eq!(lines, [line(2), line(1), line(0)]);
        let all = vec![backup(1, 0, 1, 100), backup(2, 1, 1, 900), backup(3, 2, 1, 800)];
        assert_eq!(ids(all, &lines), [3, 2, 1]);
    }

    #[test]
    fn one_whose_commit_does_not_tell_stands_where_its_id_says() {
        let lines = [line(0), line(1)];
        let all = vec![backup(5, 1, 1, 300), backup(7, 1, 1, 100), unread(6, 1), unread(4, 1)];
        assert_eq!(ids(all, &lines), [4, 7, 5, 6]);
        let alone = vec![unread(9, 0), unread(8, 0), backup(1, 1, 1, 1)];
        assert_eq!(ids(alone, &lines), [8, 9, 1]);
    }
}
