//! Reading and authenticating everything a repository holds.
//!
//! Three looks, each of which notices what the others cannot: every object is read and proven by
//! itself; every backup's parts must be there and fit together; and what the heads say existed
//! must exist.

mod backups;
mod heads;
mod not_whole;
mod objects;
mod record;
#[cfg(test)]
mod tests;
mod wal;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use jiff::Timestamp;
use seawall_core::{BackupId, ClusterName, Code, Error, LineId, Progress, Result, Stage, counted};
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::wal::WalArchive;
use seawall_repo::{Condemnations, Line, Repository};
use seawall_store::{ObjectPath, ObjectPrefix};
use serde::{Serialize, Serializer};

use crate::lines::current_line;
use crate::pace::Crew;
use crate::pinned::Pinned;
use crate::wal::{BackupPlace, Look, Obstacle, Reach, reach};

use heads::Heads;

pub use not_whole::NotWhole;

/// How many names a listing asks for at a time.
const LIST_PAGE: usize = 5000;

/// What a verification is asked to do.
#[derive(Debug, Clone, Default)]
pub struct VerifyRequest {
    /// Only what these backups need; `None` for the whole repository.
    pub backups: Option<BTreeSet<BackupId>>,
    /// The clusters that have to be in the repository.
    pub clusters: Vec<ClusterName>,
    /// How many of a hundred frames are read; 100 reads all.
    pub sample_percent: u8,
    /// Worker threads.
    pub jobs: usize,
    /// Whose threads they are, and how fast they may read objects.
    pub crew: Crew,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The object it is about, by its name in the repository.
    pub object: String,
    /// What is to be said of that object.
    pub state: NotWhole,
    /// The stable code, such as `SW0305`.
    pub code: Code,
    /// What is wrong.
    pub problem: String,
}

/// What a verification found.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Backups that were checked.
    pub backups: u64,
    /// What is wrong; empty is good.
    pub findings: Vec<Finding>,
    /// The clusters that have no backup here, where the whole repository was looked at.
    pub without_backup: Vec<ClusterName>,
    /// Archived WAL that no backup leads to, where all that is archived was looked at.
    pub blocked_wal: Vec<BlockedWal>,
    /// Backups of which every part was read and found whole, the WAL they need included.
    pub verified: Vec<String>,
    /// Backups that are to be deleted. They were not looked at.
    pub going: Vec<GoingBackup>,
    /// Why it is not recorded what was found of some or all of them. What was found holds.
    #[serde(serialize_with = "as_text")]
    pub unrecorded: Option<Error>,
}

/// A backup that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GoingBackup {
    /// Its id.
    pub id: String,
    /// Until when it stays at least, by the clock of the repository.
    pub goes_at: Timestamp,
}

/// Why a line cannot be restored to the end of what is archived of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockedWal {
    /// The cluster.
    pub cluster: ClusterName,
    /// The newest backup that can be restored.
    pub backup: String,
    /// What is in the way of rolling it forward.
    pub obstacle: Obstacle,
    /// The same in words.
    pub message: String,
}

impl VerifyReport {
    /// Whether something that ought to be verified was not there.
    #[must_use]
    pub const fn lacks_backups(&self) -> bool {
        self.backups == 0 || !self.without_backup.is_empty()
    }

    /// The error to end with, if anything is not known to be whole: damage comes first, and what could
    /// not be read is no damage. That it could not be recorded that all is whole changes nothing of it.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        let worst = [NotWhole::Damaged, NotWhole::Unread, NotWhole::OtherFormat];
        let of = |state| self.findings.iter().find(|finding| finding.state == state);
        let first = worst.into_iter().find_map(of)?;
        let more = match self.findings.len() {
            1 => String::new(),
            count => format!(", and {}", counted(count - 1, "more problem")),
        };
        let what = format!("{}: {}{more}", first.object, first.problem);
        let (code, hint) = match first.state {
            NotWhole::Damaged => (
                Code::VerifyFailed,
                "Only backups listed as whole are known to be. Make a new backup now; restore damaged objects from another repository if there is one.",
            ),
            NotWhole::Unread => (
                first.code,
                "Nothing was found damaged, and not all could be read. Mend what is told of it, as storage that does not answer, access, or a key that was not carried over; then verify again.",
            ),
            NotWhole::OtherFormat => (
                first.code,
                "Nothing was found damaged. What is of another format is read by the Seawall that made it; make a new backup with this one.",
            ),
        };
        Some(Error::new(code, what).with_hint(hint))
    }
}

