//! What keeps objects from being deleted while this process uses them.
//!
//! A reader says before it begins which backups it reads, and that it lives while it does. Only then
//! it looks whether they are to be deleted: who deletes looks for pins first, and last of all takes
//! away what tells that something goes.

use jiff::Timestamp;
use seawall_core::{BackupId, Code, ExitClass, Lsn, Result, TimelineId, Ulid};
use seawall_repo::layout::LineObject;
use seawall_repo::manifest::Page;
use seawall_repo::records::{Pin, PinRole};
use seawall_repo::{Line, new_ulid};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::host::{Host, Process};
use crate::liveness::{HEARTBEAT, Running};

/// A record of this process that names no objects of its own.
pub(crate) fn own_pin(role: PinRole, purpose: &str, backups: Vec<Ulid>) -> Pin {
    let host = Host::this();
    Pin {
        role,
        host: host.name,
        boot_id: host.boot_id,
        process_id: std::process::id(),
        time_us: Timestamp::now().as_microsecond(),
        purpose: purpose.to_owned(),
        start_lsn: Lsn::INVALID,
        start_timeline: TimelineId(0),
        copied_until: Lsn::INVALID,
        packs: Vec::new(),
        maps: Vec::new(),
        files: Page::default(),
        backups,
        process_started: Process::this().started,
        namespaces: host.namespaces,
        manifests: Vec::new(),
        ended_us: None,
    }
}

/// A pin of this process, which lives until it is dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    line: Line,
    id: BackupId,
    beats: JoinHandle<()>,
    _running: Running,
}

impl Pinned {
    /// Writes the pin: from now on it is seen.
    ///
    /// # Errors
    /// A store that fails, or that is read only.
    pub async fn begin(
        line: &Line,
        role: PinRole,
        purpose: &'static str,
        backups: Vec<Ulid>,
    ) -> Result<Self> {
        let id = BackupId(new_ulid(Timestamp::now())?);
        let running = Running::begin(id)?;
        let (own, of_beats) = (line.clone(), line.clone());
        write(line, id, 0, &own_pin(role, purpose, backups.clone())).await?;
        let beats = tokio::spawn(async move {
            for number in 1.. {
                sleep(HEARTBEAT).await;
                let pin = own_pin(role, purpose, backups.clone());
                if let Err(error) = write(&of_beats, id, number, &pin).await {
                    tracing::warn!(error = error.chain(), "a sign of life was not written");
                }
            }
        });
        Ok(Self { line: own, id, beats, _running: running })
    }

    /// Its id.
    pub const fn id(&self) -> BackupId {
        self.id
    }

    /// When it was begun, by the clock of the store.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn began(&self) -> Result<Timestamp> {
        let path = self.line.paths().path(&LineObject::Pin(self.id.0, 0))?;
        Ok(self.line.store().stat(&path).await?.modified)
    }

    /// Takes the pin away. One that stays counts as dead after a while, and is swept then.
    pub async fn end(self) {
        self.beats.abort();
        if let Err(error) = self.line.unpin(self.id.0).await {
            tracing::warn!(error = error.chain(), "a pin was not removed");
        }
    }

    /// As [`Pinned::end`], if there is one.
    pub async fn end_any(pinned: Option<Self>) {
        if let Some(pinned) = pinned {
            pinned.end().await;
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

/// Keeps backups from being deleted while they are read. A repository that cannot be written to is
/// read without: what is deleted from it has stayed for its grace before.
pub(crate) async fn pin_read(
    line: &Line,
    purpose: &'static str,
    backups: Vec<Ulid>,
) -> Option<Pinned> {
    let pinned = Pinned::begin(line, PinRole::Reader, purpose, backups).await;
    let told = pinned.inspect_err(|error| {
        tracing::warn!(error = error.chain(), "what is read is not kept from being deleted");
    });
    told.ok()
}

/// Keeps a backup from being deleted while it is restored, as far as the repository can be written to.
///
/// # Errors
/// As [`refuse_going`].
pub(crate) async fn pin_restored(
    line: &Line,
    id: BackupId,
    generation: u32,
) -> Result<Option<Pinned>> {
    let pinned = pin_read(line, "restore", vec![id.0]).await;
    match refuse_going(line, id, generation).await {
        Ok(()) => Ok(pinned),
        Err(error) => {
            Pinned::end_any(pinned).await;
            Err(error)
        }
    }
}

/// Refuses to read a backup that is to be deleted, as far as that is known: damage elsewhere keeps
/// none from being restored.
///
/// # Errors
/// [`Code::Condemned`], or a store that fails.
pub(crate) async fn refuse_going(line: &Line, id: BackupId, generation: u32) -> Result<()> {
    let commit = LineObject::Backup(id, generation);
    match line.refuse_condemned(std::iter::once(commit)).await {
        Err(error)
            if error.exit_class() == ExitClass::Integrity
                || error.code() == Code::UnknownFormat =>
        {
            tracing::warn!(error = error.chain(), "whether the backup is to be deleted is unknown");
            Ok(())
        }
        asked => asked,
    }
}

async fn write(line: &Line, id: BackupId, number: u32, pin: &Pin) -> Result<()> {
    let path = line.paths().path(&LineObject::Pin(id.0, number))?;
    line.repository().create_record(&path, pin).await
}
