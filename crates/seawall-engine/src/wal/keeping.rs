//! What a recovering data directory has in its own keeping: the end of recovery depends on no
//! archive that may be away by then.
//!
//! When recovery ends, PostgreSQL asks for the last segment once more, then for the history of the
//! next timeline; it copies what it needs of the last segment, **removes its signal file**, and asks
//! for the history of the timeline it comes from (seen on 12–18). An answer that stops it there
//! leaves a directory whose next start is no recovery any more: it replays whatever is in `pg_wal`,
//! past a target too, and takes writes on the old timeline.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Lsn, Result, TimelineId, WalFileName, WalSegment};
use seawall_pgdata::history::Ancestry;

use super::server::{RECOVERY_SIGNAL, RecoveringServer, STANDBY_SIGNAL};
use crate::durable::{local, publish};
use crate::restored::{Mode, RestoreState};

/// The first timeline of every cluster, which has no history (`readTimeLineHistory`, timeline.c).
const FIRST: TimelineId = TimelineId(1);

/// Whether a file cannot exist, whatever any archive says.
pub(super) fn never_exists(name: &str) -> bool {
    timeline_of_history(name) == Some(FIRST)
}

/// The timeline whose history has that name.
pub(super) fn timeline_of_history(name: &str) -> Option<TimelineId> {
    let size = seawall_core::WalSegmentSize::DEFAULT;
    match WalFileName::parse(name, size)? {
        WalFileName::TimelineHistory(timeline) => Some(timeline),
        _ => None,
    }
}

/// A history that the server read before and keeps in `pg_wal` (`KeepFileRestoredFromArchive`,
/// 12–18). What is there never changes.
pub(super) fn kept_history(destination: &Path, timeline: TimelineId) -> Option<Vec<u8>> {
    let name = WalFileName::TimelineHistory(timeline).to_string();
    let bytes = fs::read(destination.with_file_name(name)).ok()?;
    Ancestry::parse(timeline, &bytes).is_ok().then_some(bytes)
}

/// Sees to it that the next start of a server is a recovery again, if PostgreSQL has already
/// removed what asks for it: for whoever is about to make it stop. Returns the file that was made.
///
/// # Errors
/// [`Code::LocalIo`] if that cannot be done; the server must not be started then.
pub fn keep_recovering(data_directory: &Path, standby: bool) -> Result<Option<PathBuf>> {
    if !RecoveringServer::of(data_directory).is_ending() {
        return Ok(None);
    }
    let restored = RestoreState::read(data_directory)?;
    let standby = restored.map_or(standby, |state| state.mode() == Mode::Standby);
    let signal = if standby { STANDBY_SIGNAL } else { RECOVERY_SIGNAL };
    let path = data_directory.join(signal);
    publish(&path, b"", 0o600).map(|()| Some(path.clone())).map_err(|error| {
        error.with_hint(format!(
            "Do not start the server before this was typed: `touch {}`.",
            path.display()
        ))
    })
}

/// Cuts off what lies behind the planned end in the last segment, which recovery has just read for
/// the last time. The record that was not wanted has to be there for PostgreSQL to stop before it;
/// should the server die before it has ended recovery and after it removed its signal file, the next
/// start would replay it.
///
/// # Errors
/// [`Code::LocalIo`]
pub(super) fn cut_off(destination: &Path, last: WalSegment, end: Lsn) -> Result<()> {
    let path = destination.with_file_name(last.to_string());
    let cut = || -> io::Result<()> {
        let mut file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let from = end.bytes_since(last.start());
        file.seek(SeekFrom::Start(from))?;
        io::copy(&mut io::Read::take(io::repeat(0), last.size.bytes() - from), &mut file)?;
        file.flush()?;
        File::sync_all(&file)
    };
    cut().map_err(|error| local(error, "cutting off", &path))
}

/// That a file is proven not to exist, since nothing of that name ever does.
pub(super) fn no_first_history(name: &str) -> Error {
    Error::new(Code::WalPastEnd, format!("there is no {name}: the first timeline has no history"))
}
