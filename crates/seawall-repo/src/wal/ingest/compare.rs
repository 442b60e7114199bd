//! Compares what is pushed with what is archived.

use seawall_core::{Action, Code, Error, Lsn, Result, hint};

use super::examine::{Piece, SegmentFile};
use crate::wal::listing::Listed;
use crate::wal::range::open_range;
use crate::wal::{LsnRange, WalArchive};

impl WalArchive {
    /// Proves that an archived range says what the piece says where they overlap, and tells which
    /// part of the piece it holds.
    ///
    /// Filler is not WAL: it may differ, and the archived one stays. The bytes are read, though the
    /// footer has their hashes: PostgreSQL drops its own once they are acknowledged, and what the
    /// storage has spoilt is no copy of them.
    pub(super) async fn compare(
        &self,
        file: &SegmentFile<'_>,
        piece: &Piece,
        listed: &Listed,
    ) -> Result<Option<LsnRange>> {
        let there = self.read_footer(listed).await?;
        let held = LsnRange { start: there.start(), end: there.end() };
        let Some(overlap) = held.overlap(piece.range) else { return Ok(None) };
        let valid = LsnRange {
            start: piece.range.start,
            end: piece.index.padding_from.unwrap_or(piece.range.end),
        };
        if let Some(wal) = overlap.overlap(valid) {
            self.compare_bytes(file, listed, wal).await?;
        }
        Ok(Some(overlap))
    }

    async fn compare_bytes(
        &self,
        file: &SegmentFile<'_>,
        listed: &Listed,
        wal: LsnRange,
    ) -> Result<()> {
        let object = self.read_listed(listed).await?;
        let there = open_range(self.line().keyring(), &listed.path, listed.name, &object)
            .map_err(|damage| spoilt(damage.at(&listed.path), file, listed))?;
        let archived = wal.of(&there.bytes, there.range.start());
        let pushed = file.slice(wal);
        match archived.iter().zip(pushed).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(at) => Err(conflict(file, listed, wal.start.saturating_add(at as u64))),
        }
    }
}

fn spoilt(error: Error, file: &SegmentFile<'_>, listed: &Listed) -> Error {
    error.context(format!("{} is archived, and spoilt", file.name())).with_hint(format!(
        "The server still has it whole: move the object {} out of the repository, and the next push stores it again.",
        listed.path
    ))
}

fn conflict(file: &SegmentFile<'_>, listed: &Listed, lsn: Lsn) -> Error {
    Error::new(
        Code::WalConflict,
        format!(
            "{} differs from what is archived: from {lsn} on, object {} holds other bytes",
            file.name(),
            listed.path
        ),
    )
    .with_hint(
        hint!["Two servers write this timeline, or one was set back. Stop the wrong one; a cluster that was set back on purpose gets a line of its own: ", Action::Adopt { cluster: None }, "."],
    )
}
