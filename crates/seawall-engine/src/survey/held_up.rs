//! An archiver that fails because of one of several repositories.
//!
//! PostgreSQL archives one file after another, and a file counts as archived when every repository of
//! the cluster has it. So one that fails keeps what comes later from all of them, and `pg_wal` grows.

use std::collections::BTreeSet;

use jiff::Timestamp;
use seawall_core::{ByteSize, Hint, WalFileName, WalSegment, seconds_of, shown_duration};
use serde::Serialize;

use super::{Archiving, ClusterSurvey};

/// What the archiver fails on while some of several repositories have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArchiverHold {
    /// The segment it fails on.
    #[serde(serialize_with = "crate::as_text::serialize")]
    pub segment: WalSegment,
    /// The repositories that have it, by name.
    pub have: Vec<String>,
    /// The others.
    pub held_up_by: Vec<HoldingRepository>,
    /// Seconds since the archiver last succeeded; `None` if it never did, or does not remember.
    pub archived_s_ago: Option<f64>,
    /// Bytes of the log from that segment on, which `pg_wal` keeps.
    pub waiting_bytes: u64,
}

/// A repository that lacks what the archiver fails on, as far as is known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HoldingRepository {
    /// Its name.
    pub repository: String,
    /// Seconds of commits that it could not give back; `None` if unknown, as of one that cannot be
    /// looked at.
    pub rpo_seconds: Option<f64>,
    /// Whether it could not be looked at: then it may have it.
    #[serde(skip)]
    pub is_unseen: bool,
}

impl ClusterSurvey {
    /// Which repositories hold the archiver up, if that is why it fails: others have the segment it
    /// fails on. Where none has it, or all have, it fails for another reason. So it may with a file
    /// that is no segment.
    #[must_use]
    pub fn archiver_hold(&self, archiving: &Archiving, now: Timestamp) -> Option<ArchiverHold> {
        let failing_on = archiving.failing_on.as_deref()?;
        let segment = match WalFileName::parse(failing_on, archiving.segment_size)? {
            WalFileName::Segment(segment) => segment,
            WalFileName::Partial(_)
            | WalFileName::TimelineHistory(_)
            | WalFileName::BackupHistory(..) => return None,
        };
        let mut have: Vec<String> = Vec::new();
        for wal in self.written_wal().filter(|wal| wal.has(segment)) {
            have.push(wal.repository.clone());
        }
        let seen = self.alone.iter().map(|(name, _)| name);
        let all: BTreeSet<&String> = seen.chain(&self.unseen).collect();
        let others = all.into_iter().filter(|name| !have.contains(name));
        let held_up_by: Vec<HoldingRepository> = others
            .map(|repository| {
                let own = self.alone.iter().find(|(name, _)| name == repository);
                let rpo_seconds = own.and_then(|(_, own)| own.at_risk_s(archiving, now));
                let is_unseen = own.is_none();
                HoldingRepository { repository: repository.clone(), rpo_seconds, is_unseen }
            })
            .collect();
        let waiting_bytes = archiving.insert_lsn.bytes_since(segment.start());
        let archived_s_ago = archiving.archived_s_ago;
        let hold = ArchiverHold { segment, have, held_up_by, archived_s_ago, waiting_bytes };
        (!hold.have.is_empty() && !hold.held_up_by.is_empty()).then_some(hold)
    }
}

impl ArchiverHold {
    /// Which repository it is, since when, what is at stake, and what to do.
    pub(super) fn told(&self) -> Hint {
        let names: Vec<&str> =
            self.held_up_by.iter().map(|holding| holding.repository.as_str()).collect();
        let (holds, lacks) = match names.as_slice() {
            [_] => ("repository", "does not have"),
            _ => ("repositories", "do not have"),
        };
        let is_unsure = self.held_up_by.iter().any(|holding| holding.is_unseen);
        let since = self.archived_s_ago.map_or_else(
            || "when it last succeeded is not known".to_owned(),
            |ago| format!("it last succeeded {} ago", shown_duration(seconds_of(ago))),
        );
        let mut at_risk = String::new();
        for HoldingRepository { repository, rpo_seconds, .. } in &self.held_up_by {
            at_risk.push_str(&rpo_seconds.map_or_else(
                || format!(", and whether {repository} could give anything back is not known"),
                |seconds| {
                    let of = shown_duration(seconds_of(seconds));
                    format!(", {repository} could not give back the last {of} of commits")
                },
            ));
        }
        format!(
            "the archiver is held up by {holds} {names}, which {lacks} {segment}{or_unseen}, while {have} {has}: \
             {since}{at_risk}, and what comes later is archived nowhere: {waiting} of WAL wait in \
             pg_wal, and PostgreSQL stops when its disk is full; PostgreSQL's log says why; mend \
             it, or take it out of `repositories` for as long as it is away",
            names = names.join(", "),
            segment = self.segment,
            or_unseen = if is_unsure { ", or could not be looked at" } else { "" },
            have = self.have.join(", "),
            has = if self.have.len() == 1 { "has it" } else { "have it" },
            waiting = ByteSize(self.waiting_bytes),
        )
        .into()
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;
    use seawall_core::{BackupId, Lsn, TimelineId, Ulid};

    use super::super::{ArchivedWal, WalGap};
    use super::*;
    use crate::wal::Reach;

    const FAILS_ON: &str = "000000010000000000000005";

    /// An hour after the last commit that is anywhere.
    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH + 1.hour()
    }

