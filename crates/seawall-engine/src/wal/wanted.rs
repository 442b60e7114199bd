//! What a restore needs of a segment.

use seawall_core::{LineId, Lsn, TimelineId, WalSegment};
use seawall_pgdata::history::{Ancestry, TimelineSpan};

use crate::restored::{RestoreState, Stop};

/// The way a restore goes through the log, as its state file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePath {
    /// The line it is restored from.
    pub line: LineId,
    /// The timelines on the way, oldest first.
    pub spans: Vec<TimelineSpan>,
    /// After the last record recovery has to be able to read. WAL was proven to exist up to here,
    /// and none is served behind it.
    pub wal_end: Lsn,
    /// The first record that is not wanted begins here, if there is one.
    pub stop_before: Option<Lsn>,
}

impl From<&RestoreState> for RestorePath {
    fn from(state: &RestoreState) -> Self {
        let span = |span: &crate::restored::PathSpan| TimelineSpan {
            timeline: span.timeline,
            begin: span.begin,
            end: span.end,
        };
        Self {
            line: state.line(),
            spans: state.path().iter().map(span).collect(),
            wal_end: state.wal_end(),
            stop_before: match state.plan.stop {
                Stop::Before { lsn } => Some(lsn),
                Stop::After { .. } | Stop::Consistent { .. } => None,
            },
        }
    }
}

/// What recovery may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The segment is on the way: it must be there.
    Needed {
        /// What each timeline wrote of it.
        spans: Vec<TimelineSpan>,
        /// Up to here; the rest is zeros.
        until: Lsn,
    },
    /// The restore does not use such a segment, or it never existed.
    Unused(String),
}

impl RestorePath {
    /// Whether the restore is over: its server has begun a timeline of its own. The state file stays
    /// in such a directory, and in every copy of it, and says nothing about what they recover.
    pub(super) fn is_over(&self, checkpoint_timeline: TimelineId) -> bool {
        self.spans.last().is_some_and(|tip| checkpoint_timeline > tip.timeline)
    }

    /// A timeline on the way with its ancestors, each up to where the way leaves it.
    pub(super) fn spans_to(&self, timeline: TimelineId) -> Option<Vec<TimelineSpan>> {
        let own = self.spans.iter().position(|span| span.timeline == timeline)?;
        self.spans.get(..=own).map(<[TimelineSpan]>::to_vec)
    }

    /// Whether the history of that timeline has to be archived for the way to be found.
    pub(super) fn needs_history_of(&self, timeline: TimelineId) -> bool {
        self.spans.iter().any(|span| span.timeline == timeline && span.begin.is_valid())
    }

    /// Whether a standby that goes this way may follow `ancestry`: it is on the way, or goes on
    /// where all that was planned has been replayed.
    pub(crate) fn leads_to(&self, ancestry: &Ancestry) -> bool {
        let is_descendant = || {
            let tip = self.spans.last().and_then(|tip| ancestry.span(tip.timeline));
            tip.is_some_and(|tip| tip.end.is_none_or(|end| end >= self.wal_end))
        };
        self.needs_history_of(ancestry.tip()) || is_descendant()
    }

    /// Whether a segment lies behind the fork where the way leaves its timeline, for ever.
    pub(super) fn has_left(&self, segment: WalSegment) -> bool {
        let own = self.spans.iter().find(|span| span.timeline == segment.timeline);
        own.and_then(|own| own.end).is_some_and(|end| segment.start() >= end)
    }

    /// What the restore needs of a segment.
    pub(super) fn wants(&self, segment: WalSegment) -> Wanted {
        let timeline = segment.timeline;
        let up_to_own = self.spans.iter().position(|span| span.timeline == timeline);
        let Some((own, ancestors)) = up_to_own.and_then(|own| self.spans.get(..=own)?.split_last())
        else {
            return Wanted::Unused(format!("the restore does not use timeline {timeline}"));
        };
        let stop = self.wal_end.align_up();
        let end = own.end.map_or(stop, |end| end.min(stop));
        if segment.start() >= end {
            return Wanted::Unused(format!("the restore leaves timeline {timeline} at {end}"));
        }
        if segment.end() <= own.begin {
            return Wanted::Unused(format!("timeline {timeline} begins at {}", own.begin));
        }
        let spans = ancestors
            .iter()
            .chain([own])
            .map(|span| TimelineSpan { end: Some(span.end.map_or(stop, |e| e.min(stop))), ..*span })
            .collect();
        Wanted::Needed { spans, until: end.min(segment.end()) }
    }
}
