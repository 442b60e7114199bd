//! Timeline history files, and the line of descent they tell.

use seawall_core::{Lsn, TimelineId};

use crate::decimal::positive_decimal;

/// One line of a history file: the timeline that was left, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// The first byte that is no longer its own.
    pub switch_lsn: Lsn,
    /// Why, in the server's words. Bytes that are not UTF-8 are replaced.
    pub reason: String,
}

/// Why the bytes are not the history of that timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A line is not `<timeline> <LSN> <reason>`.
    #[error("timeline history line {0} is not \"<timeline> <LSN> <reason>\"")]
    InvalidLine(usize),
    /// A line's timeline is not younger than that of the line before.
    #[error("timeline history line {line}: timeline {timeline} does not follow its parent")]
    TimelineOrder {
        /// Counted from one.
        line: usize,
        /// The one in the line.
        timeline: TimelineId,
    },
    /// A line's switch lies before that of the line before.
    #[error("timeline history line {line}: {switch_lsn} lies before the switch before it")]
    SwitchOrder {
        /// Counted from one.
        line: usize,
        /// The one in the line.
        switch_lsn: Lsn,
    },
    /// A parent is not older than the timeline whose history this should be.
    #[error("timeline {parent} cannot be a parent of timeline {timeline}")]
    NotAParent {
        /// The last one in the file.
        parent: TimelineId,
        /// The one the file is named after.
        timeline: TimelineId,
    },
    /// Only timeline 1 has no parents; a history without any belongs to no other.
    #[error("the history of timeline {0} names no parent")]
    NoParents(TimelineId),
}

/// Reads the history file of `timeline`, oldest parent first (`readTimeLineHistory`, timeline.c).
///
/// Empty lines and lines that begin with `#` do not count. Stricter than PostgreSQL, switches must
/// not go backwards.
///
/// # Errors
/// [`HistoryError`] unless all of it fits together and fits `timeline`.
pub fn parse_history(
    timeline: TimelineId,
    bytes: &[u8],
) -> Result<Vec<HistoryEntry>, HistoryError> {
    let mut entries: Vec<HistoryEntry> = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line_number = index + 1;
        let line = line.trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let entry = parse_line(line).ok_or(HistoryError::InvalidLine(line_number))?;
        if let Some(before) = entries.last() {
            check_order(before, &entry, line_number)?;
        }
        entries.push(entry);
    }
    match entries.last() {
        None => Err(HistoryError::NoParents(timeline)),
        Some(last) if last.timeline >= timeline => {
            Err(HistoryError::NotAParent { parent: last.timeline, timeline })
        }
        Some(_) => Ok(entries),
    }
}

fn check_order(
    before: &HistoryEntry,
    entry: &HistoryEntry,
    line: usize,
) -> Result<(), HistoryError> {
    if entry.timeline <= before.timeline {
        return Err(HistoryError::TimelineOrder { line, timeline: entry.timeline });
    }
    if entry.switch_lsn < before.switch_lsn {
        return Err(HistoryError::SwitchOrder { line, switch_lsn: entry.switch_lsn });
    }
    Ok(())
}

/// The history of `ancestor`, which that of a descendant begins with: PostgreSQL copies the parent's
/// file, and adds an empty line and its own (`writeTimeLineHistory`, timeline.c, 12–18). `None` if
/// it is no ancestor, or has no history, as the first timeline.
#[must_use]
pub fn history_within(descendant: &[u8], ancestor: TimelineId) -> Option<&[u8]> {
    let mut rest = descendant;
    while !rest.is_empty() {
        let line = rest.split_inclusive(|byte| *byte == b'\n').next()?;
        let entry = parse_line(line.trim_ascii_start());
        if entry.is_some_and(|entry| entry.timeline == ancestor) {
            let (before, _) = descendant.split_at_checked(descendant.len() - rest.len())?;
            let before = before.strip_suffix(b"\n").unwrap_or(before);
            return (!before.is_empty()).then_some(before);
        }
        rest = rest.get(line.len()..)?;
    }
    None
}

fn parse_line(line: &[u8]) -> Option<HistoryEntry> {
    let (timeline, rest) = split_field(line);
    let (switch_lsn, reason) = split_field(rest);
    let timeline = positive_decimal(std::str::from_utf8(timeline).ok()?)?;
    let switch_lsn: Lsn = std::str::from_utf8(switch_lsn).ok()?.parse().ok()?;
    switch_lsn.is_valid().then(|| HistoryEntry {
        timeline: TimelineId(timeline),
        switch_lsn,
        reason: String::from_utf8_lossy(reason.trim_ascii_end()).into_owned(),
    })
}

