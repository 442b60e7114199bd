//! `seawall wal push PATH`: `archive_command`. Succeeds only when the file is durable in every
//! repository.

use std::path::Path;

use seawall_core::{Result, SystemId};
use seawall_engine::cluster::read_control;
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
    let context = Context::new(config, &args.repository)?;
    let target = context.one_target(args.cluster.as_ref())?;
    let path = absolute(&args.path);
    context.become_owner(None)?;
    let system_id = system_id(&target, &path);
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
        let request = PushRequest { cluster: target.name, path, places, system_id };
        let report = push(&request).await?;
        for place in &report.places {
            tracing::info!(file = report.file, place.name, place.new_bytes, "archived");
        }
        failure.map_or(Ok(Outcome::Done), Err)
    })
}

/// Segments say themselves whose they are. History files do not: `pg_control` beside them does, and
/// where there is none, that of the configured directory.
fn system_id(target: &Target, path: &Path) -> Option<SystemId> {
    if !path.extension().is_some_and(|kind| kind == "history" || kind == "backup") {
        return None;
    }
    // PGDATA/pg_wal/NAME
    let own = path.parent().and_then(Path::parent);
    let configured = target.config.as_ref().and_then(|config| config.data_directory.as_deref());
    let read = |directory: &Path| read_control(directory).ok().map(|control| control.system_id);
    own.and_then(read).or_else(|| configured.and_then(read))
}
