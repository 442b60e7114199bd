//! `archive_command`.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use seawall_core::{
    Action, BranchNumber, ClusterName, Code, Error, Result, SystemId, WalFileName, WalSegment,
    WalSegmentSize, hint,
};
use seawall_pgdata::PgMajor;
use seawall_pgdata::wal::PageHeader;
use seawall_pgdata::wal::page::LONG_HEADER_BYTES;
use seawall_repo::wal::{HistoryStored, LsnRange, SegmentKind, WalArchive};

use super::WalPlace;
use crate::restored::{Mode, RestoreState};

/// A file PostgreSQL wants archived.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The cluster it is said to be of.
    pub cluster: ClusterName,
    /// The file: `%p`.
    pub path: PathBuf,
    /// Where it has to be durable before the push succeeds.
    pub places: Vec<WalPlace>,
    /// What `pg_control` in the cluster's data directory says, if it is at hand. A segment tells
    /// it itself; history files do not.
    pub system_id: Option<SystemId>,
    /// The branch the server writes ([`crate::line_note`]), if its data directory is at hand.
    pub branch: Option<BranchNumber>,
    /// A segment is the last one of a server that is gone: it is taken up to its last whole record,
    /// as a `.partial` one is.
    pub partial: bool,
}

/// What one repository made of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacePushed {
    /// The repository's name.
    pub name: String,
    /// How many bytes of WAL were not there before; for a history file 0, or its length.
    pub new_bytes: u64,
    /// What of a segment is WAL; empty for a history file.
    pub wal: Option<LsnRange>,
}

/// A file that is durable in every repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushReport {
    /// What it is.
    pub file: String,
    /// In the order of the request.
    pub places: Vec<PlacePushed>,
}

/// Archives a file. Succeeds only once every repository has all of it, durably; what some of them
/// stored stays when another fails, and the same push again completes it.
///
/// # Errors
/// [`Code::NotWal`] for a file PostgreSQL does not archive, [`Code::LocalIo`] if it cannot be read,
/// [`Code::WalWrongCluster`], also for a clone's, [`Code::WalDamaged`], [`Code::WalConflict`],
/// [`Code::WalDiscontinuous`], [`Code::HistoryConflict`], and whatever keeps a repository from
/// taking it; the message names the repository.
pub async fn push(request: &PushRequest) -> Result<PushReport> {
    let name = file_name(&request.path)?;
    if request.places.is_empty() {
        let what = format!("{name} has no repository to go to");
        return Err(Error::new(Code::NotConfigured, what)
            .with_hint("Name a repository in the configuration of the cluster."));
    }
    let path = request.path.clone();
    let read = move || refuse_clone(&path).and_then(|()| read_file(&path));
    let bytes = tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Error::new(Code::Internal, "reading failed").with_source(error))??;
    let system_id = match lenient(&name) {
        Some(WalFileName::Segment(_) | WalFileName::Partial(_)) => {
            Some(system_id_of(&name, &bytes)?)
        }
        _ => request.system_id,
    };
    let pushes = request.places.iter().map(async |place| {
        let archive = place.archive(&request.cluster, system_id, request.branch).await;
        let pushed = match archive {
            Ok(archive) => push_to(place, &archive, request.partial, &name, &bytes).await,
            Err(error) => Err(error),
        };
        pushed.map_err(|error| error.context(format_args!("repository {}", place.name)))
    });
    let mut places = Vec::new();
    let mut failures = Vec::new();
    for pushed in join_all(pushes).await {
        match pushed {
            Ok(pushed) => places.push(pushed),
            Err(error) => failures.push(error),
        }
    }
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(PushReport { file: name, places }) };
    let others: Vec<String> = failures.map(|error| error.chain()).collect();
    if others.is_empty() { Err(first) } else { Err(first.context(others.join("; "))) }
}

async fn push_to(
    place: &WalPlace,
    archive: &WalArchive,
    partial: bool,
    name: &str,
    bytes: &[u8],
) -> Result<PlacePushed> {
    let file = WalFileName::parse(name, archive.segment_size()).ok_or_else(|| not_wal(name))?;
    let (segment, kind) = match file {
        WalFileName::Segment(segment) if !partial => (segment, SegmentKind::Whole),
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
            (segment, SegmentKind::Partial)
        }
        WalFileName::TimelineHistory(_) | WalFileName::BackupHistory(..) => {
            let new_bytes = match archive.store_history(file, bytes).await? {
                HistoryStored::Stored => bytes.len() as u64,
                HistoryStored::AlreadyThere => 0,
            };
            return Ok(PlacePushed { name: place.name.clone(), new_bytes, wal: None });
        }
    };
    if kind == SegmentKind::Partial {
        refuse_recycled(name, segment, bytes)?;
    }
    let stored = archive.store_segment(segment, kind, bytes).await?;
    let wal = LsnRange { start: segment.start(), end: stored.valid_to };
    Ok(PlacePushed { name: place.name.clone(), new_bytes: stored.new_bytes(), wal: Some(wal) })
}

