//! What a server says of its archiving, and the archive knows better.

use seawall_core::{Action, Hint, Lsn, TimelineId, WalSegment, hint};
use serde::Serialize;

use super::{Archiving, ClusterSurvey};

/// Why what the server says of its archiving cannot be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Contradiction {
    /// The archiver succeeded with a segment that is in no repository: `archive_command` takes it
    /// elsewhere, or nowhere.
    Elsewhere {
        /// The segment.
        #[serde(serialize_with = "crate::as_text::serialize")]
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

impl ClusterSurvey {
    /// What of the server's word the archive contradicts. Compared is what was archived when the
    /// repositories were looked at, which was before the server was asked; all of it has to be
    /// known.
    #[must_use]
    pub fn contradiction(&self, archiving: &Archiving) -> Option<Contradiction> {
        let archived = self.archived_to();
        if !archived.is_valid() {
            return None;
        }
        let since_the_look = self.looked_at.elapsed().as_secs_f64();
        let before_the_look = archiving.archived_s_ago.is_some_and(|ago| ago > since_the_look);
        let lost = archiving.last_archived.filter(|segment| segment.start() >= archived);
        if let Some(segment) = lost.filter(|_| before_the_look) {
            return Some(Contradiction::Elsewhere { segment });
        }
        let (timeline, server) = (archiving.timeline?, archiving.insert_lsn);
        let archived = self.archived_to_on(timeline)?;
        (server < archived).then_some(Contradiction::SetBack { timeline, server, archived })
    }
}

impl Contradiction {
    /// What contradicts what, and what to do.
    pub fn told(&self) -> Hint {
        match self {
            Self::Elsewhere { segment } => format!(
                "PostgreSQL says that {segment} is archived, and it is not there: \
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
