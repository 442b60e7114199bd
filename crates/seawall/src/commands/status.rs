//! `seawall status`: for a monitor, one line a cluster.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use seawall_core::{ClusterName, Code, Error, Result, TimelineId, counted};
use serde::Serialize;

use crate::args::StatusArgs;
use crate::config;
use crate::context::Context;
use crate::exit::Outcome;
use crate::render::{Out, Style, duration, seconds_of, sentence};
use crate::report::{
    ANOTHER_S_ARCHIVER, Archiving, BackupReport, ClusterReport, Depth, JobReport, Overview,
};
use crate::run;

/// So far the clocks of two hosts may be apart without anything being told of it.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

/// How bad it is; the number is the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok = 0,
    Warning = 1,
    Critical = 2,
}

/// What a monitor is told of a cluster.
#[derive(Debug, Serialize)]
struct Status {
    /// `None` where not even the clusters are known.
    cluster: Option<ClusterName>,
    level: Level,
    backup_age_seconds: Option<f64>,
    rpo_seconds: Option<f64>,
    remarks: Vec<String>,
}

/// The thresholds.
#[derive(Debug, Clone, Copy)]
struct Limits {
    max_age: Duration,
    max_rpo: Duration,
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
        Out.json(&serde_json::json!({ "clusters": statuses }))?;
    } else {
        let style = Style::of_stdout();
        statuses.iter().try_for_each(|status| Out.line(&status.line(style)))?;
    }
    let worst = statuses.iter().map(|status| status.level).max();
    Ok(Outcome::Monitor(worst.unwrap_or(Level::Critical) as u8))
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
    let limits = Limits { max_age: args.max_age, max_rpo: args.max_rpo };
    let named = args.cluster.cluster.as_ref();
    // Read before the process becomes another user.
    let context = Context::new(path, &args.repository)?;
    let mut overview = Overview::whatever_opens(&context, named, Depth::Wal)?;
    let problems = overview.take_problems();
    let runtime = run::runtime()?;
    let mut statuses = Vec::new();
    for cluster in &overview.clusters {
        let target = context.target(&cluster.name)?;
        let archiving = target.server(&args.server).and_then(|server| {
            let archiving = runtime.block_on(Archiving::ask(&server.connection))?;
            archiving.of_cluster(&cluster.name, cluster.system_identifier)
        });
        let own: Vec<_> = problems.iter().filter(|problem| problem.concerns(&target)).collect();
        let seen = if own.is_empty() { Seen::Everything } else { Seen::NotAll };
        let mut status = judge(cluster, seen, archiving, limits, Timestamp::now());
        for problem in own {
            status.remark(Level::Critical, problem.error.chain());
        }
        statuses.push(status);
    }
    match problems.into_iter().next() {
        // Where the repositories alone know the clusters.
        Some(problem) if statuses.is_empty() => Err(problem.error),
        _ => Ok(statuses),
    }
}

/// Whether all repositories of a cluster could be looked at. What is in none of those that could
/// may be in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Everything,
    NotAll,
}

fn judge(
    cluster: &ClusterReport,
    seen: Seen,
    archiving: Result<Archiving>,
    limits: Limits,
    now: Timestamp,
) -> Status {
    let mut status = Status {
        cluster: Some(cluster.name.clone()),
        level: Level::Ok,
        backup_age_seconds: None,
        rpo_seconds: None,
        remarks: Vec::new(),
    };
    status.backups(cluster, seen, limits, now);
    match archiving {
        Err(why) => {
            status.timelines(cluster, None);
            // What was not asked is unknown, and unknown is never well.
            status.remark(Level::Critical, unanswered(&why));
        }
        Ok(archiving) => {
            status.timelines(cluster, archiving.timeline);
            status.archiving(cluster, seen, &archiving, limits, now);
        }
    }
    status.reach(cluster);
    let written = |job: &&JobReport| Some(&job.line) == cluster.line.as_ref();
    for job in cluster.jobs.iter().filter(written).filter(|job| job.state == "silent") {
        status.remark(
            Level::Warning,
            format!(
                "{} {} on {} did not finish; the next one takes over what it copied",
                job.kind, job.id, job.host
            ),
        );
    }
    status
}

