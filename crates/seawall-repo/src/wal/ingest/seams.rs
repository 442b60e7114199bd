//! Proves that what comes continues what is archived beside it.

use seawall_core::{Action, Code, Error, Lsn, Result, WalSegment, hint};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::{Link, RangeChain, RangeIndex, StitchFault, WalFacts};

use super::stretch::Stretch;
use crate::wal::listing::Listed;
use crate::wal::range::WalRange;
use crate::wal::so_far::LogSoFar;
use crate::wal::{LsnRange, WalArchive};

impl WalArchive {
    /// Compares a new range with the archived ones that end where it begins and begin where it
    /// ends: records that cross over have to be whole, and the first one has to name the last.
    /// Gives what the log says up to the new range's end. `there` are the ranges of its segment.
    pub(super) async fn prove_seams(
        &self,
        stretch: &Stretch<'_>,
        ancestry: &Ancestry,
        index: &RangeIndex,
        there: &[Listed],
    ) -> Result<LogSoFar> {
        let range = LsnRange { start: index.start, end: index.end };
        let mut so_far = LogSoFar::of(index);
        if let Some((listed, before)) = self.range_before(ancestry, index, there).await? {
            let crossing = crossing_facts(&before.index, index)
                .map_err(|fault| discontinuous(stretch, &listed, range.start, fault))?;
            so_far = before.so_far.continued(&crossing, index);
        }
        if let Some((listed, after)) = self.range_after(index, there).await? {
            crossing_facts(index, &after.index)
                .map_err(|fault| discontinuous(stretch, &listed, range.end, fault))?;
        }
        Ok(so_far)
    }

    async fn range_before(
        &self,
        ancestry: &Ancestry,
        index: &RangeIndex,
        there: &[Listed],
    ) -> Result<Option<(Listed, WalRange)>> {
        let Some(last_byte) = index.start.0.checked_sub(1).map(Lsn) else { return Ok(None) };
        let segment = self.segment_at(ancestry.timeline_at(last_byte), last_byte);
        let ends_there = |listed: &Listed| listed.name.end == index.start;
        self.neighbour(index, segment, there, ends_there).await
    }

    async fn range_after(
        &self,
        index: &RangeIndex,
        there: &[Listed],
    ) -> Result<Option<(Listed, WalRange)>> {
        let segment = self.segment_at(index.timeline, index.end);
        let begins_there = |listed: &Listed| listed.name.start == index.end;
        self.neighbour(index, segment, there, begins_there).await
    }

    async fn neighbour(
        &self,
        index: &RangeIndex,
        segment: WalSegment,
        there: &[Listed],
        touches: impl Fn(&Listed) -> bool,
    ) -> Result<Option<(Listed, WalRange)>> {
        let found = if segment == self.segment_at(index.timeline, index.start) {
            there.iter().find(|listed| touches(listed)).cloned()
        } else {
            self.ranges_in(segment).await?.into_iter().find(touches)
        };
        let Some(listed) = found else { return Ok(None) };
        let range = self.read_footer(&listed).await?;
        Ok(Some((listed, range)))
    }
}

/// What the record says that crosses from one range into the next, as far as these two hold it.
///
/// # Errors
/// [`StitchFault`] if they do not continue each other, as far as these two alone can tell.
pub(in crate::wal) fn crossing_facts(
    before: &RangeIndex,
    after: &RangeIndex,
) -> Result<WalFacts, StitchFault> {
    let mut facts = WalFacts::default();
    if let Link::Record(record) = RangeChain::new(before).push(after)? {
        facts.apply(&record.record());
    }
    Ok(facts)
}

fn discontinuous(stretch: &Stretch<'_>, listed: &Listed, seam: Lsn, fault: StitchFault) -> Error {
    Error::new(
        Code::WalDiscontinuous,
        format!(
            "{} does not fit the archived WAL beside it: at {seam}, next to object {}, {fault}",
            stretch.name(),
            listed.path
        ),
    )
    .with_hint(
        hint!["Another server wrote one of the two, or this one was set back. If this one is the cluster from now on: ", Action::Adopt { cluster: None }, "."],
    )
}
