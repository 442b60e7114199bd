//! Which timelines there are, and what the past of each is.
//!
//! One small object tells of a timeline: its history file. If that is damaged it is the timeline's
//! own harm, and not even that where the history of a descendant tells the same.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use seawall_core::{
    Action, Code, Error, ExitClass, Hint, Key, Result, TimelineId, WalFileName, hint,
};
use seawall_pgdata::history::{Ancestry, history_within};
use seawall_store::ObjectPath;

use super::WalArchive;
use super::archive::READS_AT_ONCE;
use super::names::timelines_with_wal;
use crate::error;
use crate::layout::{LineObject, ObjectName};
use crate::records::HistoryFile;

/// The timelines of an archive, as far as their histories can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ancestries {
    /// Each with its ancestors, by number.
    pub known: Vec<Ancestry>,
    /// The histories that are damaged, or missing though the archive has WAL of the timeline, by
    /// number. The WAL of a timeline whose history is missing can be followed as far as it goes back
    /// itself: it is among the known ones, without ancestors.
    pub damaged: Vec<DamagedHistory>,
}

/// A history that is archived and cannot be read, or ought to be archived and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedHistory {
    /// The timeline it is of.
    pub timeline: TimelineId,
    /// The descendant whose history tells the same. Without one nobody knows the timeline's
    /// ancestors.
    pub told_by: Option<TimelineId>,
    /// Its object.
    pub object: ObjectPath,
    /// The code of the damage.
    pub code: Code,
    /// What is wrong with the object.
    pub why: String,
    /// How it is replaced.
    pub way_out: Hint,
}

impl Ancestries {
    /// One timeline with its ancestors; `None` if the archive has nothing of it.
    ///
    /// # Errors
    /// Its history is damaged, and nothing else tells the same.
    pub fn of(&self, timeline: TimelineId) -> Result<Option<&Ancestry>> {
        if let Some(known) = self.known.iter().find(|known| known.tip() == timeline) {
            return Ok(Some(known));
        }
        let lost = self.lost().find(|lost| lost.timeline == timeline);
        lost.map_or(Ok(None), |lost| Err(lost.error()))
    }

    /// Adds what was seen of the next timeline.
    fn add(&mut self, timeline: TimelineId, (ancestry, damaged): Looked) {
        let is_lost = ancestry.is_none() && damaged.is_some();
        let known = ancestry.unwrap_or_else(|| Ancestry::root(timeline));
        self.known.extend((!is_lost).then_some(known));
        self.damaged.extend(damaged);
    }

    /// The timelines whose ancestors nobody knows.
    pub fn lost(&self) -> impl Iterator<Item = &DamagedHistory> {
        self.damaged.iter().filter(|damaged| damaged.told_by.is_none())
    }
}

impl DamagedHistory {
    /// Whether there is no such object.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.code == Code::ObjectMissing
    }

    /// What the history is: damaged, or missing.
    #[must_use]
    pub fn word(&self) -> &'static str {
        if self.is_missing() { "missing" } else { "damaged" }
    }

    /// What is wrong, and the way out.
    #[must_use]
    pub fn error(&self) -> Error {
        let (timeline, word) = (self.timeline, self.word());
        let what = format!("the history of timeline {timeline} is {word}: {}", self.why);
        Error::new(self.code, what)
            .with_pair(Key::Object, &self.object)
            .with_hint(self.way_out.clone())
    }
}

/// What is known of a timeline's ancestors, and what is wrong with its own history.
type Looked = (Option<Ancestry>, Option<DamagedHistory>);

/// What the archive tells of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
struct History {
    file: HistoryFile,
    ancestry: Ancestry,
    /// The timeline whose object tells it.
    told_by: TimelineId,
}

impl History {
    fn parse(file: HistoryFile, timeline: TimelineId, path: &ObjectPath) -> Result<Self> {
        let ancestry = Ancestry::parse(timeline, &file.content)
            .map_err(|what| error::inconsistent(path, what))?;
        Ok(Self { file, ancestry, told_by: timeline })
    }

    /// The same as it tells it of an ancestor.
    fn of_ancestor(&self, timeline: TimelineId) -> Option<Self> {
        let content = history_within(&self.file.content, timeline)?;
        let ancestry = Ancestry::parse(timeline, content).ok()?;
        let file = HistoryFile::new(WalFileName::TimelineHistory(timeline), content);
        Some(Self { file, ancestry, told_by: self.told_by })
    }
}

/// Whether the object itself is bad. A store that does not answer says nothing of it.
fn is_damage(error: &Error) -> bool {
    error.exit_class() == ExitClass::Integrity
}

