//! Where a timeline begins in the middle of a segment: what recovery wants beside that segment.
//!
//! Recovery asks for the segment of the newest timeline alone, which holds the parent's bytes too.
//! But when it replays the checkpoint a new timeline begins with, it looks up the transactions that
//! were prepared before, and for those still in WAL it opens the *parent's* segment in `pg_wal`, by
//! name and without asking the archive (`PrescanPreparedTransactions`, `read_local_xlog_page`; 12
//! to 18). If it is not there, recovery ends with "requested WAL segment has already been removed".

use std::fs;
use std::path::Path;

use seawall_core::{Result, WalSegment};
use seawall_pgdata::history::TimelineSpan;

use super::fetch::put_durably;

/// What recovery calls the file it wants a segment in.
const RECOVERY_FILE: &str = "RECOVERYXLOG";

/// A parent's part of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ParentPart {
    segment: WalSegment,
    /// Where its child left it, in the segment.
    end_bytes: usize,
}

/// The timelines that wrote the beginning of `segment`, of those on the way to its own.
fn parents(segment: WalSegment, spans: &[TimelineSpan]) -> Vec<ParentPart> {
    let inside = spans.iter().filter(|span| span.timeline != segment.timeline).filter_map(|span| {
        let end = span.end.filter(|end| *end > segment.start() && *end < segment.end())?;
        let end_bytes = usize::try_from(end.bytes_since(segment.start())).ok()?;
        Some(ParentPart { segment: WalSegment { timeline: span.timeline, ..segment }, end_bytes })
    });
    inside.collect()
}

/// Lays the parents' parts of a segment into `pg_wal` under their own names, if it is recovery that
/// wants the segment. They are marked as archived: they came from there.
///
/// # Errors
/// [`seawall_core::Code::LocalIo`]
pub(super) fn put_parents(
    destination: &Path,
    segment: WalSegment,
    spans: &[TimelineSpan],
    bytes: &[u8],
) -> Result<()> {
    let status = destination.with_file_name("archive_status");
    if destination.file_name().is_none_or(|name| name != RECOVERY_FILE) || !status.is_dir() {
        return Ok(());
    }
    for parent in parents(segment, spans) {
        let name = parent.segment.to_string();
        let place = destination.with_file_name(&name);
        // One of another length was cut short: by a power cut, or by whoever put it there.
        let is_there = fs::metadata(&place).is_ok_and(|file| file.len() == bytes.len() as u64);
        let Some(own) = bytes.get(..parent.end_bytes).filter(|_| !is_there) else {
            continue;
        };
        let mut content = own.to_vec();
        content.resize(bytes.len(), 0);
        put_durably(&status.join(format!("{name}.done")), &[])?;
        put_durably(&place, &content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use seawall_core::{Lsn, TimelineId, WalSegmentSize};

    use super::*;

    const SIZE: WalSegmentSize = match WalSegmentSize::new(1 << 20) {
        Ok(size) => size,
        Err(_) => panic!("1 MiB is a segment size"),
    };

    /// 1 was left in segment 4, 2 was left in segment 5 and 3 in that, too.
    fn spans() -> Vec<TimelineSpan> {
        let forks = [0x40_8000, 0x50_1000, 0x50_2000].map(|lsn| Some(Lsn(lsn)));
        let begins = [Lsn(0), Lsn(0x40_8000), Lsn(0x50_1000), Lsn(0x50_2000)];
        let ends = forks.into_iter().chain([None]);
        let span = |(at, (begin, end))| TimelineSpan { timeline: TimelineId(at), begin, end };
        (1..).zip(begins.into_iter().zip(ends)).map(span).collect()
    }

    fn segment(timeline: u32, number: u64) -> WalSegment {
        WalSegment { timeline: TimelineId(timeline), number, size: SIZE }
    }

    #[test]
    fn the_parents_whose_end_lies_in_the_segment_wrote_its_beginning() {
        let of = |timeline, number| {
            let upto = &spans()[..timeline as usize];
            let found = parents(segment(timeline, number), upto);
            found.iter().map(|it| (it.segment.timeline.0, it.end_bytes)).collect::<Vec<_>>()
        };
        assert_eq!(of(2, 4), [(1, 0x8000)]);
        assert_eq!(of(4, 5), [(2, 0x1000), (3, 0x2000)]);
        assert_eq!(of(1, 4), []);
        assert_eq!(of(4, 4), [(1, 0x8000)]);
        assert_eq!(of(4, 6), []);
    }

    #[test]
    fn recovery_finds_them_under_their_names_and_archived() {
        let pg_wal = tempfile::tempdir().unwrap();
        let bytes = vec![7; SIZE.bytes() as usize];
        let wanted = pg_wal.path().join("RECOVERYXLOG");
        let lay = |destination: &Path| {
            put_parents(destination, segment(2, 4), &spans()[..2], &bytes).unwrap();
            fs::read(pg_wal.path().join("000000010000000000000004")).ok()
        };
        assert_eq!(lay(&wanted), None, "no pg_wal");
        let status = pg_wal.path().join("archive_status");
        fs::create_dir(&status).unwrap();
        assert_eq!(lay(&pg_wal.path().join("elsewhere")), None, "somebody else asks");
        let laid = lay(&wanted).unwrap();
        assert!(laid[..0x8000].iter().all(|byte| *byte == 7));
        assert!(laid[0x8000..].iter().all(|byte| *byte == 0) && laid.len() == bytes.len());
        assert!(status.join("000000010000000000000004.done").exists());
        // What is there already is left alone, unless it was cut short.
        let place = pg_wal.path().join("000000010000000000000004");
        let own = vec![8; bytes.len()];
        fs::write(&place, &own).unwrap();
        assert!(lay(&wanted).unwrap() == own);
        for cut in [0, 4096] {
            fs::write(&place, &own[..cut]).unwrap();
            assert!(lay(&wanted).unwrap() == laid, "{cut}");
        }
    }
}
