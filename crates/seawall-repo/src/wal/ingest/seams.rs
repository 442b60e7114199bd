//! Proves that what is pushed continues what is archived beside it.

use seawall_core::{Action, Code, Error, Lsn, Result, hint};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::{RangeChain, RangeIndex, StitchFault};

use super::examine::SegmentFile;
use crate::wal::listing::Listed;
use crate::wal::range::WalRange;
use crate::wal::{LsnRange, WalArchive};

impl WalArchive {
    /// Compares a new range with the archived ones that end where it begins and begin where it
    /// ends: records that cross over have to be whole, and the first one has to name the last.
    pub(super) async fn check_seams(
        &self,
        file: &SegmentFile<'_>,
        ancestry: &Ancestry,
        index: &RangeIndex,
    ) -> Result<()> {
        let range = LsnRange { start: index.start, end: index.end };
        if let Some((listed, before)) = self.range_before(ancestry, range.start).await?
            && let Err(fault) = check_seam(&before.index, index)
        {
            return Err(discontinuous(file, &listed, range.start, fault));
        }
        if let Some((listed, after)) = self.range_after(index, range.end).await?
            && let Err(fault) = check_seam(index, &after.index)
        {
            return Err(discontinuous(file, &listed, range.end, fault));
        }
        Ok(())
    }

    async fn range_before(
        &self,
        ancestry: &Ancestry,
        end: Lsn,
    ) -> Result<Option<(Listed, WalRange)>> {
        let Some(last_byte) = end.0.checked_sub(1).map(Lsn) else { return Ok(None) };
        let timeline = ancestry.timeline_at(last_byte);
        let segment = self.segment_at(timeline, last_byte);
        for listed in self.ranges_in(segment).await?.into_iter().rev() {
            if listed.name.start < end && self.extent(&listed).await?.end == end {
                let range = self.read_footer(&listed).await?;
                return Ok(Some((listed, range)));
            }
        }
        Ok(None)
    }

    async fn range_after(
        &self,
        index: &RangeIndex,
        start: Lsn,
    ) -> Result<Option<(Listed, WalRange)>> {
        let segment = self.segment_at(index.timeline, start);
        for listed in self.ranges_in(segment).await? {
            if listed.name.start == start {
                let range = self.read_footer(&listed).await?;
                return Ok(Some((listed, range)));
            }
        }
        Ok(None)
    }
}

/// Whether two adjacent ranges continue each other, as far as these two alone can tell.
fn check_seam(before: &RangeIndex, after: &RangeIndex) -> Result<(), StitchFault> {
    RangeChain::new(before).push(after).map(drop)
}

fn discontinuous(file: &SegmentFile<'_>, listed: &Listed, seam: Lsn, fault: StitchFault) -> Error {
    Error::new(
        Code::WalDiscontinuous,
        format!(
            "{} does not fit the archived WAL beside it: at {seam}, next to object {}, {fault}",
            file.name(),
            listed.path
        ),
    )
    .with_hint(
        hint!["Another server wrote one of the two, or this one was set back. If this one is the cluster from now on: ", Action::Adopt { cluster: None }, "."],
    )
}
