//! How far the log reaches, and what was committed last, from names and a few footers.

use seawall_core::{Lsn, Result};
use seawall_pgdata::history::Ancestry;

use super::ingest::crossing_facts;
use super::listing::Listed;
use super::range::WalRange;
use super::so_far::{LastCommit, LogSoFar};
use super::{LsnRange, WalArchive};

/// How many seams that nobody proved when they were stored are proven on the way; where there are
/// more, all of the log is walked along faster.
const SEAMS_MAX: usize = 16;

/// Where the log ends that can be read from some position on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// Every record before here is whole.
    pub complete_to: Lsn,
    /// What is missing, if the log goes on behind it.
    pub hole: Option<LsnRange>,
    /// The newest commit.
    pub last_commit: Option<LastCommit>,
}

impl WalArchive {
    /// Where the log ends that is archived from `from` on along `ancestry`. `None` if that takes
    /// more than a look at its end: `wal_level` was `minimal` on the way, or ranges were stored in
    /// another order than the log's, or do not fit each other.
    ///
    /// # Errors
    /// Damage of what is looked at, or a store that fails.
    pub async fn log_end(&self, ancestry: &Ancestry, from: Lsn) -> Result<Option<LogEnd>> {
        let archived = self.archived(ancestry, from).await?;
        let mut parts = archived.iter().peekable();
        let covered = parts.next_if(|part| part.start == from);
        let end = covered.map_or(from, |part| part.end);
        let hole = parts.next().map(|behind| LsnRange { start: end, end: behind.start });
        if end == from {
            return Ok(Some(LogEnd { complete_to: from, hole, last_commit: None }));
        }
        let Some(last) = self.read_up_to(ancestry, end).await? else { return Ok(None) };
        let Some(complete_to) = self.complete_to(ancestry, from, end, &last).await? else {
            return Ok(None);
        };
        let Some(so_far) = self.so_far_from(ancestry, from, last).await? else { return Ok(None) };
        if so_far.minimal_from.is_some_and(|lsn| lsn >= from) {
            return Ok(None);
        }
        let last_commit = so_far.last_commit.filter(|commit| commit.lsn >= from);
        Ok(Some(LogEnd { complete_to, hole, last_commit }))
    }

    /// Up to where every record is whole, of the log up to `end`, which `last` holds.
    async fn complete_to(
        &self,
        ancestry: &Ancestry,
        from: Lsn,
        end: Lsn,
        last: &WalRange,
    ) -> Result<Option<Lsn>> {
        if let Some(tail) = &last.index.tail {
            return Ok(Some(tail.lsn));
        }
        if !last.index.ends_in_a_record() {
            return Ok(Some(end));
        }
        // It lies in a record all over.
        let mut begin = last.start();
        while begin > from {
            let Some(before) = self.read_up_to(ancestry, begin).await? else { return Ok(None) };
            match &before.index.tail {
                Some(tail) => return Ok(Some(tail.lsn)),
                None if before.index.ends_in_a_record() => begin = before.start(),
                None => return Ok(None),
            }
        }
        Ok(Some(from))
    }

    /// What the log says from `from` on, or from somewhere before, up to the end of `last`. `None` if
    /// ranges do not continue each other, or too many have to be asked.
    async fn so_far_from(
        &self,
        ancestry: &Ancestry,
        from: Lsn,
        last: WalRange,
    ) -> Result<Option<LogSoFar>> {
        let mut known = last.so_far;
        for _ in 0..SEAMS_MAX {
            let seam = known.since;
            if seam <= from || known.minimal_from.is_some_and(|lsn| lsn >= from) {
                return Ok(Some(known));
            }
            let Some(before) = self.read_up_to(ancestry, seam).await? else { return Ok(None) };
            let mut earlier = before.so_far;
            if before.index.end == seam {
                let Some(after) = self.read_from(ancestry, seam).await? else { return Ok(None) };
                match crossing_facts(&before.index, &after.index) {
                    Ok(crossing) => earlier = earlier.and(&crossing),
                    Err(_) => return Ok(None),
                }
            }
            known = LogSoFar {
                since: earlier.since,
                minimal_from: known.minimal_from.or(earlier.minimal_from),
                last_commit: known.last_commit.or(earlier.last_commit),
            };
        }
        Ok(None)
    }

    /// A range that begins at `lsn`: its footer.
    async fn read_from(&self, ancestry: &Ancestry, lsn: Lsn) -> Result<Option<WalRange>> {
        let segment = self.segment_at(ancestry.timeline_at(lsn), lsn);
        let ranges = self.ranges_in(segment).await?;
        match ranges.iter().find(|listed| listed.name.start == lsn) {
            Some(listed) => self.read_footer(listed).await.map(Some),
            None => Ok(None),
        }
    }

    /// The range that holds the log before `end`, with what it says up to there.
    async fn read_up_to(&self, ancestry: &Ancestry, end: Lsn) -> Result<Option<WalRange>> {
        let last_byte = LsnRange { start: Lsn(end.0.saturating_sub(1)), end };
        let segment = self.segment_at(ancestry.timeline_at(last_byte.start), last_byte.start);
        let ranges = self.ranges_in(segment).await?;
        let mut holding =
            ranges.iter().filter(|listed| listed.range().overlap(last_byte).is_some());
        let exactly = ranges.iter().find(|listed| listed.name.end == end);
        match exactly.or_else(|| holding.next()) {
            Some(listed) if listed.name.end == end => self.read_footer(listed).await.map(Some),
            Some(listed) => self.read_part_up_to(listed, end).await.map(Some),
            None => Ok(None),
        }
    }

    /// A range that goes on behind `end`, where another one or another timeline takes over.
    async fn read_part_up_to(&self, listed: &Listed, end: Lsn) -> Result<WalRange> {
        let mut range = self.read_index(listed).await?;
        let facts = &mut range.index.facts;
        facts.commits.retain(|commit| commit.end_lsn <= end);
        facts.events.retain(|event| event.end_lsn <= end);
        range.so_far = LogSoFar::of(&range.index);
        // A record that goes on behind the range is of what was left.
        range.index.tail = None;
        Ok(range)
    }
}
