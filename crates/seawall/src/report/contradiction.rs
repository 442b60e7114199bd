//! What a server says of its archiving, and the archive knows better.

use std::time::Instant;

use seawall_core::{Action, Hint, Lsn, TimelineId, WalSegment, hint};

use super::{Archiving, ClusterReport};

/// Why what the server says of its archiving cannot be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// The archiver succeeded with a segment that is in no repository: `archive_command` takes it
    /// elsewhere, or nowhere.
    Elsewhere {
        /// The segment.
        segment: WalSegment,
    },
    /// More is archived of the timeline than its server has written: it was set back.
    SetBack {
        /// The timeline.
        timeline: TimelineId,
        /// Where the server's log ends.
        server: Lsn,
        /// Where the archived one ends.
        archived: Lsn,
    },
}

impl Contradiction {
    /// Compares what a server says with what was archived when the repositories were looked at,
    /// which was before the server was asked. All of it has to be known.
    pub fn find(
        cluster: &ClusterReport,
        archiving: &Archiving,
        looked_at: Instant,
    ) -> Option<Self> {
        let archived = cluster.archived_to();
        if !archived.is_valid() {
            return None;
        }
        let before_the_look =
            archiving.archived_s_ago.is_some_and(|ago| ago > looked_at.elapsed().as_secs_f64());
        let lost = archiving.last_archived.filter(|segment| segment.start() >= archived);
        if let Some(segment) = lost.filter(|_| before_the_look) {
            return Some(Self::Elsewhere { segment });
        }
        let (timeline, server) = (archiving.timeline?, archiving.insert_lsn);
        let archived = cluster.archived_to_on(timeline)?;
        (server < archived).then_some(Self::SetBack { timeline, server, archived })
    }
}

impl Contradiction {
    /// What contradicts what, and what to do.
    pub fn told(&self) -> Hint {
        match self {
            Self::Elsewhere { segment } => format!(
                "PostgreSQL says that {segment} is archived, and it is in no repository: \
                 archive_command takes it elsewhere, or it was removed"
            )
            .into(),
            Self::SetBack { timeline, server, archived } => hint![
                format!(
                    "the server is at LSN {server}, and timeline {timeline} is archived up to \
                     {archived}: it was set back, and what it writes cannot be archived; if that \
                     is what is wanted, "
                ),
                Action::Adopt { cluster: None }
            ],
        }
    }
}
