use std::fmt;

use crate::{Lsn, TimelineId, WalSegmentSize};

/// One WAL segment of one timeline. `number` counts segments from the start of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalSegment {
    /// The timeline whose file this is.
    pub timeline: TimelineId,
    /// Which segment of the log, from zero.
    pub number: u64,
    /// The cluster's segment size.
    pub size: WalSegmentSize,
}

impl WalSegment {
    /// The segment that holds the byte at `lsn`.
    #[must_use]
    pub const fn containing(timeline: TimelineId, lsn: Lsn, size: WalSegmentSize) -> Self {
        Self { timeline, number: lsn.0 / size.bytes(), size }
    }

    /// The position of the segment's first byte.
    #[must_use]
    pub const fn start(self) -> Lsn {
        Lsn(self.number.saturating_mul(self.size.bytes()))
    }

    /// The position just after the segment's last byte.
    #[must_use]
    pub const fn end(self) -> Lsn {
        self.start().saturating_add(self.size.bytes())
    }

    /// The segment that follows on the same timeline.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { timeline: self.timeline, number: self.number + 1, size: self.size }
    }
}

impl fmt::Display for WalSegment {
    /// The 24-digit file name (`XLogFileName`, xlog_internal.h).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_id = self.size.segments_per_log_id();
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.number / per_id, self.number % per_id)
    }
}

/// What PostgreSQL's `archive_command` and `restore_command` name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalFileName {
    /// A whole segment, `000000010000000000000003`.
    Segment(WalSegment),
    /// The last, unfinished segment of a timeline that was left, `….partial`.
    Partial(WalSegment),
    /// The note a finished backup leaves in the archive, `….00000028.backup`.
    BackupHistory(WalSegment, u32),
    /// The ancestry of a timeline, `00000002.history`.
    TimelineHistory(TimelineId),
}

impl WalFileName {
    /// Reads a bare file name. `None` for anything PostgreSQL would not archive.
    ///
    /// Timelines are hexadecimal, eight upper-case digits; a segment number that cannot exist at
    /// this segment size is refused too.
    #[must_use]
    pub fn parse(name: &str, size: WalSegmentSize) -> Option<Self> {
        if let Some(digits) = name.strip_suffix(".history") {
            return (digits.len() == 8)
                .then(|| hex32(digits))
                .flatten()
                .filter(|timeline| *timeline != 0)
                .map(|timeline| Self::TimelineHistory(TimelineId(timeline)));
        }
        let segment = parse_segment(name.get(..24)?, size)?;
        match name.get(24..)? {
            "" => Some(Self::Segment(segment)),
            ".partial" => Some(Self::Partial(segment)),
            rest => {
                let digits = rest.strip_prefix('.')?.strip_suffix(".backup")?;
                let offset = (digits.len() == 8).then(|| hex32(digits)).flatten()?;
                Some(Self::BackupHistory(segment, offset))
            }
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => write!(f, "{segment}"),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::BackupHistory(segment, offset) => write!(f, "{segment}.{offset:08X}.backup"),
            Self::TimelineHistory(timeline) => write!(f, "{:08X}.history", timeline.0),
        }
    }
}

fn parse_segment(name: &str, size: WalSegmentSize) -> Option<WalSegment> {
    let timeline = hex32(name.get(..8)?)?;
    let log_id = u64::from(hex32(name.get(8..16)?)?);
    let within = u64::from(hex32(name.get(16..24)?)?);
    let per_id = size.segments_per_log_id();
    (timeline != 0 && within < per_id).then(|| WalSegment {
        timeline: TimelineId(timeline),
        number: log_id * per_id + within,
        size,
    })
}

fn hex32(digits: &str) -> Option<u32> {
    let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
    digits.bytes().all(upper).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

    fn parse(name: &str) -> Option<WalFileName> {
        WalFileName::parse(name, SIZE)
    }

    #[test]
    fn every_name_postgres_archives_is_understood() {
        let segment = WalSegment { timeline: TimelineId(0x1F), number: 0x1_0000, size: SIZE };
        assert_eq!(segment.to_string(), "0000001F0000010000000000");
        assert_eq!(parse("0000001F0000010000000000"), Some(WalFileName::Segment(segment)));
        assert_eq!(parse("0000001F0000010000000000.partial"), Some(WalFileName::Partial(segment)));
        assert_eq!(
            parse("0000001F0000010000000000.00000028.backup"),
            Some(WalFileName::BackupHistory(segment, 0x28))
        );
        assert_eq!(
            parse("FFFFFFFF.history"),
            Some(WalFileName::TimelineHistory(TimelineId(u32::MAX)))
        );
    }

    #[test]
    fn e6_timelines_are_hexadecimal() {
        assert_eq!(parse("00000010.history"), Some(WalFileName::TimelineHistory(TimelineId(16))));
    }

    #[test]
    fn names_that_cannot_be_wal_are_refused() {
        for name in [
            "",
            "00000001",
            "00000000.history",
            "0000000g.history",
            "000000010000000000000100",
            "000000000000000000000001",
            "00000001000000000000000a",
            "000000010000000000000001.tmp",
            "000000010000000000000001.028.backup",
            "../00000001000000000000001",
            "00000001000000000000000é",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn names_round_trip(timeline in 1u32.., lsn: u64, shift in 20u32..=30) {
            let size = WalSegmentSize::new(1 << shift).unwrap_or(SIZE);
            let segment = WalSegment::containing(TimelineId(timeline), Lsn(lsn), size);
            prop_assert!(segment.start().0 <= lsn);
            for name in [WalFileName::Segment(segment), WalFileName::Partial(segment)] {
                prop_assert_eq!(WalFileName::parse(&name.to_string(), size), Some(name));
            }
        }
    }
}
