//! What is kept: `hold`, `release`, `annotate`, `delete` and `prune`.

use clap::Args;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use seawall_core::ClusterName;

use super::{ClusterArgs, JsonArgs, RepositoryArgs, parse_annotation};
use crate::config;

/// One backup, and where it is.
#[derive(Debug, Args)]
pub struct BackupWordArgs {
    /// A backup: its id or a unique beginning of it, latest, latest~1
    #[arg(value_name = "ID")]
    pub backup: String,
    /// The cluster, where several are configured
    #[arg(long, env = "SEAWALL_CLUSTER", hide_env_values = true, value_name = "CLUSTER")]
    pub cluster: Option<ClusterName>,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `seawall hold`
#[derive(Debug, Args)]
#[command(
    after_help = "A backup that is held stays, however old, and takes no other one's place. It also \
                  takes back that it was to be deleted. Exits 6 if a repository missed it."
)]
pub struct HoldArgs {
    #[command(flatten)]
    pub backup: BackupWordArgs,
    /// Until when: 2027-01-31, 2027-01-31 18:00 (local time), RFC 3339, or for how long, as in 90d
    /// [default: for ever]
    #[arg(long, value_name = "T", value_parser = parse_until)]
    pub until: Option<Timestamp>,
    /// Why, for people who ask later
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `seawall annotate`
#[derive(Debug, Args)]
pub struct AnnotateArgs {
    #[command(flatten)]
    pub backup: BackupWordArgs,
    /// A note; KEY= takes it away
    #[arg(value_name = "KEY=VALUE", value_parser = parse_annotation, required = true)]
    pub notes: Vec<(String, String)>,
}

/// `seawall delete`
#[derive(Debug, Args)]
#[command(
    after_help = "The backup is marked in every repository that has it, and is not restored from \
                  any more unless it is named with --backup. `seawall hold ID` takes it back. One that \
                  is held is refused: exit status 5."
)]
pub struct DeleteArgs {
    #[command(flatten)]
    pub backup: BackupWordArgs,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// For the last good backup of a line, which a terminal asks to be typed: its id
    #[arg(long, value_name = "ID")]
    pub confirm: Option<String>,
}

/// `seawall prune`
#[derive(Debug, Args)]
#[command(
    after_help = "What is kept is `retention` in the configuration; without it everything is, and only \
                  what nobody needs goes: what backups left that died. Nothing is deleted in the run \
                  that finds it: what goes is condemned first, and deleted by a prune a day later, \
                  unless it is needed again. Exits 5 if something is not known that decides it, 6 if a \
                  repository could not be looked at."
)]
pub struct PruneArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Show what stays and goes, and why; nothing is changed
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    #[command(flatten)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    pub output: JsonArgs,
}

/// A moment to come.
fn parse_until(text: &str) -> Result<Timestamp, String> {
    let until = moment(text, Timestamp::now(), &TimeZone::system())?;
    if until <= Timestamp::now() {
        return Err(format!("{until} is past"));
    }
    Ok(until)
}

fn moment(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    if let Ok(civil) = text.parse::<DateTime>() {
        let at = zone.to_ambiguous_zoned(civil);
        return match at.offset() {
            AmbiguousOffset::Unambiguous { .. } => {
                at.unambiguous().map(|at| at.timestamp()).map_err(|error| error.to_string())
            }
            AmbiguousOffset::Gap { .. } | AmbiguousOffset::Fold { .. } => {
                Err(format!("clocks are changed then: say {text} with its offset from UTC"))
            }
        };
    }
    let span =
        config::parse_duration(text).ok().and_then(|span| SignedDuration::try_from(span).ok());
    span.and_then(|span| now.checked_add(span).ok())
        .ok_or_else(|| "it must be a time such as 2027-01-31, or a span such as 90d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_to_come_is_a_day_a_time_or_a_span() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (text, expected) in [
            ("2027-01-31", "2027-01-30T23:00:00Z"),
            ("2027-07-01 18:00", "2027-07-01T16:00:00Z"),
            ("2027-01-31T18:00:00Z", "2027-01-31T18:00:00Z"),
            ("90d", "2026-04-01T00:00:00Z"),
        ] {
            assert_eq!(moment(text, now, &berlin), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in ["2026-03-29 02:30", "2026-10-25 02:30", "soon", ""] {
            assert!(moment(text, now, &berlin).is_err(), "{text}");
        }
    }
}
