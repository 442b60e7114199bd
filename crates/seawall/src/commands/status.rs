//! `seawall status`: for a monitor, one line a cluster.

use std::path::Path;

use jiff::Timestamp;
use seawall_core::{ClusterName, Error, Result, seconds_of};
use seawall_engine::survey::{Depth, Health, Level, Thresholds, ask_all, health};
use serde::Serialize;
use serde_json::json;

use crate::args::StatusArgs;
use crate::config;
use crate::context::{Context, Target};
use crate::exit::Outcome;
use crate::overview::Overview;
use crate::render::{Out, Style, duration, sentence};
use crate::run;

/// What a monitor is told of a cluster.
struct Status {
    /// `None` where not even the clusters are known.
    cluster: Option<ClusterName>,
    health: Health,
}

/// The same as JSON has it.
#[derive(Serialize)]
struct Told<'a> {
    cluster: Option<&'a ClusterName>,
    level: Level,
    backup_age_seconds: Option<f64>,
    rpo_seconds: Option<f64>,
    remarks: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Standard output that cannot be written. Whatever else fails is told in the clusters' lines: a
/// monitor reads nothing else.
pub fn main(path: Option<&Path>, args: &StatusArgs) -> Result<Outcome> {
    let statuses = match statuses(path, args) {
        Ok(statuses) if !statuses.is_empty() => statuses,
        Ok(_) => vec![Status::unknown(None, "there is no cluster".to_owned())],
        Err(error) => {
            crate::render::report(&error);
            all_unknown(path, args, &error)
        }
    };
    if args.output.json {
        let clusters: Vec<Told<'_>> = statuses.iter().map(Status::told).collect();
        Out.json(&json!({ "clusters": clusters }))?;
    } else {
        let style = Style::of_stdout();
        statuses.iter().try_for_each(|status| Out.line(&status.line(style)))?;
    }
    let worst = statuses.iter().map(|status| status.health.level).max();
    Ok(Outcome::Monitor(exit_status(worst.unwrap_or(Level::Critical))))
}

/// What monitors take the numbers for.
const fn exit_status(level: Level) -> u8 {
    match level {
        Level::Ok => 0,
        Level::Warning => 1,
        Level::Critical => 2,
    }
}

/// Of each cluster asked for, as far as a configuration that cannot be used names them.
fn all_unknown(path: Option<&Path>, args: &StatusArgs, error: &Error) -> Vec<Status> {
    let names = match &args.cluster.cluster {
        Some(name) => vec![name.clone()],
        None => config::named_clusters(path),
    };
    if names.is_empty() {
        return vec![Status::unknown(None, error.chain())];
    }
    names.into_iter().map(|name| Status::unknown(Some(name), error.chain())).collect()
}

fn statuses(path: Option<&Path>, args: &StatusArgs) -> Result<Vec<Status>> {
    let limits = Thresholds { max_age: args.max_age, max_rpo: args.max_rpo };
    let named = args.cluster.cluster.as_ref();
    // Read before the process becomes another user.
    let context = Context::new(path, &args.repository)?;
    let mut overview = Overview::whatever_opens(&context, named, Depth::Wal)?;
    let problems = overview.take_problems();
    let clusters = overview.clusters.iter();
    let targets: Vec<Target> =
        clusters.map(|cluster| context.target(&cluster.name)).collect::<Result<_>>()?;
    let server = |target: &Target| target.server(&args.server).map(|server| server.connection);
    let answers = run::runtime()?.block_on(ask_all(targets.iter().map(server).collect()));
    let now = Timestamp::now();
    let mut statuses = Vec::new();
    for ((cluster, target), answer) in overview.clusters.iter().zip(&targets).zip(answers) {
        let stored = cluster.system_identifier;
        let answer = answer.and_then(|said| said.of_cluster(&cluster.name, stored));
        let mut health = health(cluster, answer.as_ref(), limits, now);
        for problem in problems.iter().filter(|problem| problem.concerns(target)) {
            health.add_unseen(&problem.error);
        }
        for twice in overview.twice.iter().filter(|twice| twice.concerns(target)) {
            health.add_named_twice(&twice.error);
        }
        statuses.push(Status { cluster: Some(cluster.name.clone()), health });
    }
    match problems.into_iter().next() {
        // Where the repositories alone know the clusters.
        Some(problem) if statuses.is_empty() => Err(problem.error),
        _ => Ok(statuses),
    }
}

impl Status {
    /// Of a cluster that could not be looked at.
    fn unknown(cluster: Option<ClusterName>, why: String) -> Self {
        Self { cluster, health: Health::unknown(why) }
    }

    fn remarks(&self) -> impl Iterator<Item = String> {
        self.health
            .remarks
            .iter()
            .map(|judged| sentence(&judged.remark.told(self.cluster.as_ref())))
    }

    fn told(&self) -> Told<'_> {
        Told {
            cluster: self.cluster.as_ref(),
            level: self.health.level,
            backup_age_seconds: self.health.backup_age_seconds,
            rpo_seconds: self.health.rpo_seconds,
            remarks: self.remarks().collect(),
        }
    }

    fn line(&self, style: Style) -> String {
        let level = match self.health.level {
            Level::Ok => style.green("OK"),
            Level::Warning => style.yellow("WARNING"),
            Level::Critical => style.red("CRITICAL"),
        };
        let shown = |seconds: f64| duration(seconds_of(seconds));
        let (age, rpo) = (self.health.backup_age_seconds, self.health.rpo_seconds);
        let mut facts = Vec::new();
        facts.extend(age.map(|age| format!("backup {} old", shown(age))));
        facts.extend(rpo.map(|rpo| format!("RPO {}", shown(rpo))));
        facts.extend(self.remarks());
        let subject = self.cluster.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        // A line is all a monitor takes for one; what a server said may have held several.
        let facts = facts.join("; ").replace(char::is_control, " ");
        format!("{level}{subject}: {facts}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_cluster_fits_one_line() {
        let name = Some("main".parse().unwrap());
        let unknown = Status::unknown(name, "refused\nOK other: all is well".to_owned());
        assert_eq!(unknown.line(Style::PLAIN), "CRITICAL main: refused OK other: all is well");
        let unknown = Status::unknown(None, "no configuration".to_owned());
        assert_eq!(unknown.line(Style::PLAIN), "CRITICAL: no configuration");
    }
}