    /// A repository with WAL from 0/3000000 up to an LSN, whose last commit was then.
    fn repository(name: &str, last_lsn: u64) -> (String, ClusterSurvey) {
        let line = "7-0".parse().unwrap();
        let wal = ArchivedWal {
            repository: name.to_owned(),
            line,
            timeline: TimelineId(1),
            first_lsn: Lsn(0x300_0000),
            last_lsn: Lsn(last_lsn),
            gaps: Vec::new(),
            objects: 2,
            stored_bytes: 1,
        };
        let reach = Reach {
            backup: BackupId(Ulid(7)),
            timeline: TimelineId(1),
            lsn: Lsn(last_lsn),
            time: Timestamp::UNIX_EPOCH,
            obstacle: None,
            hole: None,
        };
        let empty = ClusterSurvey::empty("main".parse().unwrap());
        let own = ClusterSurvey { line: Some(line), wal: vec![wal], reach: Some(reach), ..empty };
        (name.to_owned(), own)
    }

    fn together(alone: Vec<(String, ClusterSurvey)>, unseen: &[&str]) -> ClusterSurvey {
        let wal = alone.iter().flat_map(|(_, own)| own.wal.clone()).collect();
        let line = alone.iter().find_map(|(_, own)| own.line);
        let unseen = unseen.iter().map(|&name| name.to_owned()).collect();
        let empty = ClusterSurvey::empty("main".parse().unwrap());
        ClusterSurvey { line, wal, alone, unseen, ..empty }
    }

    /// It fails on segment 5, and the server is in segment 8.
    fn failing() -> Archiving {
        Archiving {
            failing_on: Some(FAILS_ON.to_owned()),
            archived_s_ago: Some(720.0),
            insert_lsn: Lsn(0x880_0000),
            ..Archiving::quiet()
        }
    }

    fn holding(cluster: &ClusterSurvey) -> Option<Vec<(String, Option<f64>)>> {
        let hold = cluster.archiver_hold(&failing(), now())?;
        let by = hold.held_up_by.into_iter();
        Some(by.map(|holding| (holding.repository, holding.rpo_seconds)).collect())
    }

    #[test]
    fn the_repository_that_lacks_what_another_has_holds_the_archiver_up() {
        let both = vec![repository("primary", 0x600_0000), repository("offsite", 0x500_0000)];
        let both = together(both, &[]);
        assert_eq!(holding(&both), Some(vec![("offsite".to_owned(), Some(3600.0))]));
        let told = both.archiver_hold(&failing(), now()).unwrap().told();
        let told = format!("{told:?}");
        for part in
            ["offsite", "primary has it", FAILS_ON, "12 min 0 s ago", "last 1 h", "MiB", "pg_wal"]
        {
            assert!(told.contains(part), "no {part} in {told}");
        }
        assert!(!told.contains("looked at"), "{told}");
    }

    #[test]
    fn what_is_not_known_of_a_repository_or_the_archiver_is_not_told_as_a_fact() {
        let away = together(vec![repository("primary", 0x600_0000)], &["offsite"]);
        assert_eq!(holding(&away), Some(vec![("offsite".to_owned(), None)]));
        let archiving = Archiving { archived_s_ago: None, ..failing() };
        let told = format!("{:?}", away.archiver_hold(&archiving, now()).unwrap().told());
        for part in [
            &format!("does not have {FAILS_ON}, or could not be looked at, while"),
            "when it last succeeded is not known",
            "whether offsite could give anything back is not known",
        ] {
            assert!(told.contains(part), "no {part} in {told}");
        }
    }

    #[test]
    fn the_first_segment_of_a_timeline_is_there_from_the_fork_on() {
        let beside = |first_lsn, last_lsn| {
            let mut forked = repository("primary", last_lsn);
            forked.1.wal[0].first_lsn = Lsn(first_lsn);
            together(vec![forked, repository("offsite", 0x500_0000)], &[])
        };
        let forked_in_it = holding(&beside(0x540_0000, 0x600_0000));
        assert_eq!(forked_in_it, Some(vec![("offsite".to_owned(), Some(3600.0))]));
        assert_eq!(holding(&beside(0x600_0000, 0x700_0000)), None, "it begins with the next one");
    }

    #[test]
    fn an_archiver_that_fails_for_all_or_for_none_of_them_is_held_up_by_none() {
        let at = |primary, offsite| {
            together(vec![repository("primary", primary), repository("offsite", offsite)], &[])
        };
        assert_eq!(holding(&at(0x600_0000, 0x600_0000)), None, "all have it");
        assert_eq!(holding(&at(0x500_0000, 0x500_0000)), None, "none has it");
        assert_eq!(holding(&together(Vec::new(), &["offsite"])), None);
        assert_eq!(holding(&together(vec![repository("primary", 0x600_0000)], &[])), None);
        let at_work = Archiving { failing_on: None, ..failing() };
        let one_lacks = at(0x600_0000, 0x500_0000);
        assert_eq!(one_lacks.archiver_hold(&at_work, now()), None);
        let history = Archiving { failing_on: Some("00000002.history".to_owned()), ..failing() };
        assert_eq!(one_lacks.archiver_hold(&history, now()), None);
    }

    #[test]
    fn a_repository_with_a_hole_there_does_not_have_it() {
        let mut ahead = repository("offsite", 0x700_0000);
        let gap = WalGap { start_lsn: Lsn(0x500_0000), end_lsn: Lsn(0x600_0000) };
        ahead.1.wal[0].gaps.push(gap);
        let both = together(vec![repository("primary", 0x600_0000), ahead], &[]);
        assert_eq!(holding(&both), Some(vec![("offsite".to_owned(), Some(720.0))]));
    }
}
