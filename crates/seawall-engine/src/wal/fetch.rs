//! `restore_command`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use seawall_core::{
    Action, Code, Error, ExitClass, Hint, Lsn, Result, TimelineId, WalFileName, WalSegment,
    WalSegmentSize, hint,
};
use seawall_pgdata::history::{Ancestry, TimelineSpan};
use seawall_pgdata::wal::TablespaceChange;
use seawall_repo::Line;
use seawall_repo::wal::{SegmentRead, WalArchive};

use super::beside::put_parents;
use super::keeping::{cut_off, kept_history, never_exists, no_first_history, timeline_of_history};
use super::server::RecoveringServer;
use super::wanted::{RestorePath, Wanted};
use crate::durable::{Survives, put_beside};
use crate::restored::OwnPlaces;

/// What recovery calls the file it wants a history in.
const RECOVERY_HISTORY: &str = "RECOVERYHISTORY";

/// A file PostgreSQL wants from the archive.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// The cluster's line in each repository that may have it, asked in this order.
    pub lines: Vec<Line>,
    /// The file: `%f`.
    pub name: String,
    /// Where it has to be put: `%p`.
    pub destination: PathBuf,
    /// What the state file of the restore tells, if the server runs on a restored directory.
    pub path: Option<RestorePath>,
    /// The server is a standby, which asks again for what is not there yet.
    pub standby: bool,
}

