use std::fmt;

use seawall_core::ByteSize;

use super::removals::{kept_lines, undone_lines};
use super::timeline::{commits_of, shown as moment};
use super::{CommitPlace, LeftBehind, RestorePlan, Stop};
use crate::restore::{Mode, TargetAction};

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backup = &self.backup;
        let purpose = match self.mode {
            Mode::Clone => "a clone, which archives nothing",
            Mode::Primary => "the primary, which goes on archiving",
            Mode::Standby => "a standby, which follows the primary",
        };
        writeln!(f, "restore       cluster {} as {purpose}", self.cluster)?;
        writeln!(f, "target        {}", self.target)?;
        if !self.left_out_databases.is_empty() {
            let shown = |it: &super::NamedDatabase| format!("{} (OID {})", it.name, it.oid);
            let shown: Vec<String> = self.left_out_databases.iter().map(shown).collect();
            writeln!(f, "without       databases {}", shown.join(", "))?;
        }
        writeln!(
            f,
            "backup        {} of {}, {}",
            backup.id,
            backup.finished_at.strftime("%Y-%m-%d %H:%M:%SZ"),
            ByteSize(backup.cluster_bytes)
        )?;
        writeln!(
            f,
            "replay        LSN {} to {}, {}, timeline {}",
            backup.start_lsn,
            self.wal_end,
            ByteSize(self.wal_end.bytes_since(backup.start_lsn)),
            self.path.iter().map(|span| span.timeline.to_string()).collect::<Vec<_>>().join(" → ")
        )?;
        writeln!(f, "stop          {}", self.stop)?;
        writeln!(f, "keeps         {}", kept(self.last_commit_kept.as_ref()))?;
        for left_out in left_out(self) {
            writeln!(f, "leaves out    {left_out}")?;
        }
        for line in kept_lines(&self.removals) {
            writeln!(f, "drops kept    {line}")?;
        }
        if self.first_commit_left_out.is_some() {
            for line in undone_lines(&self.removals, self.stop.kept_until()) {
                writeln!(f, "drops undone  {line}")?;
            }
        }
        let then = match (self.mode, self.then) {
            (Mode::Standby, _) => "replays what is archived from then on, readable",
            (_, TargetAction::Promote) => "takes writes on a new timeline",
            (_, TargetAction::Pause) => "waits, readable, for `seawall promote`",
            (_, TargetAction::Shutdown) => "shuts down",
        };
        write!(f, "then          PostgreSQL {then}")?;
        for setting in &self.settings {
            if let Some(was) = &setting.was {
                let (name, value, why) = (&setting.name, &setting.value, &setting.why);
                write!(f, "\nsets          {name} = '{value}' (was {was}): {why}")?;
            }
        }
        for warning in &self.warnings {
            write!(f, "\nwarning       {warning}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consistent { lsn } => write!(f, "as soon as it is consistent, LSN {lsn}"),
            Self::Before { lsn } => write!(f, "before the record at LSN {lsn}"),
            Self::After { lsn, .. } => write!(f, "after the record at LSN {lsn}"),
        }
    }
}

fn kept(last: Option<&CommitPlace>) -> String {
    last.map_or_else(
        || "what the backup holds: no transaction has committed since it began".to_owned(),
        |last| format!("every commit up to and with transaction {}", shown(last)),
    )
}

fn left_out(plan: &RestorePlan) -> Vec<String> {
    let first = plan.first_commit_left_out.as_ref();
    let first =
        first.map(|first| format!("transaction {}, and every commit after it", shown(first)));
    let beside = plan.left_behind.iter().map(beside);
    let mut lines: Vec<String> = first.into_iter().chain(beside).collect();
    if lines.is_empty() {
        lines.push(never_archived(plan));
    }
    lines
}

/// What a server committed last, it may not have archived.
fn never_archived(plan: &RestorePlan) -> String {
    let last = plan.last_commit_kept.map(|commit| commit.time);
    let age = plan.asked_at.zip(last).map(|(now, last)| now.duration_since(last).as_secs().max(0));
    let end = age.map(|seconds| format!(" and ends {seconds} s before this plan was made"));
    format!(
        "nothing that is archived{}; what was committed since is in the server's pg_wal alone: where its disk can still be read, `seawall wal push --partial FILE --cluster {}` for each file there, then this again",
        end.unwrap_or_default(),
        plan.cluster
    )
}

fn beside(left: &LeftBehind) -> String {
    let timeline = left.timeline;
    let last = left.last_commit.map(|last| format!(", the last at {}", moment(last.time)));
    format!(
        "timeline {timeline} after LSN {}: {}{}; `--latest --timeline {timeline}` keeps them",
        left.after,
        commits_of(left),
        last.unwrap_or_default()
    )
}

/// A transaction as a person recognises it.
fn shown(commit: &CommitPlace) -> String {
    let time = commit.time.strftime("%Y-%m-%d %H:%M:%S%.fZ");
    format!("{} of {time} (LSN {})", commit.xid, commit.lsn)
}