#[expect(clippy::ref_option, reason = "as serde gives it")]
fn as_text<S: Serializer>(
    error: &Option<Error>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    error.as_ref().map(Error::chain).serialize(serializer)
}

/// Collects findings, one an object and problem.
#[derive(Debug, Default)]
struct Findings {
    listed: BTreeMap<(String, String), Code>,
    /// Of those that mean that something is gone or spoilt: the object, and a problem of it. A store
    /// that did not answer is none.
    damaged: BTreeMap<String, String>,
}

impl Findings {
    fn add(&mut self, object: impl Display, code: Code, problem: impl Into<String>) {
        let (object, problem) = (object.to_string(), problem.into());
        if NotWhole::of(code) == NotWhole::Damaged {
            self.damaged.insert(object.clone(), problem.clone());
        }
        self.listed.insert((object, problem), code);
    }

    fn error(&mut self, object: impl Display, error: &Error) {
        self.add(object, error.code(), error.chain());
    }

    fn into_list(self) -> Vec<Finding> {
        self.listed
            .into_iter()
            .map(|((object, problem), code)| Finding {
                object,
                state: NotWhole::of(code),
                code,
                problem,
            })
            .collect()
    }
}

/// Verifies a repository and records which backups were found whole, and which damaged.
///
/// # Errors
/// Only what keeps the repository from being looked at at all; damage is in the report.
pub async fn run(
    repository: &Repository,
    request: &VerifyRequest,
    progress: &dyn Progress,
) -> Result<VerifyReport> {
    let mut findings = Findings::default();
    let writable = repository.keyring().current();
    if let Err(error) = &writable {
        findings.error(format_args!("keys/{}", repository.keyring().current_epoch()), error);
    }
    let objects = list(repository, &mut findings).await?;
    progress.stage(Stage::Verifying, Some(objects.iter().map(|object| object.size_bytes).sum()));

    let mut report = VerifyReport {
        objects: 0,
        bytes: 0,
        backups: 0,
        findings: Vec::new(),
        without_backup: Vec::new(),
        blocked_wal: Vec::new(),
        verified: Vec::new(),
        going: Vec::new(),
        unrecorded: None,
    };
    let (mut whole, mut going) = (Vec::new(), BTreeMap::new());
    let mut archives = BTreeMap::new();
    let lines = repository.lines().await?;
    for cluster in &request.clusters {
        if !lines.iter().any(|(known, _)| known == cluster) {
            let what = "it is configured to be here, and nothing of it is";
            findings.add(format_args!("cluster {cluster}"), Code::NoSuchCluster, what);
        }
    }
    let mut without_backup: BTreeSet<_> =
        lines.iter().map(|(cluster, _)| cluster.clone()).collect();
    for (cluster, id) in lines {
        let line = repository.line(&cluster, id)?;
        // After the names were listed: what went meanwhile is told of, or a head stands for the rest.
        let heads = Heads::of(&line, &objects).await?;
        let condemned = line.condemnations().await.unwrap_or_else(|error| {
            findings.error(format_args!("c/{cluster}/i/{id}/gc"), &error);
            Condemnations::default()
        });
        let mut checked = backups::check(&line, request, &heads, &mut findings).await?;
        report.going.append(&mut checked.going);
        if checked.count() > 0 {
            without_backup.remove(&cluster);
        }
        report.backups += checked.count() as u64;
        match WalArchive::open(line.clone()).await {
            Ok(archive) => {
                wal::check(&archive, &mut checked, &mut findings).await;
                archives.insert((cluster.clone(), id), (archive, checked.places.clone()));
            }
            Err(error) => {
                unknown_line(&line, &error, &mut findings);
                // Nothing can be said for backups of an unknown cluster.
                checked.whole.clear();
            }
        }
        heads::check(&line, &objects, &heads, &condemned, &mut findings).await?;
        whole.push((line, checked));
        going.insert((cluster, id), condemned);
    }
    if request.backups.is_none() {
        report.blocked_wal = blocked_wal(repository, archives, &mut findings).await;
        report.without_backup.extend(without_backup);
    }
    let needed = whole.iter().flat_map(|(_, checked)| checked.objects());
    let needed: BTreeSet<ObjectPath> = needed.cloned().collect();
    let is_going = |name: &ObjectName| match name {
        ObjectName::Line(cluster, id, object) => {
            let condemned = going.get(&(cluster.clone(), *id));
            condemned.is_some_and(|condemned| condemned.contains(object))
        }
        _ => false,
    };
    let selected: Vec<Listed> = objects
        .into_iter()
        .filter(|object| match request.backups {
            Some(_) => needed.contains(&object.path),
            None => !is_going(&object.name),
        })
        .collect();
    let read = objects::read_all(repository, request, selected, &needed, &mut findings, progress);
    let read = read.await?;
    (report.objects, report.bytes) = (read.objects, read.bytes);
    // Nothing is written under the key from before if it was rotated meanwhile. A repository that is
    // full or read-only does not keep from telling what was found.
    match repository.with_newest_keys().await {
        Err(error) => report.unrecorded = Some(error),
        Ok(newest) if writable.is_ok() => {
            let proven = (request.sample_percent >= 100).then_some(&read.proven);
            for (line, checked) in whole {
                let line = newest.line(line.cluster(), line.id())?;
                let (now, mut checked) = (Timestamp::now(), checked);
                let pinned = checked.pinned.take();
                let recorded = record::record(&line, checked, proven, &findings, now).await;
                report.verified.extend(recorded.whole);
                report.unrecorded = recorded.failure.or(report.unrecorded);
                Pinned::end_any(pinned).await;
            }
        }
        // That the keys are gone is found already.
        Ok(_) => {}
    }
    report.findings = findings.into_list();
    Ok(report)
}

