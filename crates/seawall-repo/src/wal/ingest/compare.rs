//! Compares what comes with what is archived.

use seawall_core::{Action, Code, Error, Lsn, Result, hint};

use super::stretch::{Stretch, TimelinePiece};
use crate::wal::listing::Listed;
use crate::wal::range::open_range;
use crate::wal::{LsnRange, WalArchive};

impl WalArchive {
    /// Proves that an archived range says what the piece says in `overlap`, where it has both.
    ///
    /// Filler is not WAL: it may differ, and the archived one stays. The bytes are read, though the
    /// footer has their hashes: PostgreSQL drops its own once they are acknowledged, and what the
    /// storage has spoilt is no copy of them.
    pub(super) async fn compare(
        &self,
        stretch: &Stretch<'_>,
        piece: &TimelinePiece,
        listed: &Listed,
        overlap: LsnRange,
    ) -> Result<()> {
        let valid = LsnRange {
            start: piece.range.start,
            end: piece.index.padding_from.unwrap_or(piece.range.end),
        };
        let Some(wal) = overlap.overlap(valid) else {
            return self.read_footer(listed).await.map(drop);
        };
        self.compare_bytes(stretch, listed, wal).await
    }

    async fn compare_bytes(
        &self,
        stretch: &Stretch<'_>,
        listed: &Listed,
        wal: LsnRange,
    ) -> Result<()> {
        let object = self.read_listed(listed).await?;
        let there = open_range(self.line().keyring(), &listed.path, listed.name, &object)
            .map_err(|damage| spoilt(damage.at(&listed.path), stretch, listed))?;
        let archived = wal.of(&there.bytes, there.range.start());
        let pushed = stretch.slice(wal);
        match archived.iter().zip(pushed).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(at) => Err(conflict(stretch, listed, wal.start.saturating_add(at as u64))),
        }
    }
}

fn spoilt(error: Error, stretch: &Stretch<'_>, listed: &Listed) -> Error {
    error.context(format!("{} is archived, and spoilt", stretch.name())).with_hint(format!(
        "The server still has it whole: move the object {} out of the repository, and the next push stores it again.",
        listed.path
    ))
}

fn conflict(stretch: &Stretch<'_>, listed: &Listed, lsn: Lsn) -> Error {
    Error::new(
        Code::WalConflict,
        format!(
            "{} differs from what is archived: from {lsn} on, object {} holds other bytes",
            stretch.name(),
            listed.path
        ),
    )
    .with_hint(
        hint!["Two servers write this timeline, or one was set back. Stop the wrong one; a cluster that was set back on purpose gets a line of its own: ", Action::Adopt { cluster: None }, "."],
    )
}
