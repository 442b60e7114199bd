//! All of a log, read three ways: by `pg_waldump`, by the reader in one go, and segment by segment
//! as the archive indexes it.

use anyhow::{Context, Result, ensure};
use seawall_core::{TimelineId, WalSegment, WalSegmentSize};
use seawall_pgdata::wal::page::{PageHeader, WAL_PAGE_BYTES};
use seawall_pgdata::wal::{
    EndReason, Link, RangeChain, ReaderStart, Record, SegmentIndexer, WalFacts, WalReader,
};
use seawall_testkit::PgCluster;

use crate::Counts;
use crate::LONG_RECORD_BYTES;
use crate::log::{Log, Waldump};
use crate::waldump::Line;

/// What a log held.
#[derive(Debug, Default)]
pub struct Seen {
    pub records: u64,
    /// By resource manager and operation.
    pub operations: Counts,
    pub longest_bytes: u64,
    pub long_records: u64,
    pub most_subxids: usize,
    pub images: u64,
    pub images_to_verify: u64,
    pub across_segments: u64,
    /// Pages with `XLP_FIRST_IS_OVERWRITE_CONTRECORD`.
    pub overwriting_pages: u64,
}

/// Reads all of a stopped server's log and compares every record.
pub fn whole_log(cluster: &PgCluster, segment_mb: u32) -> Result<Seen> {
    let log = Log::of(cluster, WalSegmentSize::new(segment_mb << 20)?)?;
    let first = *log.segments.first().context("no segment")?;
    let mut waldump = log.waldump(cluster)?;
    let mut reader = WalReader::new(start_of(&first))?;
    let (mut seen, mut facts, mut archived) = (Seen::default(), WalFacts::default(), None);
    for segment in &log.segments {
        let bytes = log.read(segment)?;
        let mut input = &bytes[..];
        while let Some(record) = reader.next(&mut input) {
            compare(&record, &mut waldump)?;
            facts.apply(&record);
            seen.note(&record, segment);
        }
        seen.note_pages(&bytes, reader.end().map(|end| end.lsn.0), segment)?;
        if reader.end().is_none_or(|end| end.lsn > segment.start()) {
            archive(&mut archived, segment, &bytes, &log)?;
        }
    }
    ensure!(waldump.next()?.is_none(), "pg_waldump goes on behind {:?}", reader.end());
    let end = reader.end().context("the log has no end")?;
    let last_words = waldump.finish()?;
    // Of an end at a page's start the versions tell in different words.
    if end.reason == EndReason::ZeroLength {
        let place = format!("at {}:", end.lsn);
        ensure!(last_words.contains(&place), "ours ends {place} pg_waldump's: {last_words}");
    }
    let (_, joined) = archived.context("nothing was indexed")?;
    seen.most_subxids = facts.commits.iter().map(|row| row.subxids.len()).max().unwrap_or(0);
    ensure!(joined.commits == facts.commits, "the archive's index has other commits");
    ensure!(joined == facts, "the archive's index has other facts");
    Ok(seen)
}

fn start_of(segment: &WalSegment) -> ReaderStart {
    ReaderStart::at(TimelineId(1), segment.start(), segment.size)
}

fn compare(record: &Record<'_>, waldump: &mut Waldump) -> Result<()> {
    let (ours, theirs) = (Line::of(record), waldump.next()?);
    ensure!(Some(&ours) == theirs.as_ref(), "ours: {ours:#?}\npg_waldump's: {theirs:#?}");
    Ok(())
}

/// Indexes one segment by itself, as it would be when it is pushed, and joins it to those before.
fn archive(
    archived: &mut Option<(RangeChain, WalFacts)>,
    segment: &WalSegment,
    bytes: &[u8],
    log: &Log,
) -> Result<()> {
    let mut indexer = SegmentIndexer::new(start_of(segment))?;
    indexer.feed(bytes);
    let index = indexer.finish()?;
    let Some((chain, facts)) = archived else {
        *archived = Some((RangeChain::new(&index), index.facts));
        return Ok(());
    };
    match chain.push(&index).with_context(|| format!("{segment} does not follow"))? {
        Link::Record(record) => facts.apply(&record.record()),
        Link::ByReference { lsn, end } => {
            let bytes = log.read_between(lsn, end)?;
            let start = ReaderStart { major: Some(index.major), lsn, ..start_of(segment) };
            let mut reader = WalReader::new(start)?;
            facts.apply(&reader.next(&mut &bytes[..]).context("no record by reference")?);
        }
        Link::Seamless | Link::Overwritten | Link::Unfinished => {}
    }
    facts.append(index.facts);
    Ok(())
}

impl Seen {
    fn note(&mut self, record: &Record<'_>, segment: &WalSegment) {
        self.records += 1;
        let line = Line::of(record);
        *self.operations.entry(format!("{} {}", line.rmgr, line.operation)).or_default() += 1;
        let bytes = u64::from(record.header.total_bytes);
        self.longest_bytes = self.longest_bytes.max(bytes);
        self.long_records += u64::from(bytes > LONG_RECORD_BYTES);
        self.across_segments += u64::from(record.lsn < segment.start());
        for image in record.blocks.iter().filter_map(|block| block.image) {
            *(if image.apply { &mut self.images } else { &mut self.images_to_verify }) += 1;
        }
    }

    /// Counts the pages that say that the record reaching into them was given up.
    fn note_pages(&mut self, bytes: &[u8], end: Option<u64>, segment: &WalSegment) -> Result<()> {
        let pages = bytes.chunks(usize::try_from(WAL_PAGE_BYTES)?).zip(0u64..);
        for (page, number) in pages {
            let lsn = segment.start().0 + number * WAL_PAGE_BYTES;
            let is_log = end.is_none_or(|end| lsn < end);
            if is_log && PageHeader::parse(page)?.overwrites_continuation() {
                self.overwriting_pages += 1;
            }
        }
        Ok(())
    }
}
