//! What would be lost if the server were lost now.

use jiff::Timestamp;
use seawall_core::Lsn;

use super::{Archiving, ClusterSurvey};
use crate::wal::Reach;

impl ClusterSurvey {
    /// Seconds of commits that would be lost if the server were lost now: those that no repository
    /// can give back, be they archived or not. `None` if nothing can be restored, or nobody knows.
    #[must_use]
    pub fn at_risk_s(&self, archiving: &Archiving, now: Timestamp) -> Option<f64> {
        let reach = self.reach.as_ref().filter(|_| archiving.own_archiver)?;
        // By the clock of this host; the commit was timed by the server's.
        let since_last = now.duration_since(reach.time).as_secs_f64().max(0.0);
        // That the archiver succeeded a moment ago says nothing of what it has not come to yet.
        let word_counts = reach.obstacle.is_none()
            && !self.is_of_another_past(reach, archiving)
            && !archiving.lags_behind(reach.lsn)
            && self.contradiction(archiving).is_none();
        let by_its_word = archiving.at_risk_s(reach.lsn).filter(|_| word_counts);
        by_its_word.or(Some(since_last))
    }

    /// Whether the newest backup leads somewhere else than to what the server writes, as after a restore
    /// to a moment before that backup's end. A standby tells no timeline, and may be behind the archive.
    fn is_of_another_past(&self, reach: &Reach, archiving: &Archiving) -> bool {
        archiving.timeline.is_some_and(|server| {
            let archived = || self.written_wal().any(|wal| wal.timeline == server);
            reach.timeline != server && (reach.lsn > archiving.insert_lsn || archived())
        })
    }
}

impl Archiving {
    /// Whether whole segments wait for the archiver beside the one that is on its way. `archived` is
    /// where the archived log ends.
    fn lags_behind(&self, archived: Lsn) -> bool {
        self.insert_lsn.bytes_since(archived) > self.segment_size.bytes().saturating_mul(2)
    }

