use std::time::Duration;

use jiff::Timestamp;
use seawall_core::{
    Action, BackupId, ClusterName, Code, Error, Hint, TimelineId, counted, hint, shown_duration,
    shown_utc,
};
use serde::{Serialize, Serializer};

use crate::survey::{ArchiverHold, Contradiction, ForeignWal, UnusableWal};

/// What is to be said of a server whose archiver is not its own.
pub(in crate::survey) const ANOTHER_ARCHIVER: &str = "the server asked is a standby: whether its primary archives is unknown; point `connection` at the primary";

/// Something that is not well.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Remark {
    /// Something could not be looked at.
    Unseen {
        /// Why.
        why: String,
    },
    /// A repository is there under two names.
    RepositoryNamedTwice {
        /// Which.
        names: String,
    },
    /// Something of a backup is gone or spoilt.
    BackupDamaged {
        /// Which.
        #[serde(with = "crate::as_text")]
        id: BackupId,
    },
    /// A backup's commit could not be read.
    BackupUnreadable {
        /// Which.
        #[serde(with = "crate::as_text")]
        id: BackupId,
    },
    /// A backup is of a format that this version does not read.
    BackupOfOtherFormat {
        /// Which.
        #[serde(with = "crate::as_text")]
        id: BackupId,
    },
    /// There is no backup at all.
    NoBackup,
    /// Of those there are none is known to be whole.
    NoWholeBackup,
    /// There is none of the line that is written now.
    NoBackupSinceAdoption,
    /// The database has damaged pages.
    DamagedPages {
        /// How many.
        pages: u64,
        /// The backup that met them.
        #[serde(with = "crate::as_text")]
        id: BackupId,
    },
    /// A backup met blocks that changed or are damaged though WAL does not name them, and none has
    /// read everything since.
    Incidents {
        /// How many.
        blocks: u64,
        /// The backup that met them.
        #[serde(with = "crate::as_text")]
        id: BackupId,
    },
    /// The newest backup ended in the future.
    BackupFromTheFuture {
        /// Which.
        #[serde(with = "crate::as_text")]
        id: BackupId,
        /// When, by its clock.
        finished_at: Timestamp,
    },
    /// The newest backup is older than it may be.
    BackupOld {
        /// How old.
        #[serde(rename = "age_seconds", serialize_with = "as_seconds")]
        age: Duration,
    },
    /// The server writes an older timeline than is archived.
    ServerLeftBehind {
        /// The timeline it writes.
        server: TimelineId,
        /// The newest that is archived.
        archived: TimelineId,
    },
    /// No backup is of the newest timeline that is archived.
    NoBackupOfTimeline {
        /// The timeline of the newest backup.
        backup: TimelineId,
        /// The newest that is archived, or that the server writes.
        newest: TimelineId,
    },
    /// Another server archives too, as it seems.
    Foreign(ForeignWal),
    /// What is so in one repository, though not in all together.
    InRepository {
        /// Its name.
        repository: String,
        /// What is so.
        remark: Box<Remark>,
    },
    /// Nobody knew how to ask the server.
    ServerNotAsked {
        /// Why.
        why: String,
    },
    /// The server did not answer.
    ServerSilent {
        /// Why.
        why: String,
        /// What gives it the right to, if that is what it lacks.
        help: Option<Hint>,
    },
    /// The server is another cluster's.
    ServerOfAnotherCluster {
        /// Which.
        why: String,
    },
    /// The server is a standby: another one archives.
    AnotherArchiver,
    /// The server archives nothing.
    ArchivesNothing {
        /// Whether it will when it is restarted.
        waits_for_restart: bool,
    },
    /// The archiver's last try failed.
    ArchiverFails {
        /// The file it failed on.
        wal: String,
    },
    /// It failed because one of several repositories does not have what the others have.
    ArchiverHeldUp(ArchiverHold),
    /// The archive contradicts what the server says.
    Contradicted(Contradiction),
    /// No WAL is in any repository.
    NothingArchived,
    /// More may be lost than may be.
    AtRisk {
        /// Of how long commits would be lost.
        #[serde(rename = "commits_of_seconds", serialize_with = "as_seconds")]
        commits_of: Duration,
    },
    /// Archived WAL leads nowhere.
    Unusable(UnusableWal),
    /// The history of a timeline is damaged.
    HistoryDamaged {
        /// The repository's name.
        repository: String,
        /// The timeline.
        timeline: TimelineId,
        /// The timeline whose history tells the same. Without one it cannot be restored.
        told_by: Option<TimelineId>,
    },
    /// There is WAL of a timeline, and no history that says where it began.
    HistoryMissing {
        /// The repository's name.
        repository: String,
        /// The timeline.
        timeline: TimelineId,
    },
    /// No backup has the WAL it needs.
    NothingRestorable,
    /// A job did not end, and nothing is heard of it.
    JobSilent {
        /// What it does.
        job: String,
        /// The id of what it makes.
        #[serde(with = "crate::as_text")]
        id: BackupId,
        /// Where it began.
        host: String,
    },
}