/// Splits off what stands before the next white space.
fn split_field(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (field, rest) = line.split_at_checked(end).unwrap_or((line, &[]));
    (field, rest.trim_ascii_start())
}

/// The part of the log that one timeline of an [`Ancestry`] wrote: from `begin` up to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineSpan {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it left its parent; zero for the first.
    pub begin: Lsn,
    /// Where its child left it; `None` for the last, which goes on.
    pub end: Option<Lsn>,
}

/// A timeline with all its ancestors: one unbroken log from its first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestry {
    /// Oldest first. Each begins where the one before ends, and so does the tip.
    ancestors: Vec<TimelineSpan>,
    tip: TimelineSpan,
}

impl Ancestry {
    /// A timeline without parents, as timeline 1 is.
    #[must_use]
    pub const fn root(timeline: TimelineId) -> Self {
        let tip = TimelineSpan { timeline, begin: Lsn::INVALID, end: None };
        Self { ancestors: Vec::new(), tip }
    }

    /// What the history file of `timeline` tells.
    ///
    /// # Errors
    /// As [`parse_history`].
    pub fn parse(timeline: TimelineId, history: &[u8]) -> Result<Self, HistoryError> {
        let mut begin = Lsn::INVALID;
        let mut ancestors = Vec::new();
        for entry in parse_history(timeline, history)? {
            let end = entry.switch_lsn;
            ancestors.push(TimelineSpan { timeline: entry.timeline, begin, end: Some(end) });
            begin = end;
        }
        Ok(Self { ancestors, tip: TimelineSpan { timeline, begin, end: None } })
    }

    /// The timeline that goes on.
    #[must_use]
    pub const fn tip(&self) -> TimelineId {
        self.tip.timeline
    }