/// Why nothing is known of the server.
fn unanswered(why: &Error) -> String {
    let what = match why.code() {
        Code::ConninfoInvalid | Code::NotConfigured => "the server was not asked",
        Code::ClusterMismatch => return why.chain(),
        _ => "the server does not answer",
    };
    match why.hint() {
        Some(hint) if why.code() == Code::PrivilegeMissing => {
            format!("{what}: {} ({})", why.chain(), sentence(hint))
        }
        _ => format!("{what}: {}", why.chain()),
    }
}

impl Status {
    /// Of a cluster that could not be looked at.
    fn unknown(cluster: Option<ClusterName>, why: String) -> Self {
        Self {
            cluster,
            level: Level::Critical,
            backup_age_seconds: None,
            rpo_seconds: None,
            remarks: vec![why],
        }
    }

    fn remark(&mut self, level: Level, text: String) {
        self.level = self.level.max(level);
        self.remarks.push(text);
    }

    fn backups(&mut self, cluster: &ClusterReport, seen: Seen, limits: Limits, now: Timestamp) {
        for damaged in cluster.backups.iter().filter(|backup| backup.state != "complete") {
            self.remark(Level::Critical, format!("backup {} is damaged", damaged.id));
        }
        let newest = cluster.newest_backup();
        let Some((newest, finished)) = newest.and_then(|b| Some((b, b.finished_at?))) else {
            if seen == Seen::NotAll {
                return;
            }
            let what = if cluster.backups.is_empty() {
                "no backup yet"
            } else {
                "no backup since the server was adopted"
            };
            return self.remark(Level::Critical, what.to_owned());
        };
        self.age(newest, finished, limits.max_age, now);
        if let Some(errors @ 1..) = newest.page_errors {
            self.remark(
                Level::Critical,
                format!(
                    "{} in the database, as of backup {}",
                    counted(errors, "damaged page"),
                    newest.id
                ),
            );
        }
    }

    /// How old the newest backup is, if clocks can tell.
    fn age(&mut self, newest: &BackupReport, finished: Timestamp, max: Duration, now: Timestamp) {
        let age = now.duration_since(finished);
        if age < -CLOCKS_DIFFER {
            let what = format!(
                "nobody knows how old the newest backup is: {} ended at {}, which is not yet: a clock is wrong or was",
                newest.id,
                crate::render::utc(finished)
            );
            return self.remark(Level::Warning, what);
        }
        let age = Duration::try_from(age.max(SignedDuration::ZERO)).unwrap_or(Duration::ZERO);
        self.backup_age_seconds = Some(age.as_secs_f64());
        if let Some(level) = over(age, max, 2) {
            self.remark(level, format!("the newest backup is {} old", duration(age)));
        }
    }

    /// `server` is the timeline the configured server writes.
    fn timelines(&mut self, cluster: &ClusterReport, server: Option<TimelineId>) {
        let Some(newest) = cluster.newest_timeline() else { return };
        if let Some(server) = server.filter(|server| *server < newest) {
            let what = format!(
                "the server writes timeline {server}, and timeline {newest} is archived: if another \
                 server was promoted, stop this one and point `connection` and `data_directory` there"
            );
            return self.remark(Level::Critical, what);
        }
        let backup = cluster.newest_backup().and_then(|backup| backup.timeline);
        if let Some(backup) = backup.filter(|backup| *backup < newest) {
            let what = format!(
                "no backup since the server was restored or promoted: the newest is of timeline {backup}, and WAL of timeline {newest}: take a backup"
            );
            self.remark(Level::Warning, what);
        }
    }

    /// What is archived and cannot be restored. A backup that begins behind it ends the alarm.
    fn reach(&mut self, cluster: &ClusterReport) {
        let covered = cluster.reach.as_ref().is_some_and(|reach| reach.obstacle.is_none());
        for blocked in &cluster.blocked_wal {
            let level = if covered { Level::Warning } else { Level::Critical };
            self.remark(
                level,
                format!(
                    "nothing newer can be restored from {}: {}; take a backup",
                    blocked.repository, blocked.message
                ),
            );
        }
        if cluster.reach.is_none() && cluster.written_backups().next().is_some() {
            let what = "no backup has the WAL it needs: none can be restored";
            self.remark(Level::Critical, what.to_owned());
        }
    }

