//! What is dropped after the target, as far as it is worth looking.

use std::ops::ControlFlow;

use seawall_core::{Lsn, Result};
use seawall_pgdata::history::Ancestry;

use super::plan::{RemovalLog, Removals, TOLD};
use super::{Fact, WalSource};

/// How much WAL behind the target is looked at: its index is small, and an archive may be long.
const LOOK_AHEAD_BYTES: u64 = 1 << 30;

/// Finds the first removals behind `from`, where replay stops. `log` was fed all before it.
pub(super) async fn look_ahead(
    wal: &dyn WalSource,
    ancestry: &Ancestry,
    from: Lsn,
    log: &RemovalLog,
    removals: &mut Removals,
) -> Result<()> {
    let mut search = Search::new(from, log);
    let walked = wal.facts(ancestry, from, &mut |fact| search.feed(fact)).await;
    removals.left_out = search.log.found().take(TOLD).cloned().collect();
    removals.looked_to = search.looked_to;
    removals.reached_end = search.reached_end && walked.is_ok();
    walked
}

struct Search {
    from: Lsn,
    log: RemovalLog,
    looked_to: Lsn,
    reached_end: bool,
}

impl Search {
    fn new(from: Lsn, log: &RemovalLog) -> Self {
        Self { from, log: log.emptied(), looked_to: from, reached_end: true }
    }

    fn feed(&mut self, fact: &Fact) -> ControlFlow<()> {
        if fact.lsn() < self.from {
            return ControlFlow::Continue(());
        }
        let bound = self.from.saturating_add(LOOK_AHEAD_BYTES);
        // What is not known may hold the first one.
        let is_over = fact.lsn() >= bound || matches!(fact, Fact::Unreadable(_));
        self.looked_to = fact.lsn().min(bound);
        if !is_over {
            self.log.feed(fact);
        }
        if is_over || self.log.has_committed(TOLD) {
            self.reached_end = false;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
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
        let mut search = Search::new(FROM, &RemovalLog::default());
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
    fn a_search_does_not_pass_what_it_cannot_read() {
        let start = FROM.saturating_add(128);
        let hole = UnreadableWal { start, end: start, why: "object x".to_owned() };
        let facts = [drop_at(64, 700), Fact::Unreadable(hole), drop_at(256, 701)];
        assert_eq!(search(&facts), (vec![700], 128, false));
    }
}