/// The archives of lines, and where in the log their backups are.
type Archives = BTreeMap<(ClusterName, LineId), (WalArchive, Vec<BackupPlace>)>;

/// What keeps the lines that are written now from being restored to their ends.
async fn blocked_wal(
    repository: &Repository,
    archives: Archives,
    findings: &mut Findings,
) -> Vec<BlockedWal> {
    let clusters: BTreeSet<ClusterName> =
        archives.keys().map(|(cluster, _)| cluster.clone()).collect();
    let mut blocked = Vec::new();
    for cluster in clusters {
        match reach_of_written(repository, &cluster, &archives).await {
            Ok(reached) => blocked.extend(reached.and_then(|reached| {
                let obstacle = reached.obstacle?;
                let message = obstacle.to_string();
                Some(BlockedWal { cluster, backup: reached.backup.to_string(), obstacle, message })
            })),
            Err(error) => findings.error(format!("WAL of cluster {cluster}"), &error),
        }
    }
    blocked
}

/// Up to where the line of a cluster that is written now can be restored.
async fn reach_of_written(
    repository: &Repository,
    cluster: &ClusterName,
    archives: &Archives,
) -> Result<Option<Reach>> {
    let written = current_line(repository, cluster).await?.id();
    match archives.get(&(cluster.clone(), written)) {
        Some((archive, places)) => reach(archive, places, Look::AlongIt).await,
        // Why it could not be opened is told already.
        None => Ok(None),
    }
}

/// Tells of a line that does not say what it is. Creating that object creates the line, so where
/// there are others it was there.
fn unknown_line(line: &Line, error: &Error, findings: &mut Findings) {
    let about = name_of(line, &LineObject::About);
    match error.code() {
        Code::NoSuchCluster => {
            findings.add(about, Code::ObjectMissing, "it is gone, and the line has other objects");
        }
        _ => findings.error(about, error),
    }
}

/// An object of the repository, by its name.
#[derive(Debug, Clone)]
struct Listed {
    path: ObjectPath,
    name: ObjectName,
    size_bytes: u64,
}

async fn list(repository: &Repository, findings: &mut Findings) -> Result<Vec<Listed>> {
    let mut objects = Vec::new();
    let mut after = None;
    loop {
        let page =
            repository.store().list(&ObjectPrefix::root(), after.as_ref(), LIST_PAGE).await?;
        for object in page.objects {
            match ObjectName::parse(&object.path) {
                Some(name) => {
                    objects.push(Listed { path: object.path, name, size_bytes: object.size_bytes });
                }
                None => findings.add(
                    &object.path,
                    Code::UnknownObject,
                    "its name is not one Seawall gives",
                ),
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(objects);
        }
    }
}

/// What a finding is about that concerns a backup as a whole.
fn subject(id: BackupId) -> String {
    format!("backup {id}")
}

/// The path of an object of a line, as text for a finding.
fn name_of(line: &Line, object: &LineObject) -> String {
    line.paths().path(object).map_or_else(|error| error.to_string(), |path| path.to_string())
}
