use std::fmt;

use seawall_core::{Action, ByteSize, Hint, hint, printable};

use super::removals::{kept_lines, undone_lines};
use super::timeline::{commits_of, shown as moment};
use crate::restored::{
    CommitPlace, LeftBehind, LivingServer, Mode, NamedDatabase, Onto, RestorePlan, Stop,
    TargetAction,
};

impl RestorePlan {
    /// The plan as a person reads it: a line for each thing it decides.
    #[must_use]
    pub fn text(&self) -> Hint {
        let mut lines = self.what_is_restored();
        lines.extend(self.what_is_kept());
        let then = match (self.mode, self.then) {
            (Mode::Standby, _) => "replays what is archived from then on, readable".into(),
            (_, TargetAction::Promote) => "takes writes on a new timeline".into(),
            (_, TargetAction::Pause) => hint![
                "waits, readable, for ",
                Action::Promote { directory: None, without_archive: false }
            ],
            (_, TargetAction::Shutdown) => "shuts down".into(),
        };
        lines.push(hint!["then          PostgreSQL ", then]);
        lines.extend(self.onto.iter().flat_map(onto).map(Hint::from));
        for setting in &self.settings {
            if let Some(was) = &setting.was {
                let (name, value, why) = (&setting.name, &setting.value, &setting.why);
                let told = format!("sets          {name} = '{value}' (was {was}): {why}");
                lines.push(told.into());
            }
        }
        let warnings = self.warnings.iter().cloned();
        lines.extend(warnings.map(|warning| hint!["warning       ", warning]));
        let lines = lines.into_iter().reduce(|above, below| hint![above, "\n", below]);
        lines.unwrap_or_default()
    }

    fn what_is_restored(&self) -> Vec<Hint> {
        let backup = &self.backup;
        let purpose = match self.mode {
            Mode::Clone => "a clone, which archives nothing",
            Mode::Primary => "the primary, which goes on archiving",
            Mode::Standby => "a standby, which follows the primary",
        };
        let mut lines = vec![
            format!("restore       cluster {} as {purpose}", self.cluster),
            format!("target        {}", self.target),
        ];
        if !self.left_out_databases.is_empty() {
            let shown = |it: &NamedDatabase| format!("{} (OID {})", it.name, it.oid);
            let shown: Vec<String> = self.left_out_databases.iter().map(shown).collect();
            lines.push(format!("without       databases {}", shown.join(", ")));
        }
        lines.push(format!(
            "backup        {} of {}, {}",
            backup.id,
            backup.finished_at.strftime("%Y-%m-%d %H:%M:%SZ"),
            ByteSize(backup.cluster_bytes)
        ));
        lines.push(format!(
            "replay        LSN {} to {}, {}, timeline {}",
            backup.start_lsn,
            self.wal_end,
            ByteSize(self.wal_end.bytes_since(backup.start_lsn)),
            self.path.iter().map(|span| span.timeline.to_string()).collect::<Vec<_>>().join(" → ")
        ));
        lines.push(format!("stop          {}", self.stop));
        lines.into_iter().map(Hint::from).collect()
    }

    fn what_is_kept(&self) -> Vec<Hint> {
        let kept = format!("keeps         {}", kept(self.last_commit_kept.as_ref()));
        let mut lines = vec![kept.into()];
        lines.extend(left_out(self).into_iter().map(|told| hint!["leaves out    ", told]));
        let ahead = self.server.as_ref().filter(|server| server.is_ahead);
        lines.extend(ahead.map(not_archived).map(Hint::from));
        for line in kept_lines(&self.removals) {
            lines.push(format!("drops kept    {line}").into());
        }
        if self.first_commit_left_out.is_some() {
            for line in undone_lines(&self.removals, self.stop.kept_until()) {
                lines.push(format!("drops undone  {line}").into());
            }
        }
        lines
    }
}

/// So many paths of a list are shown.
const PATHS_SHOWN: usize = 12;

/// What is in the directory, and what becomes of it.
fn onto(onto: &Onto) -> Vec<String> {
    let (files, bytes) = (onto.files, ByteSize(onto.bytes));
    let mut lines = vec![format!(
        "onto          {files} files that are there, {bytes}: what differs is written"
    )];
    let lists = [("removes", &onto.removed), ("leaves there", &onto.stays)];
    for (what, list) in lists.into_iter().filter(|(_, list)| list.count > 0) {
        let shown: Vec<&str> = list.paths.iter().take(PATHS_SHOWN).map(String::as_str).collect();
        let more = match list.count.saturating_sub(shown.len() as u64) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (count, bytes) = (list.count, ByteSize(list.bytes));
        let shown = printable(&shown.join(", "));
        lines.push(format!("{what:<14}{count} that the backup has not, {bytes}: {shown}{more}"));
    }
    lines
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

fn left_out(plan: &RestorePlan) -> Vec<Hint> {
    let first = plan.first_commit_left_out.as_ref();
    let first =
        first.map(|first| format!("transaction {}, and every commit after it", shown(first)));
    let beside = plan.left_behind.iter().map(beside);
    let mut lines: Vec<Hint> = first.into_iter().chain(beside).map(Hint::from).collect();
    if lines.is_empty() {
        lines.push(never_archived(plan));
    }
    lines
}

/// What a server committed last, it may not have archived.
fn never_archived(plan: &RestorePlan) -> Hint {
    let last = plan.last_commit_kept.map(|commit| commit.time);
    let age = plan.asked_at.zip(last).map(|(now, last)| now.duration_since(last).as_secs().max(0));
    let end = age.map(|seconds| format!(" and ends {seconds} s before this plan was made"));
    let end = format!("nothing that is archived{}", end.unwrap_or_default());
    if let Some(server) = &plan.server {
        let rest = if server.is_ahead { "" } else { ", which is all that the server wrote" };
        return hint![end, rest];
    }
    hint![
        end,
        "; what was committed since is in the server's pg_wal alone: where its disk can still be read, ",
        Action::PushPartialWal { cluster: Some(plan.cluster.clone()) },
        " for each file there, then this again"
    ]
}

/// What a server that runs wrote behind the end of what is archived: perhaps the very mistake.
fn not_archived(server: &LivingServer) -> String {
    format!(
        "not archived  LSN {} to {} of the server, which runs: what was committed or dropped there since is not in this plan; `SELECT pg_catalog.pg_switch_wal();` there, wait until it is archived, then this again",
        server.archived_to, server.written_to
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
pub(in crate::restore) fn shown(commit: &CommitPlace) -> String {
    let time = commit.time.strftime("%Y-%m-%d %H:%M:%S%.fZ");
    format!("{} of {time} (LSN {})", commit.xid, commit.lsn)
}
