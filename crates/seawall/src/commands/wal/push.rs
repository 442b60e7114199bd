//! `seawall wal push PATH`: `archive_command`. Succeeds only when the file is durable in every
//! repository.

use std::path::Path;

use seawall_core::{BranchNumber, Result, SystemId};
use seawall_engine::cluster::read_control;
use seawall_engine::line_note;
use seawall_engine::wal::{PushRequest, WalPlace, push};

use crate::args::PushArgs;
use crate::context::{Context, Target, absolute};
use crate::exit::Outcome;
use crate::run;

/// Runs the command.
///
/// # Errors
/// Those of configuration and repositories; what some repositories have by then, they keep.
pub fn main(config: Option<&Path>, args: &PushArgs) -> Result<Outcome> {
    let context = Context::of_server(config, &args.repository)?;
    let target = context.one_target(args.cluster.as_ref())?;
    let path = absolute(&args.path);
    context.become_owner(None)?;
    let (system_id, branch) = known_of(&target, &path)?.unzip();
    run::runtime()?.block_on(async {
        let (mut places, mut failure) = (Vec::new(), None);
        for place in target.places {
            let name = place.name.clone();
            match place.open().await {
                Ok(opened) => places.push(WalPlace {
                    name,
                    repository: opened.repository,
                    compression_level: opened.place.compression_level,
                }),
                // The others shall have the file all the same.
                Err(error) => failure = Some(error.context(format!("repository {name}"))),
            }
        }
        if places.is_empty()
            && let Some(failure) = failure
        {
            return Err(failure);
        }
        let request = PushRequest {
            cluster: target.name,
            path,
            places,
            system_id,
            branch,
            partial: args.partial,
        };
        let report = push(&request).await?;
        for place in &report.places {
            tracing::info!(file = report.file, place.name, place.new_bytes, "archived");
        }
        failure.map_or(Ok(Outcome::Done), Err)
    })
}

/// Whose the file is: what `pg_control` and the note of the server's line say in the data directory
/// it lies in; where it lies elsewhere, in the configured one.
fn known_of(target: &Target, path: &Path) -> Result<Option<(SystemId, BranchNumber)>> {
    // PGDATA/pg_wal/NAME
    let own = path.parent().and_then(Path::parent);
    let configured = target.config.as_ref().and_then(|config| config.data_directory.as_deref());
    let has_cluster = |directory: &&Path| directory.join("global/pg_control").exists();
    let Some(directory) = own.into_iter().chain(configured).find(has_cluster) else {
        return Ok(None);
    };
    let system_id = read_control(directory)?.system_id;
    Ok(Some((system_id, line_note::branch_of(directory, system_id)?)))
}
