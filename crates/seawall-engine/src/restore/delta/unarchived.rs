//! WAL that the directory has and the archive has not: a restore empties `pg_wal`, and what was
//! committed last may be nowhere else.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use seawall_core::{Lsn, Result, TimelineId, WalFileName, WalSegment, WalSegmentSize};
use seawall_pgdata::control::{ControlFile, DbState};

use crate::cluster::read_control;
use crate::durable::local;
use crate::restore::{CoveredSpan, WalSource};
use crate::restored::{Mode, RestoreProgress, RestoreState};

/// Where the first record of a segment begins: behind a long page header (`SizeOfXLogLongPHD`,
/// xlog_internal.h).
const LONG_HEADER_BYTES: u64 = 40;

/// The first and the last segment that only the directory has; `None` if there is none that counts.
///
/// What a clone wrote counts for nothing, and a standby writes no WAL of its own. Once an
/// interrupted restore has taken `pg_control` away, what there was is agreed to.
///
/// # Errors
/// Those of the WAL's store; [`seawall_core::Code::LocalIo`] where `pg_wal` cannot be listed.
pub(super) async fn unarchived(
    wal: &dyn WalSource,
    into: &Path,
    size: WalSegmentSize,
) -> Result<Option<(WalSegment, WalSegment)>> {
    let control = read_control(into).ok();
    if counts_for_nothing(control.as_ref(), RestoreState::read(into)?.as_ref()) {
        return Ok(None);
    }
    let end = control.filter(|control| control.state == DbState::ShutDown).map(|it| it.checkpoint);
    let segments = own_segments(into, size, end)?;
    let Some(newest) = segments.last().copied() else { return Ok(None) };
    let known = wal.ancestries().await?.known;
    let mut spans: Vec<(TimelineId, Vec<CoveredSpan>)> = Vec::new();
    let mut only_here = Vec::new();
    for segment in segments {
        let timeline = segment.timeline;
        if !spans.iter().any(|(of, _)| *of == timeline) {
            let covered = match known.iter().find(|it| it.tip() == timeline) {
                Some(ancestry) => wal.coverage(ancestry, segment.start()).await?.spans,
                None => Vec::new(),
            };
            spans.push((timeline, covered));
        }
        let covered = spans.iter().filter(|(of, _)| *of == timeline).flat_map(|(_, spans)| spans);
        // Of the last one as much may be archived as was written.
        let to = if segment == newest { Lsn(segment.start().0 + 1) } else { segment.end() };
        let mut covered = covered.peekable();
        let is_older = covered.peek().is_some_and(|first| segment.end() <= first.start);
        if !is_older && !covered.any(|span| span.start <= segment.start() && to <= span.end) {
            only_here.push(segment);
        }
    }
    Ok(only_here.first().copied().zip(only_here.last().copied()))
}

fn counts_for_nothing(control: Option<&ControlFile>, state: Option<&RestoreState>) -> bool {
    let follows = control.is_some_and(|control| {
        matches!(control.state, DbState::InArchiveRecovery | DbState::ShutDownInRecovery)
    });
    let is_clone = state.is_some_and(|state| {
        state.mode() == Mode::Clone && state.progress == RestoreProgress::Complete
    });
    let is_agreed = control.is_none() && state.is_some_and(|state| state.plan.onto.is_some());
    follows || is_clone || is_agreed
}

/// The segments in `pg_wal` that hold what their names say, in their order; recycled ones do not. A
/// server that was shut down wrote nothing of worth from `end` on, its last checkpoint. `pg_wal` may
/// be a link to another disk.
fn own_segments(into: &Path, size: WalSegmentSize, end: Option<Lsn>) -> Result<Vec<WalSegment>> {
    let directory = into.join("pg_wal");
    let unlisted = |error| local(error, "listing", &directory);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(unlisted(error)),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unlisted)?;
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| WalFileName::parse(name, size));
        let Some(WalFileName::Segment(segment)) = name else { continue };
        let first_record = segment.start().0.saturating_add(LONG_HEADER_BYTES);
        let has_records = end.is_none_or(|end| first_record < end.0);
        if has_records && may_begin_with(&entry.path(), segment) {
            segments.push(segment);
        }
    }
    segments.sort();
    Ok(segments)
}

/// Whether a file's first page says that it begins the segment (`xlp_pageaddr`, xlog_internal.h). One
/// that cannot be read may be it; a shorter one holds nothing.
fn may_begin_with(path: &Path, segment: WalSegment) -> bool {
    let mut header = [0; 16];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut header, 0));
    let address = header.last_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    match read {
        Ok(()) => address == Some(segment.start().0),
        Err(error) => error.kind() != ErrorKind::UnexpectedEof,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recycled_segments_and_the_checkpoint_of_a_shutdown_are_nothing_of_worth() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pg_wal")).unwrap();
        let size = WalSegmentSize::DEFAULT;
        let segment = |number| WalSegment { timeline: TimelineId(1), number, size };
        for (number, says) in [(3, 3), (4, 4), (5, 1)] {
            let header = [[0; 8], segment(says).start().0.to_le_bytes()].concat();
            fs::write(dir.path().join(format!("pg_wal/{}", segment(number))), header).unwrap();
        }
        let crashed = own_segments(dir.path(), size, None).unwrap();
        assert_eq!(crashed, [segment(3), segment(4)]);
        let shut_down = Lsn(segment(4).start().0 + LONG_HEADER_BYTES);
        assert_eq!(own_segments(dir.path(), size, Some(shut_down)).unwrap(), [segment(3)]);
        let later = Lsn(shut_down.0 + 64);
        assert_eq!(own_segments(dir.path(), size, Some(later)).unwrap(), crashed);
    }

    #[test]
    fn wal_on_another_disk_and_wal_that_cannot_be_read_are_not_taken_for_none() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let size = WalSegmentSize::DEFAULT;
        let segment = |number| WalSegment { timeline: TimelineId(1), number, size };
        let header = [[0; 8], segment(3).start().0.to_le_bytes()].concat();
        fs::write(disk.path().join(segment(3).to_string()), header).unwrap();
        fs::write(disk.path().join(segment(5).to_string()), "short").unwrap();
        // Whatever it is, its bytes cannot be read.
        fs::create_dir(disk.path().join(segment(4).to_string())).unwrap();
        let link = dir.path().join("pg_wal");
        assert_eq!(own_segments(dir.path(), size, None).unwrap(), []);
        std::os::unix::fs::symlink(disk.path(), &link).unwrap();
        assert_eq!(own_segments(dir.path(), size, None).unwrap(), [segment(3), segment(4)]);
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&link, &link).unwrap();
        assert!(own_segments(dir.path(), size, None).is_err());
    }
}