/// PostgreSQL keeps old segments under the names of later ones, to write over them
/// (`InstallXLogFileSegment`, xlog.c). Of a server that is gone they are all that is left there.
fn refuse_recycled(name: &str, segment: WalSegment, bytes: &[u8]) -> Result<()> {
    let first = bytes.get(..LONG_HEADER_BYTES).map(PageHeader::parse);
    let Some(Ok(header)) = first else { return Ok(()) };
    if header.address >= segment.start() {
        return Ok(());
    }
    let what = format!(
        "{name} is an old segment, from LSN {}, that PostgreSQL kept for later use: nothing was written to it under this name",
        header.address
    );
    Err(Error::new(Code::WalDamaged, what)
        .with_hint("Nothing of it is lost, and nothing is to be done: go on with the other files."))
}

/// The file's name, if it is one PostgreSQL archives.
fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    lenient(name).map(|_| name.to_owned()).ok_or_else(|| not_wal(&path.display().to_string()))
}

/// What a name means at some segment size; the cluster's own is not known yet.
fn lenient(name: &str) -> Option<WalFileName> {
    WalFileName::parse(name, WalSegmentSize::new(1 << 20).ok()?)
}

fn not_wal(name: &str) -> Error {
    Error::new(Code::NotWal, format!("{name} is not a file PostgreSQL archives")).with_hint(hint![
        "archive_command has to pass %p, the path of the file: ",
        Action::ArchiveCommand,
        "."
    ])
}

/// A clone's settings keep it from archiving, and settings can be reset. What its state file says
/// stays: it must never write where production does.
fn refuse_clone(path: &Path) -> Result<()> {
    // PGDATA/pg_wal/NAME
    let Some(data_directory) = path.parent().and_then(Path::parent) else { return Ok(()) };
    if RestoreState::read(data_directory)?.is_none_or(|state| state.mode() != Mode::Clone) {
        return Ok(());
    }
    let what = format!(
        "{} is of a cluster that was restored as a clone, and a clone does not archive",
        path.display()
    );
    Err(Error::new(Code::WalWrongCluster, what).with_hint(
        hint!["Turn its archiving off: `ALTER SYSTEM SET archive_mode = off`. If it is to take production's place: ", Action::Adopt { cluster: None }, " gives it a line of its own."],
    ))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| {
        Error::new(Code::LocalIo, format!("cannot read {}", path.display()))
            .with_source(error)
            .with_hint("archive_command runs in the data directory, as the server's user.")
    };
    // Without waiting: a pipe has another end, which may never come.
    let without_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::File::options().read(true).custom_flags(without_waiting).open(path);
    let file = file.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(not_wal(&path.display().to_string()));
    }
    // The largest segment there is; a longer file is refused by its length, not read.
    let limit = (1u64 << 30) + 1;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(limit)).unwrap_or(0));
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// What the first page of a segment says.
fn system_id_of(name: &str, bytes: &[u8]) -> Result<SystemId> {
    let damaged = |what: String| {
        Error::new(Code::WalDamaged, format!("{name} cannot be archived: {what}")).with_hint(
            "PostgreSQL pushes the segment again until it succeeds; check the disk and pg_wal.",
        )
    };
    if bytes.is_empty() {
        return Err(damaged("it is empty".to_owned()));
    }
    let first = bytes
        .get(..LONG_HEADER_BYTES)
        .ok_or_else(|| damaged(format!("it has only {} bytes", bytes.len())))?;
    let header = PageHeader::parse(first).map_err(|error| damaged(error.to_string()))?;
    if PgMajor::from_wal_page_magic(header.magic).is_none() {
        let what = format!(
            "{name} is not WAL of a known PostgreSQL: its first bytes are {:04X}",
            header.magic
        );
        return Err(Error::new(Code::NotWal, what)
            .with_hint("A newer major needs a newer Seawall; anything else is no WAL segment."));
    }
    header
        .long
        .map(|long| long.system_id)
        .ok_or_else(|| damaged("its first page has no long header".to_owned()))
}
