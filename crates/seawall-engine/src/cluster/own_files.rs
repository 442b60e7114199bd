use std::path::Path;
use std::time::Duration;

use seawall_core::{Code, Error, Lsn, Result};
use seawall_pgdata::control::{ControlFile, DbState};
use tokio::time::sleep;

use super::own_trees::{prove_data_directory, prove_tablespaces};
use super::{Server, ServerFacts, TablespaceLinks, read_control};

/// A checkpoint may end between the look at the file and the server's answer; never so often.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// Proves that a data directory is the one the server works in, and its tablespaces too.
///
/// `pg_control` tells most of it: the same cluster, in operation, at the server's last checkpoint. A
/// restored clone or an old data directory stands elsewhere or is shut down. A copy of files that are
/// in use does not; what the server does in its own is not seen there.
///
/// # Errors
/// [`Code::ClusterMismatch`] if it is not; [`Code::PrivilegeMissing`]; those of [`read_control`], of
/// the directories and of the server.
pub async fn prove_own_files(
    server: &mut Server,
    facts: &ServerFacts,
    data_directory: &Path,
) -> Result<ControlFile> {
    let control = prove_control(server, facts, data_directory).await?;
    let proven = prove_data_directory(server, data_directory).await;
    proven.map_err(|error| match error.code() {
        Code::ClusterMismatch => error.with_hint(correct(facts)),
        _ => error,
    })?;
    prove_tablespaces(server, data_directory, &TablespaceLinks::of(data_directory)?).await?;
    Ok(control)
}

async fn prove_control(
    server: &mut Server,
    facts: &ServerFacts,
    data_directory: &Path,
) -> Result<ControlFile> {
    let mut attempt = 1;
    loop {
        let control = read_control(data_directory)?;
        prove_same_cluster(&control, facts, data_directory)?;
        let sql = "select checkpoint_lsn from pg_catalog.pg_control_checkpoint()";
        let checkpoint: Lsn = server.connection().query_value(sql).await?;
        let shut_down = matches!(control.state, DbState::ShutDown | DbState::ShutDownInRecovery);
        if control.checkpoint == checkpoint && !shut_down {
            return Ok(control);
        }
        if attempt == ATTEMPTS {
            return Err(another_copy(&control, checkpoint, facts, data_directory));
        }
        attempt += 1;
        sleep(PAUSE).await;
    }
}

fn prove_same_cluster(
    control: &ControlFile,
    facts: &ServerFacts,
    data_directory: &Path,
) -> Result<()> {
    if control.system_id == facts.system_id {
        return Ok(());
    }
    Err(Error::new(
        Code::ClusterMismatch,
        format!(
            "the data directory {} belongs to cluster {}, the server to cluster {}",
            data_directory.display(),
            control.system_id,
            facts.system_id
        ),
    )
    .with_hint(correct(facts)))
}

fn another_copy(
    control: &ControlFile,
    checkpoint: Lsn,
    facts: &ServerFacts,
    data_directory: &Path,
) -> Error {
    let there = if control.checkpoint == checkpoint {
        "is shut down".to_owned()
    } else {
        format!("has its last checkpoint at {}, the server at {checkpoint}", control.checkpoint)
    };
    Error::new(
        Code::ClusterMismatch,
        format!(
            "the data directory {} {there}: it belongs to another copy of the cluster",
            data_directory.display()
        ),
    )
    .with_hint(correct(facts))
}

fn correct(facts: &ServerFacts) -> String {
    format!(
        "Set `connection` and `data_directory` to the same server; this one works in {}.",
        facts.data_directory.display()
    )
}
