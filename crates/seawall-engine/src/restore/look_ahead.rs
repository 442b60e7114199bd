//! What lies after the target: drops, and commits that are not later, as far as it is worth looking.

use std::ops::ControlFlow;

use seawall_core::{Hint, Lsn, Result};
use seawall_pgdata::history::Ancestry;

use super::plan::{RemovalLog, TOLD, shown};
use super::{Fact, Point, Target, WalSource};
use crate::restored::{CommitPlace, RestorePlan};

/// How much WAL behind the target is looked at: its index is small, and an archive may be long.
const LOOK_AHEAD_BYTES: u64 = 1 << 30;

/// Finds the first removals behind where replay stops, and what a clock that is not even puts there.
/// `log` was fed all before it.
pub(super) async fn look_ahead(
    wal: &dyn WalSource,
    ancestry: &Ancestry,
    target: &Target,
    log: &RemovalLog,
    plan: &mut RestorePlan,
) -> Result<()> {
    let from = plan.stop.kept_until();
    let mut search = Search::new(from, target, log);
    let walked = wal.facts(ancestry, from, &mut |fact| search.feed(fact)).await;
    plan.removals.left_out = search.log.found().take(TOLD).cloned().collect();
    plan.removals.looked_to = search.looked_to;
    plan.removals.reached_end = search.reached_end && walked.is_ok();
    plan.warnings.extend(search.early.warning());
    walked
}

struct Search<'a> {
    from: Lsn,
    log: RemovalLog,
    looked_to: Lsn,
    reached_end: bool,
    early: EarlyCommits<'a>,
}

/// Commits behind where replay stops that are not past the time that is the target. PostgreSQL stops
/// at the first one that is, in the order of the log (`recoveryStopsBefore`, xlogrecovery.c); times are
/// noted before a commit has its place there, and clocks are set back.
struct EarlyCommits<'a> {
    target: &'a Target,
    count: u64,
    ends: Option<(CommitPlace, CommitPlace)>,
}

impl EarlyCommits<'_> {
    const fn is_sought(&self) -> bool {
        matches!(self.target, Target::To(Point::Time(_)) | Target::Before(Point::Time(_)))
    }

    fn feed(&mut self, fact: &Fact) {
        let Fact::Xact(xact) = fact else { return };
        if xact.kind.is_commit() && self.target.is_past(xact.time) == Some(false) {
            let commit = CommitPlace { xid: xact.xid, lsn: xact.place.lsn, time: xact.time };
            self.count += 1;
            self.ends = Some((self.ends.map_or(commit, |(first, _)| first), commit));
        }
    }

    fn warning(&self) -> Option<Hint> {
        let (first, last) = self.ends?;
        Some(Hint::from(format!(
            "PostgreSQL stops at the first transaction that ended past the target, in the order of the log. Behind it {} not past the target by the server's clock left out as well; the first is transaction {}. `--to xid:{}` keeps all that lies up to the last.",
            if self.count == 1 {
                "1 commit is".to_owned()
            } else {
                format!("{} commits are", self.count)
            },
            shown(&first),
            last.xid
        )))
    }
}

impl<'a> Search<'a> {
    fn new(from: Lsn, target: &'a Target, log: &RemovalLog) -> Self {
        let early = EarlyCommits { target, count: 0, ends: None };
        Self { from, log: log.emptied(), looked_to: from, reached_end: true, early }
    }

