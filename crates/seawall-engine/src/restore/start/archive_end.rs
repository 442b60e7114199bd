//! How far the archive reaches ahead of a standby.

use std::fmt;
use std::path::Path;

use seawall_core::{Code, Error, Lsn, Result, TimelineId, WalFileName};
use seawall_pgdata::control::ControlFile;
use seawall_pgdata::history::Ancestry;
use seawall_repo::wal::{Ancestries, WalArchive};

use crate::cluster::read_control;
use crate::restore::WalSource;
use crate::restore::branches::archived_from;
use crate::restore::plan::record_position;
use crate::restored::{CommitPlace, RestoreState};
use crate::wal::RestorePath;

/// The archives a standby's WAL comes from.
#[derive(Default)]
pub struct Archives {
    /// Those that were opened.
    pub open: Vec<WalArchive>,
    /// Why one could not be.
    pub failure: Option<Error>,
}

/// What a promotion leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Nothing that is archived.
    Nothing {
        /// All was replayed up to here.
        up_to: Lsn,
    },
    /// What is archived and was not replayed.
    Archived {
        /// Replay was here.
        after: Lsn,
        /// And the archive reaches to here.
        to: Lsn,
        /// How many transactions committed between.
        commits: u64,
        /// The last of them.
        last_commit: Option<CommitPlace>,
    },
    /// What is archived behind WAL that is not.
    BehindHole {
        /// Replay, and what is archived without a hole, ends here.
        after: Lsn,
        /// How many transactions committed behind the hole.
        commits: u64,
    },
    /// What is archived cannot be told.
    Unknown {
        /// Replay was here.
        after: Lsn,
    },
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing { up_to } => {
                write!(f, "nothing that is archived: all is replayed up to LSN {up_to}")
            }
            Self::Archived { after, to, commits, last_commit } => {
                write!(f, "what is archived from LSN {after} to {to}: {commits} commits")?;
                let last =
                    last_commit.map(|last| last.time.strftime("%Y-%m-%d %H:%M:%S%.fZ").to_string());
                last.map_or(Ok(()), |last| write!(f, ", the last at {last}"))
            }
            Self::BehindHole { after, commits } => write!(
                f,
                "what is archived behind a hole that begins at LSN {after}: at least {commits} commits"
            ),
            Self::Unknown { after } => {
                write!(f, "whatever was archived after LSN {after}: the archive could not be asked")
            }
        }
    }
}

impl Archives {
    /// Why not all can be asked, if one is away. What is wrong with the words of this command says
    /// nothing about the server's own way to its archive.
    pub(super) fn away(&self) -> Option<&Error> {
        let is_away = |error: &&Error| {
            matches!(error.code(), Code::StoreFailed | Code::NoRepository | Code::StoreForbidden)
        };
        self.failure.as_ref().filter(is_away)
    }

    /// What is archived on a standby's way ahead of `replayed`: the most that any archive has.
    ///
    /// # Errors
    /// One of the archives could not be asked.
    pub(super) async fn end_ahead_of(
        &self,
        data_directory: &Path,
        state: Option<&RestoreState>,
        replayed: Lsn,
    ) -> Result<LeftOut> {
        self.refuse_away()?;
        let control = read_control(data_directory)?;
        let path = state.map(RestorePath::from);
        let mut most = LeftOut::Nothing { up_to: replayed };
        for archive in &self.open {
            let standby = Standby { data_directory, control: &control, path: path.as_ref() };
            let ahead = standby.ahead(archive, replayed).await?;
            most = if ahead.end() > most.end() { ahead } else { most };
        }
        Ok(most)
    }
}

impl Archives {
    fn refuse_away(&self) -> Result<()> {
        match &self.failure {
            Some(failure) => Err(Error::new(failure.code(), failure.chain())),
            None => Ok(()),
        }
    }

    /// A timeline of the archive that a standby knows nothing of. One that does not ask the archive
    /// may begin another of that number: it takes the one behind the last that it finds in `pg_wal`
    /// (`findNewestTimeLine`, timeline.c, 12–18).
    ///
    /// # Errors
    /// One of the archives could not be asked.
    pub(super) async fn unknown_timeline(
        &self,
        data_directory: &Path,
    ) -> Result<Option<TimelineId>> {
        self.refuse_away()?;
        let control = read_control(data_directory)?;
        let standby = Standby { data_directory, control: &control, path: None };
        for archive in &self.open {
            let mut archived = archive.timelines().await?.into_iter();
            let unknown = archived.find(|it| *it > standby.timeline() && !standby.knows(*it));
            if unknown.is_some() {
                return Ok(unknown);
            }
        }
        Ok(None)
    }
}

impl LeftOut {
    /// For comparing what archives have; a hole comes last.
    const fn end(&self) -> Lsn {
        match self {
            Self::Nothing { up_to } => *up_to,
            Self::Archived { to, .. } => *to,
            Self::BehindHole { after, .. } | Self::Unknown { after } => after.saturating_add(1),
        }
    }
}

struct Standby<'s> {
    data_directory: &'s Path,
    control: &'s ControlFile,
    path: Option<&'s RestorePath>,
}

impl Standby<'_> {
    /// What one archive has ahead.
    async fn ahead(&self, archive: &WalArchive, replayed: Lsn) -> Result<LeftOut> {
        let nothing = LeftOut::Nothing { up_to: replayed };
        let Ancestries { known: all, damaged } = archive.ancestries().await?;
        // It may have left the standby's way ahead.
        let mut lost = damaged.iter().filter(|it| it.told_by.is_none());
        if let Some(lost) = lost.find(|lost| lost.timeline > self.timeline()) {
            return Err(lost.error());
        }
        // PostgreSQL goes along the newest of those it can change to (`rescanLatestTimeLine`).
        let Some(way) = all.iter().rfind(|it| self.may_follow(it, replayed)) else {
            return Ok(nothing);
        };
        let here = record_position(replayed, self.control.wal_segment_size);
        let (stretches, _) = archive.readable_coverage(way, replayed).await?;
        let mut ahead = stretches.iter().skip_while(|it| it.complete_to.align_up() <= here);
        let Some(first) = ahead.next() else { return Ok(nothing) };
        let archived = archived_from(archive as &dyn WalSource, way, replayed).await?;
        let (commits, last_commit) = (archived.commits, archived.last_commit);
        if first.range.start > here {
            return Ok(LeftOut::BehindHole { after: replayed, commits });
        }
        let to = first.complete_to.align_up();
        Ok(LeftOut::Archived { after: replayed, to, commits, last_commit })
    }

    /// Whether the standby goes along that timeline, or can change to it.
    fn may_follow(&self, ancestry: &Ancestry, replayed: Lsn) -> bool {
        let timeline = self.timeline();
        let is_on_it = ancestry.contains(timeline, self.control.min_recovery_point);
        let is_led_there = self.path.is_none_or(|path| path.leads_to(ancestry));
        // It is past the fork: on the child, which it then knows, or on the parent.
        let passed = ancestry.fork_lsn_of(timeline).is_some_and(|fork| fork < replayed);
        is_on_it && is_led_there && (!passed || self.knows(ancestry.tip()))
    }

    /// The timeline it is on.
    fn timeline(&self) -> TimelineId {
        let checkpoint = self.control.checkpoint_timeline;
        self.control.min_recovery_timeline.map_or(checkpoint, |it| it.max(checkpoint))
    }

    /// A server keeps the history of a timeline that it goes along.
    fn knows(&self, timeline: TimelineId) -> bool {
        let name = WalFileName::TimelineHistory(timeline).to_string();
        self.data_directory.join("pg_wal").join(name).exists()
    }
}
