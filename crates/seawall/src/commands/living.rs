//! The server that the configuration names, where it runs still and takes writes.

use seawall_core::{ClusterName, Result, SystemId};
use seawall_engine::survey::Archiving;

use crate::config::Config;
use crate::owner::Owner;
use crate::postgres;
use crate::render::Style;

/// What a cluster's primary says of itself. `None` if none is configured, it is a standby or of
/// another cluster, or it does not answer, which is told.
pub async fn primary(config: &Config, cluster: &ClusterName, own: SystemId) -> Option<Archiving> {
    match ask(config, cluster).await {
        Ok(answer) => answer.filter(|it| it.is_primary_of(own)),
        Err(error) => {
            let note = Style::of_stderr().yellow("note:");
            eprintln!(
                "{note} the server that the configuration names was asked: {}",
                error.chain()
            );
            None
        }
    }
}

async fn ask(config: &Config, cluster: &ClusterName) -> Result<Option<Archiving>> {
    let configured = config.clusters.get(cluster).and_then(|it| it.connection.as_ref());
    let Some((connection, path)) = configured.zip(config.path.as_deref()) else { return Ok(None) };
    let connection = postgres::resolve(&connection.read(path)?, &Owner::current())?;
    Archiving::ask(&connection).await.map(Some)
}