impl WalArchive {
    /// A timeline with its ancestors, as the archived histories tell; one of which none tells is
    /// taken to have none.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn ancestry(&self, timeline: TimelineId) -> Result<Ancestry> {
        Ok(self.known_ancestry(timeline).await?.unwrap_or_else(|| Ancestry::root(timeline)))
    }

    /// A timeline with its ancestors; `None` if no archived history tells them.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn known_ancestry(&self, timeline: TimelineId) -> Result<Option<Ancestry>> {
        match self.look_at(timeline).await? {
            (None, Some(lost)) => Err(lost.error()),
            (ancestry, _) => Ok(ancestry),
        }
    }

    /// A timeline's history file; `None` if no archived history tells it.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn timeline_history(&self, timeline: TimelineId) -> Result<Option<HistoryFile>> {
        match self.history(timeline).await? {
            (None, Some(lost)) => Err(lost.error()),
            (history, _) => Ok(history.map(|history| history.file)),
        }
    }

    /// The objects that tell the ancestors of a timeline, and theirs.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn history_objects(&self, ancestry: &Ancestry) -> Result<BTreeSet<ObjectPath>> {
        let mut objects = BTreeSet::new();
        for span in ancestry.spans().filter(|span| span.begin.is_valid()) {
            let told_by = match self.history(span.timeline).await? {
                (Some(history), _) => history.told_by,
                (None, Some(lost)) => return Err(lost.error()),
                // That it is gone shows when it is looked for.
                (None, None) => span.timeline,
            };
            objects.insert(self.history_path(told_by)?);
        }
        Ok(objects)
    }

    /// Every timeline that has WAL or a history in the archive, in order.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn timelines(&self) -> Result<Vec<TimelineId>> {
        let (histories, wal) =
            try_join(self.history_timelines(), timelines_with_wal(self.line())).await?;
        Ok(histories.union(&wal).copied().collect())
    }

    /// Every timeline with its ancestors, and which histories are damaged or missing.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn ancestries(&self) -> Result<Ancestries> {
        let mut looks = self.look_at_all(self.timelines().await?).await?;
        // A cluster may have come to the archive on a later timeline than the first: nothing that is
        // archived is before that one.
        let mut all = Ancestries::default();
        for (timeline, looked) in looks.drain(..looks.len().min(1)) {
            all.add(timeline, looked);
        }
        for (timeline, looked) in looks {
            let is_missing = looked == (None, None);
            all.add(timeline, looked);
            all.damaged.extend(is_missing.then(|| self.missing_history(timeline)).transpose()?);
        }
        Ok(all)
    }

    /// The same of the timelines whose histories are archived.
    pub(super) async fn archived_histories(&self) -> Result<Ancestries> {
        let mut all = Ancestries::default();
        for (timeline, looked) in self.look_at_all(self.history_timelines().await?).await? {
            all.add(timeline, looked);
        }
        Ok(all)
    }

    async fn look_at_all(
        &self,
        timelines: impl IntoIterator<Item = TimelineId>,
    ) -> Result<Vec<(TimelineId, Looked)>> {
        let timelines: Vec<TimelineId> = timelines.into_iter().collect();
        let looks: Vec<_> = timelines.iter().map(|it| self.look_at(*it).boxed()).collect();
        let looks: Vec<_> = stream::iter(looks).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(timelines.into_iter().zip(looks).collect())
    }

    /// What is known of a timeline's ancestors, and what is wrong with its own history. Of one whose
    /// object is whole it is read once.
    pub(super) async fn look_at(&self, timeline: TimelineId) -> Result<Looked> {
        if let Some(known) = self.memory().ancestries.get(&timeline) {
            return Ok((Some(known.clone()), None));
        }
        let (history, damaged) = self.history(timeline).await?;
        Ok((history.map(|history| history.ancestry), damaged))
    }

    /// What the archive tells of a timeline, by its own history or a descendant's, and what is wrong
    /// with its own.
    async fn history(
        &self,
        timeline: TimelineId,
    ) -> Result<(Option<History>, Option<DamagedHistory>)> {
        let damage = match self.own_history(timeline).await {
            Ok(Some(own)) => return Ok((Some(own), None)),
            Ok(None) => None,
            Err(error) if is_damage(&error) => Some(error),
            Err(error) => return Err(error),
        };
        // The first timeline has no history.
        if damage.is_none() && timeline <= TimelineId(1) {
            return Ok((None, None));
        }
        let told = self.told_by_descendants(timeline).await?;
        let told_by = told.as_ref().map(|told| told.told_by);
        let damaged = damage.map(|error| self.damaged_history(timeline, told_by, &error));
        Ok((told, damaged.transpose()?))
    }

    /// What a timeline's own history tells; `None` if it is not archived.
    async fn own_history(&self, timeline: TimelineId) -> Result<Option<History>> {
        let file = self.read_history(&LineObject::History(timeline)).await?;
        let Some(file) = file else { return Ok(None) };
        let own = History::parse(file, timeline, &self.history_path(timeline)?)?;
        self.memory().ancestries.insert(timeline, own.ancestry.clone());
        Ok(Some(own))
    }

    /// What descendants tell of a timeline, if they agree.
    ///
    /// PostgreSQL begins a history with the parent's, byte for byte, and adds a line
    /// (`writeTimeLineHistory`, timeline.c, 12–18), and whichever of two is archived later is compared
    /// with the other ([`Self::store_history`]): what is lost of one is in the other.
    async fn told_by_descendants(&self, timeline: TimelineId) -> Result<Option<History>> {
        let mut told: Option<History> = None;
        let younger = self.history_timelines().await?.into_iter().filter(|it| *it > timeline);
        for descendant in younger {
            let history = match self.own_history(descendant).await {
                Ok(history) => history,
                Err(error) if is_damage(&error) => None,
                Err(error) => return Err(error),
            };
            let Some(found) = history.and_then(|it| it.of_ancestor(timeline)) else { continue };
            if told.as_ref().is_some_and(|other| other.file != found.file) {
                return Ok(None);
            }
            told = Some(found);
        }
        Ok(told)
    }

    /// The timelines whose history file is archived.
    async fn history_timelines(&self) -> Result<BTreeSet<TimelineId>> {
        let below = self.line().paths().below("history")?;
        let paths = self.line().repository().list(&below).await?;
        Ok(paths
            .iter()
            .filter_map(|path| match ObjectName::parse(path) {
                Some(ObjectName::Line(_, _, LineObject::History(timeline))) => Some(timeline),
                _ => None,
            })
            .collect())
    }

    fn history_path(&self, timeline: TimelineId) -> Result<ObjectPath> {
        self.line().paths().path(&LineObject::History(timeline))
    }

    /// The damage of a timeline's own history, with the way out.
    fn damaged_history(
        &self,
        timeline: TimelineId,
        told_by: Option<TimelineId>,
        error: &Error,
    ) -> Result<DamagedHistory> {
        let object = self.history_path(timeline)?;
        let way_out = match error.code() {
            // Nothing is wrong with the object.
            Code::KeyEpochGone => error.hint().cloned().unwrap_or_default(),
            _ => way_out(timeline, told_by, &self.line().store().url().to_string(), &object),
        };
        let (code, why) = (error.code(), error.chain());
        Ok(DamagedHistory { timeline, told_by, object, code, why, way_out })
    }
}