impl Remark {
    /// Why nothing is known of the server.
    pub(super) fn of_unasked(error: &Error) -> Self {
        let why = error.chain();
        match error.code() {
            Code::ConninfoInvalid | Code::NotConfigured => Self::ServerNotAsked { why },
            Code::ClusterMismatch => Self::ServerOfAnotherCluster { why },
            code => {
                let help = error.hint().filter(|_| code == Code::PrivilegeMissing).cloned();
                Self::ServerSilent { why, help }
            }
        }
    }

    /// The remark for a person, and what to do where that is certain.
    #[must_use]
    pub fn told(&self, cluster: Option<&ClusterName>) -> Hint {
        let backup = || Action::Backup { cluster: cluster.cloned() };
        match self {
            Self::Unseen { why } | Self::ServerOfAnotherCluster { why } => why.as_str().into(),
            Self::RepositoryNamedTwice { names } => names.as_str().into(),
            Self::BackupDamaged { id } => format!("backup {id} is damaged").into(),
            Self::BackupUnreadable { id } => {
                format!("backup {id} cannot be read: nobody knows whether it is whole").into()
            }
            Self::BackupOfOtherFormat { id } => {
                format!("backup {id} is of a format that this Seawall does not read").into()
            }
            Self::NoBackup => hint!["no backup yet: ", backup()],
            Self::NoBackupSinceAdoption => {
                hint!["no backup since the server was adopted: ", backup()]
            }
            Self::NoWholeBackup => hint!["no backup is known to be whole: ", backup()],
            Self::Foreign(foreign) => foreign.told(cluster),
            Self::InRepository { repository, remark } => {
                hint![format!("repository {repository}: "), remark.told(cluster)]
            }
            Self::DamagedPages { pages, id } => {
                let pages = counted(*pages, "damaged page");
                format!("{pages} in the database, as of backup {id}").into()
            }
            Self::Incidents { blocks, id } => {
                let blocks = counted(*blocks, "block");
                hint![
                    format!("backup {id} met {blocks} that WAL does not account for (SW0411): see "),
                    Action::Show { backup: id.to_string() },
                    ", and read everything once: ",
                    Action::FullBackup { cluster: cluster.cloned() }
                ]
            }
            Self::BackupFromTheFuture { id, finished_at } => format!("nobody knows how old the newest backup is: {id} ended at {}, which is not yet: a clock is wrong or was",
                shown_utc(*finished_at)
            ).into(),
            Self::BackupOld { age } => {
                format!("the newest backup is {} old", shown_duration(*age)).into()
            }
            Self::ServerLeftBehind { server, archived } => format!("the server writes timeline {server}, and timeline {archived} is archived: if another \
                 server was promoted, stop this one and point `connection` and `data_directory` there; \
                 if this one is the primary, stop the other (SW0609)"
            ).into(),
            Self::NoBackupOfTimeline { backup: of, newest } => {
                let what = format!(
                    "no backup since the server was restored or promoted: the newest is of timeline \
                     {of}, and the newest timeline is {newest}; take a backup: "
                );
                hint![what, backup()]
            }
            Self::ServerNotAsked { why } => format!("the server was not asked: {why}").into(),
            Self::ServerSilent { why, help: None } => {
                format!("the server does not answer: {why}").into()
            }
            Self::ServerSilent { why, help: Some(help) } => {
                hint![format!("the server does not answer: {why} ("), help.clone(), ")"]
            }
            Self::AnotherArchiver => ANOTHER_ARCHIVER.into(),
            Self::ArchivesNothing { waits_for_restart: true } => Hint::from(
                "PostgreSQL archives nothing: archive_mode takes effect with the restart",
            ),
            Self::ArchivesNothing { waits_for_restart: false } => Hint::from(
                "PostgreSQL archives nothing: archive_mode or archive_command is not set",
            ),
            Self::ArchiverFails { wal } => {
                format!("the archiver fails on {wal}: PostgreSQL's log says why").into()
            }
            Self::ArchiverHeldUp(hold) => hold.told(),
            Self::Contradicted(contradiction) => contradiction.told(),
            Self::NothingArchived => Hint::from("no WAL was ever archived"),
            Self::AtRisk { commits_of } => {
                format!("up to {} of commits cannot be restored", shown_duration(*commits_of)).into()
            }
            Self::Unusable(UnusableWal { repository, message, .. }) => hint![
                format!(
                    "nothing newer can be restored from {repository}: {message}; take a backup: "
                ),
                backup()
            ],
            Self::HistoryDamaged { repository, timeline, told_by: Some(other) } => hint![
                format!("the history of timeline {timeline} is damaged in {repository}, and that of timeline {other} tells the same: "),
                Action::ListWal,
                " says how to replace it"
            ],
            Self::HistoryDamaged { repository, timeline, told_by: None } => hint![
                format!("the history of timeline {timeline} is damaged in {repository}: it cannot be restored from there, and takes no WAL: "),
                Action::ListWal,
                " says how to replace it"
            ],
            Self::HistoryMissing { repository, timeline } => hint![
                format!("the history of timeline {timeline} is missing in {repository}, which has WAL of it: nobody knows where it began, and a restore has to be told which timeline is meant: "),
                Action::ListWal,
                " says how to store it"
            ],
            Self::NothingRestorable => {
                hint!["no backup has the WAL it needs: none can be restored; take one: ", backup()]
            }
            Self::JobSilent { job, id, host } => format!("{job} {id} on {host} did not finish; the next one takes over what it copied"
            ).into(),
        }
    }
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
