//! Timeline and backup history files.

use seawall_core::{Action, Code, Error, ExitClass, Lsn, Result, TimelineId, WalFileName, hint};
use seawall_pgdata::backup_label::BackupHistory;
use seawall_pgdata::history::{Ancestry, TimelineSpan};
use seawall_store::StoreError;

use super::LsnRange;
use super::WalArchive;
use super::ancestries::DamagedHistory;
use crate::envelope::ObjectKind;
use crate::layout::LineObject;
use crate::records::{HistoryFile, Record as _};

/// No history file PostgreSQL writes comes near.
const HISTORY_BYTES_MAX: usize = 1 << 20;

/// What became of a history file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryStored {
    /// It is new, and durable now.
    Stored,
    /// It was there, the same.
    AlreadyThere,
}

impl WalArchive {
    /// Stores a `.history` or `.backup` file, verbatim.
    ///
    /// # Errors
    /// [`Code::NotWal`] for another kind of file, [`Code::WalDamaged`] if it is empty or cannot be
    /// read as what it is, [`Code::HistoryConflict`] if what is archived says something else, and a
    /// store that fails.
    pub async fn store_history(&self, name: WalFileName, content: &[u8]) -> Result<HistoryStored> {
        let damaged = |why: String| {
            Error::new(Code::WalDamaged, format!("{name} cannot be archived: {why}")).with_hint(
                "PostgreSQL pushes it again until it succeeds; look at the file in pg_wal.",
            )
        };
        if content.is_empty() {
            return Err(damaged("it is empty".to_owned()));
        }
        if content.len() > HISTORY_BYTES_MAX {
            return Err(damaged(format!("{} bytes are too many for it", content.len())));
        }
        let object = match name {
            WalFileName::TimelineHistory(timeline) => {
                let ancestry = Ancestry::parse(timeline, content)
                    .map_err(|error| damaged(error.to_string()))?;
                self.check_against_parents(&ancestry).await?;
                self.check_against_descendants(&ancestry).await?;
                self.check_against_own_wal(&ancestry).await?;
                LineObject::History(timeline)
            }
            WalFileName::BackupHistory(..) => {
                BackupHistory::parse(content).map_err(|error| damaged(error.to_string()))?;
                LineObject::BackupHistory(name.to_string())
            }
            WalFileName::Segment(_) | WalFileName::Partial(_) => {
                return Err(Error::new(Code::NotWal, format!("{name} is not a history file")));
            }
        };
        let file = HistoryFile::new(name, content);
        self.create_history(&object, &file).await
    }

    /// WAL of the timeline that lies before its beginning, or begins elsewhere in that segment, was
    /// written by another server, on another timeline of that number.
    async fn check_against_own_wal(&self, ancestry: &Ancestry) -> Result<()> {
        let timeline = ancestry.tip();
        let Some(begin) = ancestry.span(timeline).map(|span| span.begin) else { return Ok(()) };
        let covered = self.timeline_coverage(timeline).await?;
        let Some(first) = covered.ranges.first() else { return Ok(()) };
        // What was there before may have expired.
        let is_behind = first.start >= self.segment_at(timeline, begin).end();
        if is_behind || self.begins(timeline, begin, first) {
            return Ok(());
        }
        let what = format!(
            "timeline {timeline} begins at {begin} by its history, and the archive has WAL of a timeline {timeline} from {} on: of another server that took that number",
            first.start
        );
        Err(Error::new(Code::HistoryConflict, what).with_hint(hint![
            "Let the server archive into a line of its own: ",
            Action::Adopt { cluster: Some(self.line().cluster().clone()) },
            "."
        ]))
    }

    /// Whether the first that is archived of a timeline is what it has from its beginning on. What was
    /// stored before its history begins with what the parent wrote in that segment.
    fn begins(&self, timeline: TimelineId, begin: Lsn, first: &LsnRange) -> bool {
        first.start == begin || first.start == self.segment_at(timeline, begin).start()
    }