    fn archiving(
        &mut self,
        cluster: &ClusterReport,
        seen: Seen,
        archiving: &Archiving,
        limits: Limits,
        now: Timestamp,
    ) {
        if !archiving.own_archiver {
            return self.remark(Level::Critical, ANOTHER_S_ARCHIVER.to_owned());
        }
        if archiving.idle {
            let why = if archiving.waits_for_restart {
                "archive_mode takes effect with the restart"
            } else {
                "archive_mode or archive_command is not set"
            };
            self.remark(Level::Critical, format!("PostgreSQL archives nothing: {why}"));
        } else if let Some(wal) = &archiving.failing_on {
            let what = format!("the archiver fails on {wal}: PostgreSQL's log says why");
            self.remark(Level::Critical, what);
        }
        let contradiction = cluster.contradiction(archiving);
        if let Some(contradiction) = contradiction.filter(|_| seen == Seen::Everything) {
            self.remark(Level::Critical, sentence(&contradiction.told()));
        }
        if seen == Seen::Everything && !cluster.archived_to().is_valid() {
            self.remark(Level::Critical, "no WAL was ever archived".to_owned());
        }
        self.rpo_seconds = cluster.at_risk_s(archiving, now);
        // Without a backup to roll forward there is nothing to measure from; that is told already.
        let Some(seconds) = self.rpo_seconds else { return };
        let at_risk = seconds_of(seconds);
        if let Some(level) = over(at_risk, limits.max_rpo, 10) {
            let what = format!("up to {} of commits cannot be restored", duration(at_risk));
            self.remark(level, what);
        }
    }

    fn line(&self, style: Style) -> String {
        let level = match self.level {
            Level::Ok => style.green("OK"),
            Level::Warning => style.yellow("WARNING"),
            Level::Critical => style.red("CRITICAL"),
        };
        let shown = |seconds: f64| duration(seconds_of(seconds));
        let mut facts = Vec::new();
        facts.extend(self.backup_age_seconds.map(|age| format!("backup {} old", shown(age))));
        facts.extend(self.rpo_seconds.map(|rpo| format!("RPO {}", shown(rpo))));
        facts.extend(self.remarks.iter().cloned());
        let subject = self.cluster.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        // A line is all a monitor takes for one; what a server said may have held several.
        let facts = facts.join("; ").replace(char::is_control, " ");
        format!("{level}{subject}: {facts}")
    }
}

fn over(value: Duration, limit: Duration, critical_factor: u32) -> Option<Level> {
    let critical = limit.saturating_mul(critical_factor);
    if value > critical { Some(Level::Critical) } else { (value > limit).then_some(Level::Warning) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_warning_first() {
        let limit = Duration::from_secs(60);
        assert_eq!(over(Duration::from_secs(60), limit, 2), None);
        assert_eq!(over(Duration::from_secs(61), limit, 2), Some(Level::Warning));
        assert_eq!(over(Duration::from_secs(121), limit, 2), Some(Level::Critical));
    }

    #[test]
    fn a_cluster_without_backups_is_critical_and_fits_one_line() {
        let cluster = ClusterReport::empty("main".parse().unwrap());
        let limits = Limits { max_age: Duration::from_secs(1), max_rpo: Duration::from_secs(1) };
        let refused = || Error::new(Code::ConnectFailed, "refused\nOK other: all is well");
        let status =
            judge(&cluster, Seen::Everything, Err(refused()), limits, Timestamp::UNIX_EPOCH);
        assert_eq!(
            status.line(Style::PLAIN),
            "CRITICAL main: no backup yet; the server does not answer: refused OK other: all is well"
        );
        let unknown = Status::unknown(None, "no configuration".to_owned());
        assert_eq!(unknown.line(Style::PLAIN), "CRITICAL: no configuration");
    }
}