    /// All spans, oldest first.
    pub fn spans(&self) -> impl DoubleEndedIterator<Item = TimelineSpan> + '_ {
        self.ancestors.iter().copied().chain([self.tip])
    }

    /// The span of one timeline; `None` if it is not in this ancestry.
    #[must_use]
    pub fn span(&self, timeline: TimelineId) -> Option<TimelineSpan> {
        self.spans().find(|span| span.timeline == timeline)
    }

    /// The timeline that wrote the byte at `lsn`, or will (`tliOfPointInHistory`).
    #[must_use]
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        let wrote = |span: &TimelineSpan| span.end.is_some_and(|end| lsn < end);
        self.spans().find(wrote).unwrap_or(self.tip).timeline
    }

    /// Whether a server that stood at `lsn` on `timeline` stands on this ancestry: all it had
    /// written is part of this log.
    ///
    /// The position of a switch itself belongs to both timelines, since nothing was written past it.
    #[must_use]
    pub fn contains(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.span(timeline)
            .is_some_and(|span| span.begin <= lsn && span.end.is_none_or(|end| lsn <= end))
    }

    /// Where this ancestry leaves `timeline` for its child (`tliSwitchPoint`); `None` if it does
    /// not, or never was on it.
    #[must_use]
    pub fn fork_lsn_of(&self, timeline: TimelineId) -> Option<Lsn> {
        self.span(timeline)?.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T1: TimelineId = TimelineId(1);
    const T2: TimelineId = TimelineId(2);
    const T4: TimelineId = TimelineId(4);

    /// As PostgreSQL writes it: an empty line before each appended one.
    const HISTORY: &[u8] =
        b"1\t0/3000110\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-11-21 07:52:27+00\n";

    #[test]
    fn parents_are_read_oldest_first() {
        let entries = parse_history(T4, HISTORY).unwrap_or_default();
        let expected = [
            (T1, Lsn(0x300_0110), "no recovery target specified"),
            (T2, Lsn(0x500_0000), "before 2026-11-21 07:52:27+00"),
        ];
        assert_eq!(entries.len(), expected.len());
        for (entry, (timeline, switch_lsn, reason)) in entries.iter().zip(expected) {
            let reason = reason.to_owned();
            assert_eq!(*entry, HistoryEntry { timeline, switch_lsn, reason });
        }
    }

    #[test]
    fn a_history_holds_those_of_its_ancestors_to_the_byte() {
        let of_2 = b"1\t0/3000110\tno recovery target specified\n";
        assert_eq!(history_within(HISTORY, T2), Some(&of_2[..]));
        assert_eq!(history_within(HISTORY, T1), None, "the first has none");
        assert_eq!(history_within(HISTORY, T4), None, "its own is all of it");
        assert_eq!(history_within(b"", T2), None);
        let longer = [HISTORY, b"\n4\t0/6000000\tlater\n"].concat();
        assert_eq!(history_within(&longer, T4), Some(HISTORY));
    }

    #[test]
    fn comments_spaces_and_foreign_encodings_are_read_as_postgres_reads_them() {
        let text = b"# by hand\n  \n 1  0/3000110  at restore point \"caf\xE9\"\r\n";
        let entries = parse_history(T2, text).unwrap_or_default();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries.first().map(|entry| entry.switch_lsn), Some(Lsn(0x300_0110)));
        let reason = entries.first().map(|entry| entry.reason.as_str());
        assert_eq!(reason, Some("at restore point \"caf\u{FFFD}\""));
    }

    #[test]
    fn histories_that_do_not_fit_together_are_refused() {
        let cases: [(&[u8], HistoryError); 9] = [
            (b"", HistoryError::NoParents(T4)),
            (b"# nothing\n", HistoryError::NoParents(T4)),
            (b"1\n", HistoryError::InvalidLine(1)),
            (b"\nx\t0/1\tr\n", HistoryError::InvalidLine(2)),
            (b"1\t0\tr\n", HistoryError::InvalidLine(1)),
            (b"1\t0/0\tr\n", HistoryError::InvalidLine(1)),
            (b"2\t0/9\tr\n2\t0/9\tr\n", HistoryError::TimelineOrder { line: 2, timeline: T2 }),
            (b"1\t0/9\n2\t0/8\n", HistoryError::SwitchOrder { line: 2, switch_lsn: Lsn(8) }),
            (b"1\t0/9\n4\t0/9\n", HistoryError::NotAParent { parent: T4, timeline: T4 }),
        ];
        for (bytes, error) in cases {
            assert_eq!(parse_history(T4, bytes), Err(error));
        }
    }

    #[test]
    fn an_ancestry_says_who_wrote_a_byte_and_where_it_forked() -> Result<(), HistoryError> {
        let ancestry = Ancestry::parse(T4, HISTORY)?;
        assert_eq!(ancestry.tip(), T4);
        for (lsn, timeline) in [
            (0, T1),
            (0x300_010F, T1),
            (0x300_0110, T2),
            (0x4FF_FFFF, T2),
            (0x500_0000, T4),
            (u64::MAX, T4),
        ] {
            assert_eq!(ancestry.timeline_at(Lsn(lsn)), timeline, "{lsn:X}");
        }
        assert_eq!(ancestry.fork_lsn_of(T1), Some(Lsn(0x300_0110)));
        assert_eq!(ancestry.fork_lsn_of(T2), Some(Lsn(0x500_0000)));
        assert_eq!(ancestry.fork_lsn_of(T4), None);
        assert_eq!(ancestry.span(TimelineId(3)), None);
        Ok(())
    }

    #[test]
    fn a_server_past_the_fork_is_not_on_the_ancestry() -> Result<(), HistoryError> {
        let ancestry = Ancestry::parse(T4, HISTORY)?;
        for (timeline, lsn, contained) in [
            (T1, 0x300_0110, true),
            (T1, 0x300_0111, false),
            (T2, 0x300_010F, false),
            (T2, 0x300_0110, true),
            (TimelineId(3), 0x400_0000, false),
            (T4, 0x4FF_FFFF, false),
            (T4, u64::MAX, true),
        ] {
            assert_eq!(ancestry.contains(timeline, Lsn(lsn)), contained, "{timeline} {lsn:X}");
        }
        let root = Ancestry::root(T1);
        assert!(root.contains(T1, Lsn(1)) && !root.contains(T2, Lsn(1)));
        Ok(())
    }

    proptest! {
        #[test]
        fn every_position_lies_on_the_timeline_that_wrote_it(
            mut switches in proptest::collection::vec(1u64..1000, 1..6), lsn in 0u64..1100,
        ) {
            switches.sort_unstable();
            let tip = TimelineId(switches.len() as u32 + 1);
            let lines = switches.iter().zip(1..).map(|(lsn, id)| format!("{id}\t{}\tr\n", Lsn(*lsn)));
            let ancestry = Ancestry::parse(tip, lines.collect::<String>().as_bytes());
            let Ok(ancestry) = ancestry else { return Err(TestCaseError::fail("refused")) };
            let timeline = ancestry.timeline_at(Lsn(lsn));
            prop_assert!(ancestry.contains(timeline, Lsn(lsn)));
            let left_behind = switches.iter().filter(|switch| **switch <= lsn).count();
            prop_assert_eq!(timeline.0 as usize, left_behind + 1);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Ancestry::parse(T4, &bytes);
        }
    }
}
