//! Making a restored server take writes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use seawall_core::{Code, Error, Result};
use seawall_pgdata::control::DbState;
use seawall_pgwire::Connection;
use tokio::time::sleep;

use super::{Login, PAUSE};
use crate::cluster::{PostmasterFile, read_control};

/// A server is a standby as long as this file is in its data directory.
const STANDBY_SIGNAL: &str = "standby.signal";

/// What a promotion found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promoted {
    /// The server waited at its target, and takes writes now.
    Now,
    /// The server was a standby, and takes writes now in place of its primary.
    Standby,
    /// It took writes already.
    Before,
}

/// Makes a restored cluster take writes: ends its pause, or promotes it if it is a standby. One that
/// takes writes already is left alone.
///
/// # Errors
/// [`Code::Usage`] if there is no data directory; [`Code::RestoredServerFailed`] if no server runs
/// in it, or it does not come up within `timeout`; those of the connection.
pub async fn promote(data_directory: &Path, login: &Login, timeout: Duration) -> Result<Promoted> {
    prove_data_directory(data_directory)?;
    let shown = data_directory.display();
    let file = PostmasterFile::read(data_directory).ok_or_else(|| {
        Error::new(Code::RestoredServerFailed, format!("no server runs in {shown}"))
            .with_hint(format!("Start it first: `pg_ctl start -D {shown}`."))
    })?;
    let mut connection = login.connect(&file.listening(), "postgres").await?;
    if !connection.query_value::<bool>("SELECT pg_catalog.pg_is_in_recovery()").await? {
        connection.close().await;
        return Ok(Promoted::Before);
    }
    // Asked first: PostgreSQL removes the file as it is promoted.
    let is_standby = data_directory.join(STANDBY_SIGNAL).exists();
    end_pause(&mut connection).await?;
    if is_standby {
        connection.simple_query("SELECT pg_catalog.pg_promote(false)").await?;
    }
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        if read_control(data_directory)?.state == DbState::InProduction {
            connection.close().await;
            return Ok(if is_standby { Promoted::Standby } else { Promoted::Now });
        }
        // It may reach its target, and pause, only now. Where recovery has just ended it refuses.
        if !is_standby && let Err(error) = end_pause(&mut connection).await {
            tracing::debug!("{}", error.chain());
        }
        sleep(PAUSE).await;
    }
    Err(Error::new(
        Code::RestoredServerFailed,
        format!("the server was not promoted within {} s", timeout.as_secs()),
    )
    .with_hint("Look at the server's log."))
}

/// Not asked of a server that does not wait: from 13 on it is an error while it is promoted.
async fn end_pause(connection: &mut Connection) -> Result<()> {
    let waits = "SELECT pg_catalog.pg_is_wal_replay_paused()";
    if connection.query_value::<bool>(waits).await? {
        connection.simple_query("SELECT pg_catalog.pg_wal_replay_resume()").await?;
    }
    Ok(())
}

fn prove_data_directory(path: &Path) -> Result<()> {
    let Err(error) = fs::metadata(path.join("PG_VERSION")) else { return Ok(()) };
    let shown = path.display();
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return Err(Error::new(Code::WrongUser, format!("cannot look into {shown}"))
            .with_source(error)
            .with_hint("Run this as the user PostgreSQL runs as, such as `sudo -u postgres seawall promote DIR`."));
    }
    let what = if path.is_dir() { "is not a data directory" } else { "is not a directory" };
    Err(Error::new(Code::Usage, format!("{shown} {what}")).with_hint(
        "Name the directory that was restored: the DIR of `seawall restore --into DIR`.",
    ))
}
