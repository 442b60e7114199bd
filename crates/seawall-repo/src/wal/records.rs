//! Reads the archived bytes themselves, for what footers and indexes do not tell.

use seawall_core::{Action, Code, Error, Lsn, Result, hint};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::{
    ChangedBlocks, DEFAULT_MAX_RECORD_BYTES, LastRecord, ReaderStart, Record, WalFacts, WalReader,
};

use super::{LsnRange, WalArchive};

/// The records on both sides of a position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordsAround {
    /// The last one that begins before it.
    pub before: Option<LastRecord>,
    /// The first one that begins there or later.
    pub at_or_after: Option<LastRecord>,
}

/// The bytes of the log along an ancestry, range by range, up to the first hole.
#[derive(Debug)]
struct LogBytes<'a> {
    archive: &'a WalArchive,
    ancestry: &'a Ancestry,
    position: Lsn,
}

impl LogBytes<'_> {
    /// The bytes from the position to the end of the range that holds it.
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let timeline = self.ancestry.timeline_at(self.position);
        let lived_to = self.ancestry.fork_lsn_of(timeline).unwrap_or(Lsn(u64::MAX));
        let segment = self.archive.segment_at(timeline, self.position);
        let wanted = LsnRange { start: self.position, end: lived_to };
        for listed in self.archive.ranges_in(segment).await?.into_iter().rev() {
            let part = listed.range().overlap(wanted);
            if let Some(part) = part.filter(|part| part.start == wanted.start) {
                let opened = self.archive.open_listed(&listed).await?;
                self.position = part.end;
                return Ok(Some(part.out_of(opened.bytes, listed.name.start)));
            }
        }
        let next_byte = LsnRange { end: wanted.start.saturating_add(1), ..wanted };
        self.archive.refuse_compacted(timeline, next_byte).await?;
        Ok(None)
    }
}

impl WalArchive {
    /// The records on both sides of `lsn`, exactly: the WAL around it is read. Nothing is known of
    /// a side on which the archive ends first.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn records_around(&self, ancestry: &Ancestry, lsn: Lsn) -> Result<RecordsAround> {
        let mut start = lsn.saturating_add(1);
        loop {
            let last_byte = Lsn(start.0.saturating_sub(1));
            let Some(range_start) = self.range_start(ancestry, last_byte).await? else {
                // The archive begins here: what is before is unknown.
                return self.scan(ancestry, start.min(lsn), lsn).await;
            };
            start = range_start;
            let found = self.scan(ancestry, start, lsn).await?;
            if found.before.is_some() {
                return Ok(found);
            }
        }
    }

    /// Where the range begins that holds the byte at `lsn`, or its part that belongs to the log.
    async fn range_start(&self, ancestry: &Ancestry, lsn: Lsn) -> Result<Option<Lsn>> {
        let timeline = ancestry.timeline_at(lsn);
        let segment = self.segment_at(timeline, lsn);
        let begin = ancestry.span(timeline).map_or(Lsn::INVALID, |span| span.begin);
        let byte = LsnRange { start: lsn, end: lsn.saturating_add(1) };
        let ranges = self.ranges_in(segment).await?;
        let holding = ranges.iter().rev().find(|listed| listed.range().overlap(byte).is_some());
        if holding.is_none() {
            self.refuse_compacted(timeline, byte).await?;
        }
        Ok(holding.map(|listed| listed.name.start.max(begin)))
    }

    /// Reads records from `start` on until one begins at `lsn` or later.
    async fn scan(&self, ancestry: &Ancestry, start: Lsn, lsn: Lsn) -> Result<RecordsAround> {
        let mut around = RecordsAround::default();
        let mut log = LogBytes { archive: self, ancestry, position: start };
        let mut reader = self.reader(ancestry, start)?;
        while let Some(bytes) = log.next().await? {
            let mut input = bytes.as_slice();
            while let Some(record) = reader.next(&mut input) {
                let place = LastRecord { lsn: record.lsn, end: record.end };
                if record.lsn >= lsn {
                    around.at_or_after = Some(place);
                    return Ok(around);
                }
                around.before = Some(place);
            }
        }
        Ok(around)
    }

    /// Where the backup began whose end is told by the record that ends at `lsn`
    /// (`XLOG_BACKUP_END`). `None` if another record does, or none.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn backup_that_ended_at(&self, ancestry: &Ancestry, lsn: Lsn) -> Result<Option<Lsn>> {
        // The byte at `lsn` itself need not be archived.
        let inside = Lsn(lsn.0.saturating_sub(1));
        match self.records_around(ancestry, inside).await?.before {
            Some(last) if last.end.align_up() == lsn => {
                self.read_record(ancestry, last.lsn, last.end, ended_backup).await
            }
            _ => Ok(None),
        }
    }

    /// The blocks changed by records that lie in `range`, exactly, where the maps of its parts have
    /// those of other records too: the WAL is read. A record begins where `range` does.
    ///
    /// # Errors
    /// [`Code::WalGap`] where the archive does not have it, damage, or a store that fails.
    pub async fn exact_changes(
        &self,
        ancestry: &Ancestry,
        range: LsnRange,
    ) -> Result<ChangedBlocks> {
        let mut changes = ChangedBlocks::new();
        let mut log = LogBytes { archive: self, ancestry, position: range.start };
        let mut reader = self.reader(ancestry, range.start)?;
        while log.position < range.end {
            let Some(bytes) = log.next().await? else { return Err(no_record_at(log.position)) };
            let mut input = bytes.as_slice();
            while let Some(record) = reader.next(&mut input) {
                changes.apply(&record);
            }
        }
        match reader.end() {
            None => Ok(changes),
            Some(ended) => Err(no_record_at(ended.lsn)),
        }
    }

    /// What one record says that is too long to be kept with an index.
    pub(super) async fn facts_of_record(
        &self,
        ancestry: &Ancestry,
        lsn: Lsn,
        end: Lsn,
    ) -> Result<WalFacts> {
        let facts_of = |record: &Record<'_>| {
            let mut facts = WalFacts::default();
            facts.apply(record);
            facts
        };
        self.read_record(ancestry, lsn, end, facts_of).await
    }

    /// Reads one record.
    async fn read_record<T>(
        &self,
        ancestry: &Ancestry,
        lsn: Lsn,
        end: Lsn,
        look: impl FnOnce(&Record<'_>) -> T,
    ) -> Result<T> {
        let mut log = LogBytes { archive: self, ancestry, position: lsn };
        let mut reader = self.reader(ancestry, lsn)?;
        while log.position < end
            && let Some(bytes) = log.next().await?
        {
            let mut input = bytes.as_slice();
            if let Some(record) = reader.next(&mut input) {
                return Ok(look(&record));
            }
        }
        Err(no_record_at(lsn))
    }

    fn reader(&self, ancestry: &Ancestry, lsn: Lsn) -> Result<WalReader> {
        let start = ReaderStart {
            major: Some(self.major()),
            timeline: ancestry.tip(),
            lsn,
            segment_size: self.segment_size(),
            system_id: Some(self.system_id()),
            prev: None,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
        };
        WalReader::new(start).map_err(|error| {
            Error::new(Code::Internal, "WAL cannot be read from there").with_source(error)
        })
    }
}

fn no_record_at(lsn: Lsn) -> Error {
    let what = format!("the archived WAL has no whole record at {lsn}");
    Error::new(Code::WalGap, what).with_hint(hint![
        "Run ",
        Action::Verify,
        " to learn which backups are affected."
    ])
}

fn ended_backup(record: &Record<'_>) -> Option<Lsn> {
    record.ended_backup()
}