    async fn create_history(
        &self,
        object: &LineObject,
        file: &HistoryFile,
    ) -> Result<HistoryStored> {
        // Looked for first: a repeated push is common, and some stores pay for a failed write.
        let path = self.line().paths().path(object)?;
        if let Some(there) = self.read_there(object).await? {
            // Its writer may not have come so far as to make it durable.
            self.line().store().make_durable(&path).await?;
            return same_history(&there, file);
        }
        let bytes = file.seal(self.line().keyring(), &path)?;
        match self.line().store().create(&path, bytes.into()).await {
            Ok(()) => Ok(HistoryStored::Stored),
            Err(StoreError::AlreadyExists { .. }) => {
                same_history(&self.line().history(object).await?, file)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is in the place of a history that is to be stored; `None` if nothing is. A damaged one
    /// is told with the way to make room for it.
    async fn read_there(&self, object: &LineObject) -> Result<Option<HistoryFile>> {
        match (self.read_history(object).await, object) {
            (Err(error), LineObject::History(timeline))
                if error.exit_class() == ExitClass::Integrity =>
            {
                let (_, damaged) = self.look_at(*timeline).await?;
                Err(damaged.map_or(error, |damaged| damaged.error()))
            }
            (read, _) => read,
        }
    }

    /// What is archived of a history; `None` if nothing is.
    pub(super) async fn read_history(&self, object: &LineObject) -> Result<Option<HistoryFile>> {
        let path = self.line().paths().path(object)?;
        let limit_bytes = ObjectKind::History.whole_bytes_max();
        let bytes = self.line().repository().read_if_there(&path, limit_bytes).await?;
        bytes.map(|bytes| HistoryFile::open(self.line().keyring(), &path, &bytes)).transpose()
    }

    /// PostgreSQL copies the parent's history and adds a line: two that differ before are two
    /// clusters' that share an identifier.
    async fn check_against_parents(&self, ancestry: &Ancestry) -> Result<()> {
        let spans: Vec<TimelineSpan> = ancestry.spans().collect();
        for (index, parent) in spans.iter().enumerate().take(spans.len().saturating_sub(1)) {
            let known = match self.look_at(parent.timeline).await? {
                (Some(known), _) => known,
                (None, None) => continue,
                (None, Some(lost)) => {
                    self.prove_told_anew(ancestry, parent, &lost).await?;
                    continue;
                }
            };
            let before = known.spans().map(|span| (span.timeline, span.begin));
            let claimed = spans.iter().take(index + 1).map(|span| (span.timeline, span.begin));
            if !before.eq(claimed) {
                return Err(conflict(ancestry.tip(), parent.timeline, parent.timeline));
            }
        }
        Ok(())
    }

    /// Lets a history in that is the first to tell the past of a timeline whose own history is damaged,
    /// so that a server that was promoted goes on archiving. What is there of the timeline has to agree:
    /// its WAL begins where it is said to have begun, or, stored before its history, with that
    /// segment; and no other history tells it otherwise. The first segment of the new timeline is
    /// compared with it byte for byte as well.
    ///
    /// # Errors
    /// The damage, with the way out, where nothing is there to agree; [`Code::HistoryConflict`].
    async fn prove_told_anew(
        &self,
        ancestry: &Ancestry,
        lost: &TimelineSpan,
        damage: &DamagedHistory,
    ) -> Result<()> {
        let (own, timeline) = (ancestry.tip(), lost.timeline);
        let past = |of: &Ancestry| -> Vec<_> {
            let spans = of.spans().take_while(|span| span.timeline <= timeline);
            spans.map(|span| (span.timeline, span.begin)).collect()
        };
        for other in self.archived_histories().await?.known {
            if other.span(timeline).is_some() && past(&other) != past(ancestry) {
                return Err(conflict(own, timeline, other.tip()));
            }
        }
        let covered = self.timeline_coverage(timeline).await?;
        let first = covered.ranges.first();
        let agrees = first.is_some_and(|first| self.begins(timeline, lost.begin, first));
        // Behind keys that are gone it may be whole.
        if agrees && damage.code != Code::KeyEpochGone {
            tracing::warn!(%own, %timeline, "the damaged history of a parent is told by this one");
            return Ok(());
        }
        Err(damage.error().context(format_args!(
            "{} cannot be archived: where timeline {timeline} began cannot be compared",
            WalFileName::TimelineHistory(own)
        )))
    }

    /// The same where the child came first. One that cannot be read is compared when it comes again.
    async fn check_against_descendants(&self, ancestry: &Ancestry) -> Result<()> {
        let own = ancestry.tip();
        for other in self.archived_histories().await?.known {
            if other.tip() <= own || other.span(own).is_none() {
                continue;
            }
            let told = other.spans().take_while(|span| span.timeline <= own);
            let claimed = ancestry.spans().map(|span| (span.timeline, span.begin));
            if !told.map(|span| (span.timeline, span.begin)).eq(claimed) {
                return Err(conflict(own, own, other.tip()));
            }
        }
        Ok(())
    }
}

fn same_history(there: &HistoryFile, file: &HistoryFile) -> Result<HistoryStored> {
    if there == file {
        return Ok(HistoryStored::AlreadyThere);
    }
    Err(Error::new(
        Code::HistoryConflict,
        format!("{} differs from the one that is archived", file.name),
    )
    .with_hint(
        hint!["Two servers made the same timeline. Find out which one is yours, and keep the other from archiving here; ", Action::Adopt { cluster: None }, " gives yours a line of its own."],
    ))
}

/// `archived` is the timeline whose history is there.
fn conflict(timeline: TimelineId, of: TimelineId, archived: TimelineId) -> Error {
    Error::new(
        Code::HistoryConflict,
        format!("the history of timeline {timeline} tells another past of timeline {of} than that of timeline {archived}, which is archived"),
    )
    .with_hint(
        "Another cluster with the same system identifier made it; keep one of them from archiving here.",
    )
}
