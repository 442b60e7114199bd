//! Sends a WAL segment the whole way: written by the server, archived, read back, compared.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seawall_core::{Code, Error, Lsn, Progress, Result, WalFileName, WalSegment};
use seawall_repo::Line;
use seawall_repo::wal::{LsnRange, WalArchive};
use tokio::time::Instant;

use super::facts::Arrival;
use crate::cluster::{Server, ServerFacts};
use crate::delivery::{ByArchiver, SharedServer, WalDelivery as _, WalNeeded};

/// A segment that was ended on purpose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    segment: WalSegment,
    /// A byte of a record in the segment.
    from: Lsn,
    /// The end of its last record.
    to: Lsn,
    /// When it was ended.
    since: Instant,
}

/// Writes a record, so that there is something to switch, and ends the segment.
pub(super) async fn switch(server: &mut Server, facts: &ServerFacts) -> Result<Route> {
    let sql = "select pg_catalog.pg_logical_emit_message(\
         false, 'seawall'::pg_catalog.text, 'check'::pg_catalog.text)";
    let end: Lsn = server.connection().query_value(sql).await?;
    // The function tells where the record ends, which may be where a segment ends.
    let from = Lsn(end.0.saturating_sub(1));
    let sql = format!("select pg_catalog.pg_walfile_name('{from}'::pg_catalog.pg_lsn)");
    let name: String = server.connection().query_value(&sql).await?;
    let Some(WalFileName::Segment(segment)) = WalFileName::parse(&name, facts.wal_segment_size)
    else {
        return Err(Error::new(Code::QueryFailed, format!("pg_walfile_name gave \"{name}\"")));
    };
    let to = server.switch_wal().await?;
    Ok(Route { segment, from, to, since: Instant::now() })
}

/// The way of a segment into repositories.
pub(super) struct Way<'a> {
    /// What is sent.
    pub route: Route,
    /// Where the server has it.
    pub pg_wal: PathBuf,
    /// How long it may take.
    pub patience: Duration,
    /// Who is told how long it takes.
    pub progress: &'a dyn Progress,
}

impl Way<'_> {
    /// Waits until a repository has the segment, reads it back and compares it with the server's file,
    /// if that is still there.
    pub async fn wait_and_compare(&self, line: Line, server: &SharedServer<'_>) -> Result<Arrival> {
        let route = &self.route;
        let archive = WalArchive::open(line).await?;
        let ancestry = archive.ancestry(route.segment.timeline).await?;
        let range = LsnRange { start: route.from, end: route.segment.end() };
        let needed = WalNeeded { archive: &archive, ancestry: &ancestry, range };
        // What a backup would take from pg_wal by itself has not come by the archiver.
        let delivery = ByArchiver { patience: self.patience, hand_over: None };
        match delivery.prove(needed, server, self.progress).await {
            Ok(()) => {}
            Err(error) if is_missing(&error) => {
                let until = archive.contiguous_end(&ancestry, route.from).await?;
                return Ok(Arrival::Missing {
                    segment: route.segment.to_string(),
                    archived_until: (until > route.from).then_some(until),
                    seconds: route.since.elapsed().as_secs(),
                });
            }
            Err(error) => return Err(error),
        }
        let seconds = route.since.elapsed().as_secs_f64();
        let path: Vec<_> = ancestry.spans().collect();
        let read = archive.read_segment(route.segment, &path).await?;
        let segment = route.segment.to_string();
        let Some(read) = read else { return Ok(Arrival::Different { segment }) };
        compare(route, &self.pg_wal.join(&segment), &read.bytes, seconds)
    }
}

/// Whether that is why a segment did not come; all else keeps it from being known.
fn is_missing(error: &Error) -> bool {
    matches!(error.code(), Code::WalNotArrived | Code::SettingUnsuitable)
}

/// Compares what was read back with the server's file, if that is still there.
fn compare(route: &Route, path: &Path, read: &[u8], seconds: f64) -> Result<Arrival> {
    let written = match std::fs::read(path) {
        Ok(written) => written,
        // On another machine, or recycled meanwhile; what was read back is authentic.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Arrival::Proven { seconds, compared: false });
        }
        Err(error) => {
            let what = format!("cannot read {} to compare it", path.display());
            return Err(Error::new(Code::LocalIo, what).with_source(error));
        }
    };
    // A record may go on in the next segment; behind the last one stands filler.
    let to = route.to.min(route.segment.end());
    let used = usize::try_from(to.bytes_since(route.segment.start())).unwrap_or(usize::MAX);
    match (read.get(..used), written.get(..used)) {
        (Some(read), Some(written)) if read == written => {
            Ok(Arrival::Proven { seconds, compared: true })
        }
        _ => Ok(Arrival::Different { segment: route.segment.to_string() }),
    }
}