impl WalArchive {
    /// The history that a timeline of which there is WAL ought to have.
    fn missing_history(&self, timeline: TimelineId) -> Result<DamagedHistory> {
        let why = "WAL of the timeline is archived, and where it begins nobody knows".to_owned();
        let way_out = hint![
            store_again(timeline),
            Action::PushWal { file: history_file(timeline).into() },
            ". PostgreSQL does not push it again by itself."
        ];
        let (object, code) = (self.history_path(timeline)?, Code::ObjectMissing);
        Ok(DamagedHistory { timeline, told_by: None, object, code, why, way_out })
    }
}

/// The file, from where its server runs.
fn history_file(timeline: TimelineId) -> String {
    format!("pg_wal/{}", WalFileName::TimelineHistory(timeline))
}

/// Where the file is got from, to go on with the command.
fn store_again(timeline: TimelineId) -> String {
    format!(
        "Store the file again, in the data directory of a server that is on timeline {timeline} or came from it: "
    )
}

/// How a damaged history is replaced. PostgreSQL archives it once, when the timeline begins, and
/// keeps it in `pg_wal` for ever (`RemoveOldXlogFiles` removes segments, xlog.c, 12–18).
fn way_out(
    timeline: TimelineId,
    told_by: Option<TimelineId>,
    repository: &str,
    object: &ObjectPath,
) -> Hint {
    let meanwhile = told_by.map_or_else(String::new, |other| {
        format!("Nothing is lost: the history of timeline {other} tells the same. ")
    });
    hint![
        meanwhile,
        format!("Move {object} out of the repository {repository}. Then: "),
        store_again(timeline),
        Action::PushWal { file: history_file(timeline).into() },
        ". PostgreSQL does not push it again by itself."
    ]
}