    fn feed(&mut self, fact: &Fact) -> ControlFlow<()> {
        if fact.lsn() < self.from {
            return ControlFlow::Continue(());
        }
        let bound = self.from.saturating_add(LOOK_AHEAD_BYTES);
        // What is not known may hold the first one.
        let is_over = fact.lsn() >= bound || matches!(fact, Fact::Unreadable(_));
        let has_enough = self.log.has_committed(TOLD);
        if !has_enough {
            self.looked_to = fact.lsn().min(bound);
        }
        if is_over {
            self.reached_end = false;
            return ControlFlow::Break(());
        }
        self.early.feed(fact);
        if !has_enough {
            self.log.feed(fact);
        }
        if !self.log.has_committed(TOLD) {
            return ControlFlow::Continue(());
        }
        self.reached_end = false;
        if self.early.is_sought() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use seawall_core::Xid;
    use seawall_pgdata::wal::XactEndKind;

    use super::*;
    use crate::restore::{RecordPlace, UnreadableWal, XactFact};

    const FROM: Lsn = Lsn(0x100_0000);

    fn drop_at(bytes: u64, xid: Xid) -> Fact {
        let lsn = FROM.saturating_add(bytes);
        Fact::Xact(XactFact {
            place: RecordPlace { lsn, end: lsn.saturating_add(61) },
            xid,
            time: Timestamp::UNIX_EPOCH,
            kind: XactEndKind::Commit,
            subxids: Vec::new(),
            database: Some(5),
            drops_relations: true,
        })
    }

    /// What is found in facts, how far was looked, and whether that is all there is.
    fn search(facts: &[Fact]) -> (Vec<Xid>, u64, bool) {
        search_for(&Target::Latest, facts)
    }

    fn search_for(target: &Target, facts: &[Fact]) -> (Vec<Xid>, u64, bool) {
        let mut search = Search::new(FROM, target, &RemovalLog::default());
        facts.iter().find(|fact| search.feed(fact).is_break());
        let found = search.log.found().map(|removal| removal.xid).collect();
        (found, search.looked_to.bytes_since(FROM), search.reached_end)
    }

    #[test]
    fn a_search_ends_with_the_log_with_enough_or_far_away_and_says_where() {
        let ten = (0..10).map(|n| drop_at(u64::from(n) * 64, 700 + n)).collect::<Vec<_>>();
        assert_eq!(search(&ten[..2]), (vec![700, 701], 64, true));
        assert_eq!(search(&ten), (vec![700, 701, 702], 128, false));
        let far = [drop_at(64, 700), drop_at(LOOK_AHEAD_BYTES, 701)];
        assert_eq!(search(&far), (vec![700], LOOK_AHEAD_BYTES, false));
        assert_eq!(search(&[]), (Vec::new(), 0, true));
    }

    #[test]
    fn a_search_for_commits_that_are_not_later_goes_on_and_tells_the_same_of_drops() {
        let target = Target::To(Point::Time(Timestamp::from_second(1).unwrap()));
        let mut ten: Vec<Fact> = (0..10).map(|n| drop_at(u64::from(n) * 64, 700 + n)).collect();
        assert_eq!(search_for(&target, &ten), (vec![700, 701, 702], 128, false));
        for (fact, second) in ten.iter_mut().zip(2..) {
            let Fact::Xact(xact) = fact else { panic!("{fact:?}") };
            // The clock goes back, in steps.
            xact.time = Timestamp::from_second(second % 5).unwrap();
        }
        let mut search = Search::new(FROM, &target, &RemovalLog::default());
        assert!(!ten.iter().any(|fact| search.feed(fact).is_break()));
        let (first, last) = search.early.ends.unwrap();
        assert_eq!((search.early.count, first.xid, last.xid), (4, 703, 709));
        let warning = format!("{:?}", search.early.warning().unwrap());
        assert!(
            warning.contains("4 commits are") && warning.contains("`--to xid:709`"),
            "{warning}"
        );
        let before = Target::Before(Point::Time(Timestamp::from_second(1).unwrap()));
        let mut search = Search::new(FROM, &before, &RemovalLog::default());
        assert!(ten.iter().all(|fact| search.feed(fact).is_continue()));
        assert_eq!(search.early.count, 2, "the moment itself is past it");
    }

    #[test]
    fn a_search_does_not_pass_what_it_cannot_read() {
        let start = FROM.saturating_add(128);
        let hole = UnreadableWal { start, end: start, why: "object x".to_owned() };
        let facts = [drop_at(64, 700), Fact::Unreadable(hole), drop_at(256, 701)];
        assert_eq!(search(&facts), (vec![700], 128, false));
    }
}