/// Puts a file where PostgreSQL wants it: whole, verified, and under its name only when complete.
///
/// # Errors
/// [`Code::WalPastEnd`] alone means that the file is proven not to exist, so that recovery may end
/// there: a segment or a damaged history the restore does not use or that lies past its planned end, a
/// history that is not archived, or for a standby what the archive does not have yet. Everything else is another
/// error, on which recovery must stop: [`Code::WalMissing`] and [`Code::WalGap`] for WAL that ought
/// to be there, [`Code::NotWal`], [`Code::WalWrongCluster`], damage, a store or disk that fails.
pub async fn fetch(request: &FetchRequest) -> Result<()> {
    let server = RecoveringServer::at(&request.destination);
    let request = &FetchRequest { path: path_in_force(request, &server), ..request.clone() };
    leave_nothing_behind_the_end(request, &server)?;
    let (mut past_end, mut failure, mut stand_in) = (None, None, None);
    for line in &request.lines {
        match content(request, &server, line).await {
            Ok(content) if content.is_stand_in => stand_in = Some(content),
            Ok(content) => {
                refuse_strangers(request, &server, line, &content).await?;
                return put_content(request, content).await;
            }
            Err(error) if error.code() == Code::WalPastEnd => past_end = Some(error),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    // One repository's "there is none" says nothing as long as another did not answer.
    match (failure, stand_in) {
        (Some(failure), _) => Err(failure),
        (None, Some(content)) => put_content(request, content).await,
        (None, None) => Err(past_end.unwrap_or_else(|| no_repository(request))),
    }
}

async fn put_content(request: &FetchRequest, content: Content) -> Result<()> {
    let destination = request.destination.clone();
    tokio::task::spawn_blocking(move || content.put(&destination))
        .await
        .map_err(|error| Error::new(Code::Internal, "writing failed").with_source(error))?
}

fn no_repository(request: &FetchRequest) -> Error {
    Error::new(Code::NotConfigured, format!("{} has no repository to come from", request.name))
        .with_hint(hint![
            "Name a repository: ",
            Action::RestoreCommand { names_repository: true, standby: request.standby },
            "."
        ])
}

/// Answers what needs no archive: PostgreSQL asks for it when nothing may stop it any more (see
/// `keeping`). `false` if an archive has to be asked.
///
/// # Errors
/// [`Code::WalPastEnd`] if there can be no such file; [`Code::LocalIo`].
pub fn fetch_kept(name: &str, destination: &Path) -> Result<bool> {
    if never_exists(name) {
        return Err(no_first_history(name));
    }
    let kept = timeline_of_history(name)
        .filter(|_| RecoveringServer::at(destination).is_ending())
        .and_then(|timeline| kept_history(destination, timeline));
    kept.map_or(Ok(false), |bytes| put(destination, &bytes).map(|()| true))
}

/// A restore asks for the history of the timeline behind its own when it has replayed all that was
/// wanted, and chooses a number for its own; PostgreSQL does so as it starts only for a timeline
/// named `latest`, which a restore never is.
fn leave_nothing_behind_the_end(request: &FetchRequest, server: &RecoveringServer) -> Result<()> {
    let Some(path) = request.path.as_ref().filter(|_| !request.standby) else { return Ok(()) };
    let asked = timeline_of_history(&request.name);
    let (Some(tip), Some(end), Some(control)) =
        (path.spans.last(), path.stop_before, server.control.as_ref())
    else {
        return Ok(());
    };
    if asked.is_none_or(|asked| asked <= tip.timeline) {
        return Ok(());
    }
    let last = WalSegment::containing(tip.timeline, end, control.wal_segment_size);
    cut_off(&request.destination, last, end)
}

/// The way of the restore that the server is in. `pg_control` tells one that is over: a directory
/// copied from a restored cluster has the state file too, and is recovered to somewhere else.
pub(super) fn path_in_force(
    request: &FetchRequest,
    server: &RecoveringServer,
) -> Option<RestorePath> {
    let path = request.path.as_ref()?;
    let control = server.control.as_ref();
    let is_over = control.is_some_and(|control| path.is_over(control.checkpoint_timeline));
    (!is_over).then(|| path.clone())
}

/// What PostgreSQL gets.
#[derive(Debug)]
struct Content {
    bytes: Vec<u8>,
    /// Of a segment: which it is, and who wrote what of it.
    segment: Option<(WalSegment, Vec<TimelineSpan>)>,
    /// What the segment's records do to tablespaces.
    tablespaces: Vec<TablespaceChange>,
    /// It says no more than that there is a file of the name. Another repository may have it.
    is_stand_in: bool,
}

impl Content {
    fn of_segment(read: SegmentRead, segment: WalSegment, spans: Vec<TimelineSpan>) -> Self {
        let segment = Some((segment, spans));
        Self { bytes: read.bytes, segment, tablespaces: read.tablespaces, is_stand_in: false }
    }

    const fn of_history(bytes: Vec<u8>) -> Self {
        Self { bytes, segment: None, tablespaces: Vec::new(), is_stand_in: false }
    }

    /// For a restore that only wants to know whether the number is taken.
    ///
    /// Not for a standby, which asks for the same name when it looks for a timeline to follow
    /// (`rescanLatestTimeLine`, xlogrecovery.c) and when it is promoted (`findNewestTimeLine`), and
    /// nothing tells the two apart. It keeps in `pg_wal` what it gets, and then neither asks its primary
    /// for the real one (`WalRcvFetchTimeLineHistoryFiles`, walreceiver.c) nor follows it onto that
    /// timeline: "new timeline 2 is not a child of database system timeline 1" (seen on 12 and 18). So
    /// `pg_promote` may choose a number whose history is missing; `seawall promote` refuses.
    fn stand_in(timeline: TimelineId, why: &str) -> Self {
        let text = format!("# timeline {timeline} is taken: {why}\n");
        Self { is_stand_in: true, ..Self::of_history(text.into_bytes()) }
    }

    fn put(&self, destination: &Path) -> Result<()> {
        if let Some((segment, spans)) = &self.segment {
            put_parents(destination, *segment, spans, &self.bytes)?;
        }
        put(destination, &self.bytes)
    }
}

/// A server that replays makes tablespaces wherever the log says, on production's machine in
/// production's directories. What lies behind the planned end is not replayed.
async fn refuse_strangers(
    request: &FetchRequest,
    server: &RecoveringServer,
    line: &Line,
    content: &Content,
) -> Result<()> {
    let path = request.path.as_ref().filter(|_| !request.standby);
    let end = path.map_or(Lsn(u64::MAX), |path| path.stop_before.unwrap_or(path.wal_end));
    let is_replayed = |change: &&TablespaceChange| change.lsn < end;
    let replayed: Vec<_> = content.tablespaces.iter().filter(is_replayed).cloned().collect();
    // Without a data directory nobody replays: it was asked for by hand.
    let (Some(first), Some(control)) = (replayed.first(), &server.control) else { return Ok(()) };
    let own = OwnPlaces::of_directory(&server.data_directory)?;
    let Err(refused) = own.clone().refuse_strangers(&replayed) else { return Ok(()) };
    let Some((segment, _)) = content.segment else { return Err(refused) };
    // Since 15 a segment is asked for before those before it are replayed (xlogprefetcher.c): what
    // they drop stands there still.
    let archive = WalArchive::open(line.clone()).await?;
    let ancestry = archive.ancestry(segment.timeline).await?;
    let from = control.redo.min(first.lsn);
    let earlier = archive.tablespace_changes(&ancestry, from, first.lsn).await?;
    let dropped = earlier.into_iter().filter(|change| change.created_in.is_none());
    let all: Vec<_> = dropped.chain(replayed).collect();
    own.refuse_strangers(&all).map_err(|_| refused)
}

async fn content(
    request: &FetchRequest,
    server: &RecoveringServer,
    line: &Line,
) -> Result<Content> {
    if let Some(path) = request.path.as_ref().filter(|path| path.line != line.id()) {
        let what = format!(
            "the directory was restored from line {}, and {} is asked for WAL of line {}",
            path.line,
            line.store().url(),
            line.id()
        );
        return Err(Error::new(Code::WalWrongCluster, what)
            .with_hint("Let restore_command name the cluster the directory was restored from."));
    }
    let archive = WalArchive::open(line.clone()).await?;
    match WalFileName::parse(&request.name, archive.segment_size()) {
        Some(WalFileName::Segment(segment)) => segment_content(request, &archive, segment).await,
        Some(WalFileName::TimelineHistory(timeline)) => {
            history_content(request, server, &archive, timeline).await
        }
        Some(WalFileName::Partial(_) | WalFileName::BackupHistory(..)) => {
            Err(not_served(&request.name, "recovery never needs such a file"))
        }
        None => Err(not_served(&request.name, wrong_name(archive.segment_size()))),
    }
}

async fn history_content(
    request: &FetchRequest,
    server: &RecoveringServer,
    archive: &WalArchive,
    timeline: TimelineId,
) -> Result<Content> {
    let path = request.path.as_ref();
    let history = match archive.timeline_history(timeline).await {
        Ok(history) => history,
        Err(failure) => return beside_the_restore(request, timeline, failure),
    };
    let Some(file) = history else {
        if path.is_some_and(|path| path.needs_history_of(timeline)) {
            return Err(missing(format!(
                "{} is not archived, and the restore goes along its timeline",
                request.name
            )));
        }
        // There is WAL of it: whoever began it has the number.
        let is_beside = path.filter(|_| !request.standby).and_then(|path| path.spans.last());
        if is_beside.is_some_and(|tip| tip.timeline < timeline)
            && archive.timelines().await?.contains(&timeline)
        {
            return Ok(Content::stand_in(timeline, "its history is missing"));
        }
        return Err(past_end(format!("{} is not archived", request.name)));
    };
    if let Some(path) = path.filter(|_| request.standby)
        && !is_shown(path, server, archive, &archive.ancestry(timeline).await?).await?
    {
        forget_kept(request, &file.content);
        return Err(past_end(format!(
            "{} is not for this standby: timeline {timeline} left its way before {}",
            request.name, path.wal_end
        )));
    }
    Ok(Content::of_history(file.content.into()))
}

/// What a restore gets for the history of a timeline that it does not go along, if that is damaged.
///
/// PostgreSQL asks for those of lower numbers to keep them, and does without
/// (`restoreTimeLineHistoryFiles`, timeline.c, 12–18); for those of higher numbers to learn which are
/// taken, and does not read them (`existsTimeLineHistory`). A standby may have to follow it.
fn beside_the_restore(
    request: &FetchRequest,
    timeline: TimelineId,
    failure: Error,
) -> Result<Content> {
    let is_damage = failure.exit_class() == ExitClass::Integrity;
    let path = request.path.as_ref().filter(|_| is_damage && !request.standby);
    let beside = path.filter(|path| !path.needs_history_of(timeline));
    match beside.and_then(|path| path.spans.last()) {
        None => Err(failure),
        Some(tip) if timeline < tip.timeline => Err(past_end(failure.chain())),
        Some(_) => Ok(Content::stand_in(timeline, &failure.chain())),
    }
}

/// A server keeps a history that it read, in `pg_wal`, and takes that where the archive has none
/// (`RestoreArchivedFile`, 12–18). It may have read this one as it ran.
fn forget_kept(request: &FetchRequest, archived: &[u8]) {
    let wanted = request.destination.file_name().is_some_and(|name| name == RECOVERY_HISTORY);
    let kept = request.destination.with_file_name(&request.name);
    // Another content is not the archive's, and may be all there is of it.
    if wanted && fs::read(&kept).is_ok_and(|bytes| bytes == archived) {
        match fs::remove_file(&kept) {
            Ok(()) => tracing::info!(path = %kept.display(), "removed; the archive has it"),
            Err(error) => tracing::warn!(path = %kept.display(), %error, "could not be removed"),
        }
    }
}

/// Whether a restored standby learns that there is such a timeline.
///
/// As it starts, it goes along the newest one of an unbroken row of numbers, whatever that descends
/// from (`findNewestTimeLine`, 12–18): one that went another way is no more than a stepping stone.
/// Later it follows only children of its own that begin where it has not been yet
/// (`rescanLatestTimeLine`), and has to know all others, or takes a number that is taken when it is
/// promoted.
async fn is_shown(
    path: &RestorePath,
    server: &RecoveringServer,
    archive: &WalArchive,
    ancestry: &Ancestry,
) -> Result<bool> {
    if path.leads_to(ancestry) {
        return Ok(true);
    }
    if !server.is_starting {
        let fork = path.spans.last().and_then(|tip| ancestry.fork_lsn_of(tip.timeline));
        let been_to = server.control.as_ref().map(|control| control.min_recovery_point);
        return Ok(fork.is_none_or(|fork| been_to.is_some_and(|lsn| lsn > fork)));
    }
    let all = archive.ancestries().await?;
    if all.known.iter().any(|other| other.tip() > ancestry.tip() && path.leads_to(other)) {
        return Ok(true);
    }
    let lost = all.lost().find(|lost| lost.timeline > ancestry.tip());
    lost.map_or(Ok(false), |lost| Err(lost.error()))
}

async fn segment_content(
    request: &FetchRequest,
    archive: &WalArchive,
    segment: WalSegment,
) -> Result<Content> {
    let Some(path) = &request.path else {
        return archived_content(request, archive, segment).await;
    };
    match path.wants(segment) {
        Wanted::Needed { spans, until } => {
            // A standby reads on behind the planned end as soon as there is more, but never behind
            // a fork.
            let on_the_way = || path.spans_to(segment.timeline);
            let spans = request.standby.then(on_the_way).flatten().unwrap_or(spans);
            let read = archive.read_segment(segment, &spans).await?.ok_or_else(|| {
                missing(format!("segment {segment}, which the restore needs, is not archived"))
            })?;
            if read.covered_to < until {
                return Err(gap(format!(
                    "segment {segment} is archived up to {} only, and the restore needs it up to {until}",
                    read.covered_to
                )));
            }
            Ok(Content::of_segment(read, segment, spans))
        }
        // A standby follows its primary past what was known when it was restored.
        Wanted::Unused(_) if request.standby && !path.has_left(segment) => {
            archived_content(request, archive, segment).await
        }
        Wanted::Unused(why) => Err(past_end(format!("there is no segment {segment}: {why}"))),
    }
}

/// Without a plan only a whole segment is beyond doubt. What a standby lacks, it asks for again.
async fn archived_content(
    request: &FetchRequest,
    archive: &WalArchive,
    segment: WalSegment,
) -> Result<Content> {
    let on_the_way = request.path.as_ref().and_then(|path| path.spans_to(segment.timeline));
    let spans = match on_the_way {
        Some(spans) => spans,
        None => archive.ancestry(segment.timeline).await?.spans().collect(),
    };
    let own = spans.last();
    let begin = own.map(|own| own.begin).unwrap_or_default();
    let whole = own.and_then(|own| own.end).map_or(segment.end(), |end| end.min(segment.end()));
    let read =
        if segment.end() <= begin { None } else { archive.read_segment(segment, &spans).await? };
    let covered_to = read.as_ref().map(|read| read.covered_to);
    let content = |read| Content::of_segment(read, segment, spans);
    match read {
        Some(read) if read.covered_to >= whole => return Ok(content(read)),
        _ if !request.standby => {}
        _ if segment.end() > begin
            && archive.has_wal_from(segment.timeline, segment.end()).await? =>
        {
            let what = format!("segment {segment} is not archived, and later ones are");
            return Err(gap(what));
        }
        Some(read) => return Ok(content(read)),
        None => return Err(past_end(format!("segment {segment} is not archived yet"))),
    }
    let what = match covered_to {
        Some(end) => format!("segment {segment} is archived up to {end} only"),
        None => format!("segment {segment} is not archived"),
    };
    Err(missing(what))
}

/// Puts what PostgreSQL asked for where it wants it. A power cut may leave it empty: recovery asks again
/// for what it wants.
fn put(destination: &Path, bytes: &[u8]) -> Result<()> {
    put_beside(destination, bytes, Survives::Crash).map_err(|error| not_written(error, destination))
}

/// As [`put`], for a file nobody asks for again: it is whole under its name after a power cut too.
pub(super) fn put_durably(destination: &Path, bytes: &[u8]) -> Result<()> {
    put_beside(destination, bytes, Survives::PowerCut)
        .map_err(|error| not_written(error, destination))
}

fn not_written(error: io::Error, destination: &Path) -> Error {
    Error::new(Code::LocalIo, format!("cannot write {}", destination.display()))
        .with_source(error)
        .with_hint("restore_command runs in the data directory; check its owner and its room.")
}

fn past_end(what: String) -> Error {
    Error::new(Code::WalPastEnd, what)
}

fn missing(what: String) -> Error {
    Error::new(Code::WalMissing, what).with_hint(look_there())
}

fn gap(what: String) -> Error {
    Error::new(Code::WalGap, what).with_hint(look_there())
}

fn look_there() -> Hint {
    hint!["Run ", Action::ListWal, " to see what is there; another repository may hold it."]
}

fn not_served(name: &str, why: impl std::fmt::Display) -> Error {
    Error::new(Code::NotWal, format!("{name} is not served: {why}")).with_hint(hint![
        "restore_command has to pass %f and %p: ",
        Action::RestoreCommand { names_repository: false, standby: false },
        "."
    ])
}

fn wrong_name(size: WalSegmentSize) -> String {
    format!("it is not the name of a WAL file of segments of {} bytes", size.bytes())
}
