//! The primary whose place is taken: two that take writes are two pasts.

use std::path::Path;

use seawall_core::{ClusterName, Result};
use seawall_engine::cluster::read_control;
use seawall_engine::restored::{Mode, RestoreState};

use crate::commands::living;
use crate::config::Config;
use crate::render::{Style, confirm};

/// Asks before a server takes the place of one that runs still; `beforehand` is a yes that was given
/// before.
///
/// # Errors
/// [`seawall_core::Code::NotConfirmed`]
pub(super) async fn ask(config: &Config, directory: &Path, beforehand: bool) -> Result<()> {
    let state = RestoreState::read(directory)?;
    let Some(cluster) = cluster(config, state.as_ref()).filter(|_| takes_over(directory, &state))
    else {
        return Ok(());
    };
    let own = read_control(directory)?.system_id;
    let Some(timeline) = living::primary(config, &cluster, own).await.and_then(|it| it.timeline)
    else {
        return Ok(());
    };
    eprintln!(
        "{} the primary of cluster {cluster} that {} names runs and takes writes, on timeline {timeline}. With two primaries, what is written there from now on is lost to {}; where both archive, there are two pasts, and each restore has to be told which is meant (SW0609)",
        Style::of_stderr().yellow("warning:"),
        config.shown_path(),
        directory.display()
    );
    confirm("Promote it all the same?", beforehand).map_err(|error| {
        error.with_hint(
            "Stop the old primary for good, and keep it from coming back by itself: `pg_ctl stop -m fast`, or its service. Then run this again. `--yes` promotes while it runs.",
        )
    })
}

/// Whose server it is: what was restored says so, and a standby of one's own is of the only cluster.
fn cluster(config: &Config, state: Option<&RestoreState>) -> Option<ClusterName> {
    if let Some(state) = state {
        return Some(state.cluster().clone());
    }
    let mut names = config.clusters.keys();
    names.next().filter(|_| names.next().is_none()).cloned()
}

/// Whether it recovers and is to take the primary's place; a clone archives nothing.
fn takes_over(directory: &Path, state: &Option<RestoreState>) -> bool {
    let has = |signal: &str| directory.join(signal).exists();
    let is_primary = state.as_ref().is_some_and(|state| state.mode() == Mode::Primary);
    has("standby.signal") || (is_primary && has("recovery.signal"))
}