    /// The time in which commits may have happened that are in no repository, where the log is
    /// archived up to `archived`; `None` if nothing was ever archived.
    ///
    /// A quiet server writes WAL of its own that nobody would miss, and does not switch for it. So
    /// less than a segment counts only as long as `archive_timeout` lets commits wait.
    fn at_risk_s(&self, archived: Lsn) -> Option<f64> {
        let behind = self.insert_lsn.bytes_since(archived);
        if archived.is_valid() && behind == 0 {
            return Some(0.0);
        }
        let since = self.archived_s_ago?;
        let waits =
            self.timeout_s > 0 && self.failing_on.is_none() && behind < self.segment_size.bytes();
        Some(if waits { since.min(f64::from(self.timeout_s)) } else { since })
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;
    use seawall_core::{BackupId, TimelineId, Ulid};

    use super::super::ArchivedWal;
    use super::*;
    use crate::wal::Obstacle;

    /// A server that archived a second ago, and goes on at 0/6000000.
    fn archiving() -> Archiving {
        Archiving {
            insert_lsn: Lsn(0x600_0000),
            timeline: Some(TimelineId(2)),
            archived_s_ago: Some(1.0),
            ..Archiving::quiet()
        }
    }

    fn reach_of(obstacle: Option<Obstacle>, lsn: u64, time: Timestamp) -> ClusterSurvey {
        let (backup, timeline) = (BackupId(Ulid(7)), TimelineId(2));
        let reach = Some(Reach { backup, timeline, lsn: Lsn(lsn), time, obstacle, hole: None });
        ClusterSurvey { reach, ..ClusterSurvey::empty("main".parse().unwrap()) }
    }

    #[test]
    fn a_quiet_server_is_not_at_risk_for_hours() {
        let quiet = Archiving::quiet();
        assert_eq!(quiet.at_risk_s(Lsn(0x300_0000)), Some(60.0));
        assert_eq!(quiet.at_risk_s(Lsn(0x300_0100)), Some(0.0));
    }

    #[test]
    fn a_server_whose_wal_does_not_go_anywhere_is() {
        let quiet = Archiving::quiet;
        let never = Archiving { timeout_s: 0, ..quiet() };
        let failing =
            Archiving { failing_on: Some("000000010000000000000003".to_owned()), ..quiet() };
        let far = Archiving { insert_lsn: Lsn(0x900_0000), ..quiet() };
        for archiving in [never, failing, far] {
            assert_eq!(archiving.at_risk_s(Lsn(0x300_0000)), Some(7200.0), "{archiving:?}");
        }
        let unheard_of = Archiving { archived_s_ago: None, ..quiet() };
        assert_eq!(unheard_of.at_risk_s(Lsn::INVALID), None);
    }

    #[test]
    fn what_cannot_be_restored_counts_from_the_last_commit_that_can() {
        let now = Timestamp::UNIX_EPOCH + 9.hours();
        let archiving = archiving();
        let minimal = Obstacle::MinimalWal { lsn: Lsn(0x500_0000) };
        let at_risk = |obstacle: Option<Obstacle>, lsn| {
            reach_of(obstacle, lsn, Timestamp::UNIX_EPOCH).at_risk_s(&archiving, now)
        };
        // All that is archived can be restored.
        assert_eq!(at_risk(None, 0x600_0000), Some(0.0));
        // Archived a second ago, and of no use.
        assert_eq!(at_risk(Some(minimal), 0x500_0000), Some(32_400.0));
        // A clock that is behind the server's.
        let later = reach_of(Some(Obstacle::MinimalWal { lsn: Lsn(8) }), 8, now + 1.hour());
        assert_eq!(later.at_risk_s(&archiving, now), Some(0.0));
        let none = ClusterSurvey::empty("main".parse().unwrap());
        assert_eq!(none.at_risk_s(&archiving, now), None, "without a backup all is lost");
    }

    /// Restored to a moment before the newest backup's end: its WAL is all there, and not the server's.
    #[test]
    fn a_backup_of_a_past_that_was_left_gives_no_commit_of_the_server_back() {
        let now = Timestamp::UNIX_EPOCH + 9.hours();
        let of_timeline = |timeline, lsn| {
            let mut cluster = reach_of(None, lsn, Timestamp::UNIX_EPOCH);
            cluster.reach = cluster.reach.map(|reach| Reach { timeline, ..reach });
            cluster
        };
        let at_risk = |cluster: &ClusterSurvey| cluster.at_risk_s(&archiving(), now);
        assert_eq!(at_risk(&of_timeline(TimelineId(1), 0x700_0000)), Some(32_400.0));
        let mut archived = of_timeline(TimelineId(1), 0x5FF_0000);
        let line = "7-0".parse().unwrap();
        archived.wal.push(ArchivedWal {
            line,
            timeline: TimelineId(2),
            repository: "primary".to_owned(),
            first_lsn: Lsn(0x400_0000),
            last_lsn: Lsn(0x600_0000),
            gaps: Vec::new(),
            objects: 1,
            stored_bytes: 1,
        });
        archived.line = Some(line);
        assert_eq!(at_risk(&archived), Some(32_400.0));
        // Promoted just now, and nothing archived since.
        assert_eq!(at_risk(&of_timeline(TimelineId(1), 0x5FF_0000)), Some(1.0));
        // A standby that is behind the archive.
        let standby = Archiving { timeline: None, insert_lsn: Lsn(0x500_0000), ..archiving() };
        assert_eq!(of_timeline(TimelineId(1), 0x600_0000).at_risk_s(&standby, now), Some(0.0));
        let another_s = Archiving { own_archiver: false, ..standby };
        let unknown = of_timeline(TimelineId(1), 0x600_0000).at_risk_s(&another_s, now);
        assert_eq!(unknown, None, "whether its primary archives");
    }

    /// The archiver succeeds all the time, with what was written long ago.
    #[test]
    fn an_archiver_that_lags_behind_is_not_believed_to_be_up_to_date() {
        let cluster = reach_of(None, 0x500_0000, Timestamp::UNIX_EPOCH);
        let now = Timestamp::UNIX_EPOCH + 1.hour();
        let at_risk = |insert_lsn| {
            cluster.at_risk_s(&Archiving { insert_lsn: Lsn(insert_lsn), ..archiving() }, now)
        };
        assert_eq!(at_risk(0x700_0000), Some(1.0));
        assert_eq!(at_risk(0x700_0001), Some(3600.0));
    }

    /// Statistics that were reset tell of no success; the archive does.
    #[test]
    fn an_archiver_that_remembers_nothing_does_not_make_the_rpo_unknown() {
        let archiving = Archiving { archived_s_ago: None, ..archiving() };
        let cluster = reach_of(None, 0x500_0000, Timestamp::UNIX_EPOCH);
        let now = Timestamp::UNIX_EPOCH + 1.hour();
        assert_eq!(cluster.at_risk_s(&archiving, now), Some(3600.0));
    }
}
