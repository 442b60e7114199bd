//! Sends a WAL segment the whole way: written by the server, archived, read back, compared.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use seawall_core::{Code, Error, Lsn, Result, WalFileName, WalSegment};
use seawall_repo::Line;
use seawall_repo::wal::WalArchive;
use tokio::time::{Instant, sleep};

use super::collect::archiver;
use super::facts::{Archiver, Arrival};
use crate::cluster::{Server, ServerFacts};

/// How often the archive is looked at.
const POLL: Duration = Duration::from_millis(200);

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

/// An archiver that failed before has to fail once more to be given up, another one three times, after
/// which PostgreSQL itself leaves the file for a minute (`NUM_ARCHIVE_RETRIES`, pgarch.c).
const FAILURES: u64 = 3;

/// The archiver, looked at while WAL is waited for.
pub(super) struct Watch<'s> {
    server: &'s mut Server,
    before: Archiver,
}

impl<'s> Watch<'s> {
    /// Begins with what it says before the segment ends.
    pub(super) async fn begin(server: &'s mut Server) -> Result<Self> {
        let before = archiver(server).await?;
        Ok(Self { server, before })
    }

    pub(super) const fn server(&mut self) -> &mut Server {
        self.server
    }

    /// Whether it fails, so that nobody has to wait for it.
    async fn fails(&mut self) -> Result<bool> {
        let now = archiver(self.server).await?;
        let failures = now.failed_count.saturating_sub(self.before.failed_count);
        let enough = if self.before.failing_on.is_some() { 1 } else { FAILURES };
        Ok(now.failing_on.is_some() && failures >= enough)
    }
}

/// Waits until a repository has the segment, reads it back and compares it with the server's file,
/// if that is still there.
pub(super) async fn wait_and_compare(
    line: Line,
    route: &Route,
    pg_wal: &Path,
    patience: Duration,
    watch: &mut Watch<'_>,
) -> Result<Arrival> {
    let archive = WalArchive::open(line).await?;
    let ancestry = archive.ancestry(route.segment.timeline).await?;
    let until = loop {
        // In this order: what arrived before it failed for another repository is there to be seen.
        let gives_up = watch.fails().await? || route.since.elapsed() >= patience;
        let end = archive.contiguous_end(&ancestry, route.from).await?;
        if end >= route.segment.end() || gives_up {
            break end;
        }
        sleep(POLL).await;
    };
    if until < route.segment.end() {
        return Ok(Arrival::Missing {
            segment: route.segment.to_string(),
            archived_until: (until > route.from).then_some(until),
            seconds: route.since.elapsed().as_secs(),
        });
    }
    let seconds = route.since.elapsed().as_secs_f64();
    let path: Vec<_> = ancestry.spans().collect();
    let read = archive.read_segment(route.segment, &path).await?;
    let segment = route.segment.to_string();
    let Some(read) = read else { return Ok(Arrival::Different { segment }) };
    let path = pg_wal.join(&segment);
    let written = match std::fs::read(&path) {
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
    match (read.bytes.get(..used), written.get(..used)) {
        (Some(read), Some(written)) if read == written => {
            Ok(Arrival::Proven { seconds, compared: true })
        }
        _ => Ok(Arrival::Different { segment }),
    }
}
