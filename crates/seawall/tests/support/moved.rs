//! Production that goes on elsewhere.

use std::fs;

use anyhow::Result;
use seawall_testkit::PgCluster;

use super::support::Protected;

/// Tells the configuration that the cluster lives elsewhere now.
pub fn moved(house: &Protected, pg: &PgCluster) -> Result<()> {
    let text = fs::read_to_string(&house.places.config)?;
    let old = (house.pg.data_directory(), house.pg.connection().socket_directory());
    let new = (pg.data_directory(), pg.connection().socket_directory());
    let text = text.replace(&old.0.display().to_string(), &new.0.display().to_string());
    let text = text.replace(&old.1.display().to_string(), &new.1.display().to_string());
    Ok(fs::write(&house.places.config, text)?)
}
