mod archive_command;
mod newer_timeline;
mod room;

use std::collections::BTreeMap;

use seawall_core::{Action, ByteSize, Hint, counted, hint};
use serde::Serialize;

use super::FindingId;
use super::facts::{Arrival, Facts, RepositoryFacts, Settings, Trouble};
use crate::cluster::ClusterLink;
use crate::wal::Obstacle;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Data is at risk now: WAL or backups do not reach a repository, or could not be restored.
    Critical,
    /// It works, and something that happens in any year would lose data.
    Warning,
    /// It could be better.
    Advice,
}

/// Something that should be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, which does not change.
    pub id: FindingId,
    /// How bad it is.
    pub severity: Severity,
    /// What is the matter.
    pub what: String,
    /// The command or SQL that helps.
    pub fix: Hint,
    /// Why it is known and shall stay so, in the words of the configuration.
    pub acknowledged: Option<String>,
}

/// Less than this much time until a disk is full is a matter for now.
const FULL_SOON_S: f64 = 24.0 * 3600.0;

/// A disk with less room than this share is nearly full.
const NEARLY_FULL: f64 = 0.1;

/// So many links are named.
const LINKS_SHOWN: usize = 20;

/// So many segments wait in a healthy cluster now and then.
const WAITING_SEGMENTS: u64 = 16;

/// What should be looked at, the worst first.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = FindingList(Vec::new());
    found.archive_program(facts);
    found.data_directory(facts);
    found.files(facts);
    found.settings(facts);
    found.privileges(facts);
    found.archiver(facts);
    found.wal_directory(facts);
    for repository in &facts.repositories {
        found.repository(facts, repository);
    }
    found.copies(facts);
    found.0.sort_by_key(|finding| finding.severity);
    found.0
}

/// Notes which findings are known, and why they stay.
pub fn acknowledge(findings: &mut [Finding], reasons: &BTreeMap<FindingId, String>) {
    for finding in findings.iter_mut().filter(|finding| finding.id.may_be_acknowledged()) {
        finding.acknowledged = reasons.get(&finding.id).cloned();
    }
}

/// A backup of the cluster.
fn backup(facts: &Facts) -> Action {
    Action::Backup { cluster: Some(facts.cluster.clone()) }
}

/// What was proven to work, in the order it was looked at.
#[must_use]
pub fn proven(facts: &Facts) -> Vec<String> {
    let mut proven = vec![format!(
        "PostgreSQL {} answers as {}{}",
        facts.server_version,
        facts.missing_rights.role,
        if facts.in_recovery { " (a standby: nothing was switched)" } else { "" }
    )];
    if facts.missing_rights.clone().of_backups().is_empty() {
        proven.push("the role may do all a backup needs".to_owned());
    }
    for repository in &facts.repositories {
        if repository.trouble.is_none() {
            proven.push(format!("the key opens repository {}", repository.name));
        }
        if let Some(Arrival::Proven { seconds, compared }) = repository.arrival {
            proven.push(format!(
                "WAL arrives in repository {} within {seconds:.1} s, and {}",
                repository.name,
                if compared {
                    "reads back as it was written"
                } else {
                    "can be read back; the server's own file is not here to compare it with"
                }
            ));
        }
    }
    proven
}

struct FindingList(Vec<Finding>);

impl FindingList {
    fn add(
        &mut self,
        id: FindingId,
        severity: Severity,
        what: impl Into<String>,
        fix: impl Into<Hint>,
    ) {
        self.0.push(Finding {
            id,
            severity,
            what: what.into(),
            fix: fix.into(),
            acknowledged: None,
        });
    }

    fn data_directory(&mut self, facts: &Facts) {
        if let Some(Trouble { what, fix }) = &facts.data_directory_trouble {
            let what = format!("no backup can be made: {what}");
            self.add(FindingId::DataDirectory, Severity::Critical, what, fix.clone());
        }
    }

    fn files(&mut self, facts: &Facts) {
        if let Some(Trouble { what, fix }) = &facts.files_trouble {
            let what = format!("no backup can be made: {what}");
            self.add(FindingId::UnreadableFiles, Severity::Critical, what, fix.clone());
        }
        let Some(survey) = &facts.files else { return };
        if !survey.followed.is_empty() {
            let what = format!(
                "links in the data directory are followed: {}; what they lead to is in backups, and a restore makes plain files and directories of it",
                listed(&survey.followed)
            );
            let fix =
                "nothing, if that is right; a tablespace is PostgreSQL's own way to another disk";
            self.add(FindingId::LinksFollowed, Severity::Advice, what, fix);
        }
        if !survey.kept.is_empty() {
            let what = format!(
                "links lead out of the data directory to what is in no backup: {}; a restore leaves them out",
                listed(&survey.kept)
            );
            let fix =
                "back it up by other means, if it is needed, or move it into the data directory";
            self.add(FindingId::LinksOut, Severity::Advice, what, fix);
        }
    }

    fn settings(&mut self, facts: &Facts) {
        let settings = &facts.settings;
        if settings.wal_level == "minimal" {
            self.needs_restart(
                settings,
                FindingId::WalLevel,
                "wal_level is minimal: the WAL cannot restore a backup",
                "ALTER SYSTEM SET wal_level = 'replica'; then restart PostgreSQL",
            );
        }
        if settings.archive_mode == "off" {
            self.needs_restart(
                settings,
                FindingId::ArchiveMode,
                "archive_mode is off: no WAL is archived",
                "ALTER SYSTEM SET archive_mode = 'on'; then restart PostgreSQL",
            );
        }
        self.archive_command(facts);
        if settings.archive_timeout_s == 0 {
            self.add(
                FindingId::ArchiveTimeout,
                Severity::Advice,
                "archive_timeout is 0: a quiet server keeps its last commits to itself until 16 MiB of WAL have come together",
                "ALTER SYSTEM SET archive_timeout = '60s'; SELECT pg_catalog.pg_reload_conf();",
            );
        }
        if !settings.full_page_writes {
            self.add(
                FindingId::FullPageWrites,
                Severity::Critical,
                "full_page_writes is off: a crash can leave pages that neither the server nor a restore can mend",
                "ALTER SYSTEM SET full_page_writes = 'on'; SELECT pg_catalog.pg_reload_conf();",
            );
        }
        if !settings.fsync {
            self.add(
                FindingId::Fsync,
                Severity::Critical,
                "fsync is off: a crash of the machine can destroy the whole cluster",
                "ALTER SYSTEM SET fsync = 'on'; SELECT pg_catalog.pg_reload_conf();",
            );
        }
        let told = |name: &str| self.0.iter().any(|finding| finding.id.name() == name);
        let others: Vec<&str> = settings
            .pending_restart
            .iter()
            .map(String::as_str)
            .filter(|name| !told(name))
            .collect();
        if !others.is_empty() {
            self.add(
                FindingId::PendingRestart,
                Severity::Advice,
                format!("changed settings take effect with the restart: {}", others.join(", ")),
                "restart PostgreSQL when it suits",
            );
        }
    }

    /// A setting that has to change and takes effect when the server starts; it may be changed
    /// already.
    fn needs_restart(&mut self, settings: &Settings, id: FindingId, what: &str, sql: &str) {
        if settings.pending_restart.iter().any(|name| name == id.name()) {
            let what = format!("{what}; it was changed, and takes effect with the restart");
            self.add(id, Severity::Critical, what, "restart PostgreSQL");
        } else {
            self.add(id, Severity::Critical, what, sql);
        }
    }

    fn privileges(&mut self, facts: &Facts) {
        let missing = &facts.missing_rights;
        if missing.is_empty() {
            return;
        }
        let (severity, so) = match missing.clone().of_backups().is_empty() {
            true => (Severity::Warning, ": backups do without, and not all is checked"),
            false => (Severity::Critical, ""),
        };
        self.add(FindingId::Privileges, severity, format!("{}{so}", missing.what()), missing.fix());
    }

    fn archiver(&mut self, facts: &Facts) {
        let Some(file) = &facts.archiver.failing_on else { return };
        let ago = facts.archiver.failed_s_ago;
        let ago = ago.map_or_else(String::new, |ago| format!(", last {ago:.0} s ago"));
        let mut what = format!(
            "the archiver fails on {file}{ago} ({} in all)",
            counted(facts.archiver.failed_count, "failure")
        );
        if let Some(seconds) = seconds_until_full(facts) {
            what.push_str(&format!("; pg_wal's disk is full in about {}", rough(seconds)));
        }
        self.add(
            FindingId::Archiver,
            Severity::Critical,
            what,
            "the reason is in PostgreSQL's log; try by hand: the archive_command with that file for %p",
        );
    }

    fn wal_directory(&mut self, facts: &Facts) {
        let Some(wal) = facts.wal_directory else { return };
        if wal.waiting_segments > WAITING_SEGMENTS {
            self.add(
                FindingId::WalWaiting,
                Severity::Warning,
                format!(
                    "{} WAL segments wait for the archiver, and pg_wal has grown to {}",
                    wal.waiting_segments,
                    ByteSize(wal.used_bytes)
                ),
                "SELECT * FROM pg_catalog.pg_stat_archiver; is the repository slow, or does it fail now and then?",
            );
        }
        let share = wal.free_bytes as f64 / wal.disk_bytes.max(1) as f64;
        let soon = seconds_until_full(facts).filter(|seconds| *seconds < FULL_SOON_S);
        let stuck = facts.archiver.failing_on.is_some() || wal.waiting_segments > WAITING_SEGMENTS;
        if share < NEARLY_FULL || (stuck && soon.is_some()) {
            let when = soon.map_or_else(String::new, |seconds| {
                format!("; at the WAL rate of now it is full in about {}", rough(seconds))
            });
            self.add(
                FindingId::WalDisk,
                if stuck { Severity::Critical } else { Severity::Warning },
                format!(
                    "pg_wal's disk has {} free of {}{when}",
                    ByteSize(wal.free_bytes),
                    ByteSize(wal.disk_bytes)
                ),
                "make room: PostgreSQL stops when pg_wal cannot grow",
            );
        }
    }

    fn repository(&mut self, facts: &Facts, repository: &RepositoryFacts) {
        let name = &repository.name;
        if let Some(Trouble { what, fix }) = &repository.trouble {
            let what = format!("repository {name} cannot be used: {what}");
            self.add(FindingId::Repository, Severity::Critical, what, fix.clone());
            return;
        }
        self.arrival(name, repository.arrival.as_ref());
        self.newer_timeline(facts, repository);
        self.room(repository);
        if let Some(obstacle) = &repository.obstacle {
            self.add(
                obstacle_id(obstacle),
                Severity::Critical,
                format!("what repository {name} has newer than its newest backup cannot be restored: {obstacle}"),
                backup(facts),
            );
        }
        if repository.device.is_some() && repository.device == facts.data_device {
            self.add(
                FindingId::SameDisk,
                Severity::Warning,
                format!(
                    "repository {name} is on the database's own disk: whoever loses one loses both"
                ),
                "put the repository on another machine's storage, or add a second one there; if it shall stay so, say why in the cluster's section of the configuration: `acknowledge = { same_disk = \"…\" }`",
            );
        }
        if !repository.has_backup {
            self.add(
                FindingId::NoBackup,
                Severity::Critical,
                format!(
                    "repository {name} holds no backup of {} that can be restored",
                    facts.cluster
                ),
                backup(facts),
            );
        }
    }

    fn arrival(&mut self, name: &str, arrival: Option<&Arrival>) {
        let (what, fix) = match arrival {
            None | Some(Arrival::Proven { .. }) => return,
            Some(Arrival::Missing { segment, archived_until, seconds }) => {
                let until = archived_until
                    .map_or_else(String::new, |lsn| format!("; the archive ends at {lsn}"));
                (
                    format!("WAL does not arrive in repository {name}: {segment} did not within {seconds} s{until}"),
                    "SELECT * FROM pg_catalog.pg_stat_archiver; PostgreSQL's log has what archive_command said".into(),
                )
            }
            Some(Arrival::Different { segment }) => (
                format!("{segment} read back from repository {name} is not what PostgreSQL wrote"),
                hint![Action::Verify, "; then take a new backup"],
            ),
            Some(Arrival::Unreadable(trouble)) => (
                format!("WAL cannot be read back from repository {name}: {}", trouble.what),
                trouble.fix.clone(),
            ),
        };
        self.add(FindingId::WalArrival, Severity::Critical, what, fix);
    }

    fn copies(&mut self, facts: &Facts) {
        if let [only] = facts.repositories.as_slice() {
            self.add(
                FindingId::OneRepository,
                Severity::Advice,
                format!("{} is the only repository: when it is lost, every backup is", only.name),
                "add a second one elsewhere to `repositories` in the configuration",
            );
        }
    }
}

/// Links for people, the first few.
fn listed(links: &[ClusterLink]) -> String {
    let shown = links.iter().take(LINKS_SHOWN);
    let mut shown: Vec<String> =
        shown.map(|link| format!("{} to {}", link.path.display(), link.target.display())).collect();
    if links.len() > LINKS_SHOWN {
        shown.push(format!("and {} more", links.len() - LINKS_SHOWN));
    }
    shown.join(", ")
}

const fn obstacle_id(obstacle: &Obstacle) -> FindingId {
    match obstacle {
        Obstacle::Hole { .. } => FindingId::WalHole,
        Obstacle::MinimalWal { .. } => FindingId::WalMinimal,
    }
}

fn seconds_until_full(facts: &Facts) -> Option<f64> {
    let rate = facts.wal_bytes_per_s.filter(|rate| *rate >= 1.0)?;
    Some(facts.wal_directory?.free_bytes as f64 / rate)
}

fn rough(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use seawall_core::{Lsn, TimelineId};
    use seawall_repo::wal::LsnRange;

    use super::super::facts::WalDirectory;
    use super::*;
    use crate::cluster::{Archiver, MissingRights, Survey};

    const COMMAND: &str =
        "/usr/bin/seawall --config /etc/seawall/seawall.toml wal push %p --cluster main";

    fn repository(name: &str, device: u64) -> RepositoryFacts {
        RepositoryFacts {
            name: name.to_owned(),
            device: Some(device),
            free_bytes: Some(1 << 40),
            trouble: None,
            arrival: Some(Arrival::Proven { seconds: 0.4, compared: true }),
            has_backup: true,
            newest_backup_bytes: Some(1 << 30),
            newest_timeline: Some(TimelineId(1)),
            foreign_wal: Vec::new(),
            obstacle: None,
        }
    }

    fn healthy() -> Facts {
        Facts {
            cluster: "main".parse().unwrap(),
            server_version: "15.18".to_owned(),
            in_recovery: false,
            timeline: Some(TimelineId(1)),
            data_directory_trouble: None,
            files: Some(Survey::default()),
            files_trouble: None,
            settings: Settings {
                wal_level: "replica".to_owned(),
                archive_mode: "on".to_owned(),
                archive_command: COMMAND.to_owned(),
                archive_library: String::new(),
                archive_timeout_s: 60,
                full_page_writes: true,
                fsync: true,
                pending_restart: Vec::new(),
            },
            expected_archive_command: COMMAND.to_owned(),
            archive_command_lacks: None,
            missing_rights: MissingRights {
                role: "postgres".to_owned(),
                database: "postgres".to_owned(),
                ..MissingRights::default()
            },
            archiver: Archiver::default(),
            wal_directory: Some(WalDirectory {
                used_bytes: 64 << 20,
                waiting_segments: 1,
                free_bytes: 50 << 30,
                disk_bytes: 100 << 30,
            }),
            wal_bytes_per_s: Some(1e6),
            data_device: Some(1),
            repositories: vec![repository("primary", 2), repository("offsite", 3)],
        }
    }

    fn ids(facts: &Facts) -> Vec<&'static str> {
        findings(facts).iter().map(|finding| finding.id.name()).collect()
    }

    #[test]
    fn a_healthy_cluster_has_no_findings() {
        assert_eq!(findings(&healthy()), []);
    }

    #[test]
    fn every_setting_that_risks_data_is_found() {
        type Spoil = fn(&mut Settings);
        let spoil: [(&str, Spoil); 7] = [
            ("wal_level", |s| s.wal_level = "minimal".to_owned()),
            ("archive_mode", |s| s.archive_mode = "off".to_owned()),
            ("archive_command", |s| s.archive_command = String::new()),
            ("archive_library", |s| s.archive_library = "basic_archive".to_owned()),
            ("archive_timeout", |s| s.archive_timeout_s = 0),
            ("full_page_writes", |s| s.full_page_writes = false),
            ("fsync", |s| s.fsync = false),
        ];
        for (id, spoil) in spoil {
            let mut facts = healthy();
            spoil(&mut facts.settings);
            assert_eq!(ids(&facts), [id]);
        }
    }

    #[test]
    fn a_change_that_waits_for_a_restart_is_told_as_that() {
        let mut facts = healthy();
        facts.settings.archive_mode = "off".to_owned();
        facts.settings.pending_restart = vec!["archive_mode".to_owned()];
        let found = findings(&facts);
        assert_eq!(ids(&facts), ["archive_mode"]);
        assert!(found[0].what.contains("takes effect with the restart"), "{}", found[0].what);
        assert_eq!(found[0].fix, "restart PostgreSQL".into());
        facts.settings.pending_restart.push("shared_buffers".to_owned());
        assert_eq!(ids(&facts), ["archive_mode", "pending_restart"]);
    }

    #[test]
    fn a_data_directory_of_another_copy_is_found() {
        let mut facts = healthy();
        let what = "it belongs to another copy of the cluster".to_owned();
        facts.data_directory_trouble = Some(Trouble { what, fix: "correct it".into() });
        assert_eq!(ids(&facts), ["data_directory"]);
    }

    #[test]
    fn links_are_named_and_what_cannot_be_read_is_critical() {
        let link = |path: &str| ClusterLink { path: path.into(), target: "/away".into() };
        let mut facts = healthy();
        let survey = facts.files.as_mut().unwrap();
        survey.followed = vec![link("base/5"), link("pg_xact")];
        survey.kept = vec![link("log"); 25];
        facts.files_trouble =
            Some(Trouble { what: "cannot read 2 paths".to_owned(), fix: "own them".into() });
        let found = findings(&facts);
        assert_eq!(ids(&facts), ["unreadable_files", "links_followed", "links_out"]);
        assert!(found[1].what.contains("base/5 to /away, pg_xact to /away;"), "{}", found[1].what);
        assert!(found[2].what.contains("and 5 more"), "{}", found[2].what);
    }

    #[test]
    fn an_archive_command_is_ours_for_this_cluster_only() {
        for (command, severity) in [
            ("/opt/seawall wal push %p --cluster main", Severity::Advice),
            ("seawall wal push --cluster=main %p", Severity::Advice),
            ("seawall wal push %p --cluster other", Severity::Critical),
            ("seawall wal push --cluster main", Severity::Critical),
            ("pgbackrest archive-push %p", Severity::Critical),
            ("seawall wal push --partial %p --cluster main", Severity::Critical),
            ("/bin/true", Severity::Critical),
        ] {
            let mut facts = healthy();
            facts.settings.archive_command = command.to_owned();
            let found = findings(&facts);
            assert_eq!(found.len(), 1, "{command}");
            assert_eq!(
                (found[0].id, found[0].severity),
                (FindingId::ArchiveCommand, severity),
                "{command}"
            );
            assert!(format!("{:?}", found[0].fix).contains(COMMAND));
        }
    }

    #[test]
    fn what_archive_command_names_and_is_not_there_comes_first() {
        let mut facts = healthy();
        facts.settings.wal_level = "minimal".to_owned();
        facts.settings.archive_command = COMMAND.replace("/etc", "/old");
        facts.archive_command_lacks = Some("/old/seawall/seawall.toml".into());
        let found = findings(&facts);
        assert_eq!(ids(&facts), ["archive_program", "wal_level"]);
        assert!(found[0].what.contains("/old/seawall/seawall.toml"), "{}", found[0].what);
        assert!(format!("{:?}", found[0].fix).contains(COMMAND), "{:?}", found[0].fix);
    }

    #[test]
    fn an_archive_command_that_waits_for_a_restart_is_told_as_that() {
        let mut facts = healthy();
        facts.settings.archive_mode = "off".to_owned();
        facts.settings.archive_command = "/bin/true".to_owned();
        let found = findings(&facts);
        assert_eq!(ids(&facts), ["archive_mode", "archive_command"]);
        assert!(found[1].what.contains("takes effect with the restart"), "{}", found[1].what);
    }

    #[test]
    fn a_timeline_that_another_server_writes_is_critical() {
        let mut facts = healthy();
        facts.repositories[1].newest_timeline = Some(TimelineId(2));
        let found = findings(&facts);
        assert_eq!(ids(&facts), ["timelines"]);
        assert_eq!(found[0].severity, Severity::Critical);
        assert!(found[0].what.contains("(SW0609)"), "{}", found[0].what);
        facts.timeline = None;
        assert!(ids(&facts).is_empty());
    }

    #[test]
    fn room_for_the_next_backup_is_looked_at_before_it_is_needed() {
        for (free, severity) in [
            (1 << 29, Some(Severity::Critical)),
            (3 << 29, Some(Severity::Advice)),
            (1 << 32, None),
        ] {
            let mut facts = healthy();
            facts.repositories[0].free_bytes = Some(free);
            let found = findings(&facts);
            let room = found.iter().find(|finding| finding.id == FindingId::RepositoryRoom);
            assert_eq!(room.map(|finding| finding.severity), severity, "{free}");
            assert_eq!(found.len(), usize::from(severity.is_some()));
        }
    }

    #[test]
    fn a_failing_archiver_says_how_long_the_disk_lasts() {
        let mut facts = healthy();
        facts.archiver.failing_on = Some("000000010000000000000007".to_owned());
        facts.wal_bytes_per_s = Some(10e6);
        let found = findings(&facts);
        assert_eq!(ids(&facts), ["archiver", "wal_disk"]);
        assert!(found[0].what.contains("full in about 89 min"), "{}", found[0].what);
    }

    #[test]
    fn a_disk_that_fills_while_archiving_works_is_no_cause_for_alarm() {
        let mut facts = healthy();
        facts.wal_bytes_per_s = Some(1e9);
        assert!(ids(&facts).is_empty());
    }

    #[test]
    fn a_repository_that_cannot_be_used_has_one_finding() {
        let mut facts = healthy();
        facts.repositories[1] = RepositoryFacts {
            trouble: Some(Trouble { what: "wrong key".to_owned(), fix: "use the kit".into() }),
            arrival: None,
            has_backup: false,
            ..repository("offsite", 1)
        };
        assert_eq!(ids(&facts), ["repository"]);
    }

    #[test]
    fn the_same_disk_one_copy_and_no_backup_are_found_worst_first() {
        let mut facts = healthy();
        facts.repositories.truncate(1);
        facts.repositories[0].device = Some(1);
        facts.repositories[0].has_backup = false;
        facts.repositories[0].arrival = Some(Arrival::Missing {
            segment: "000000010000000000000007".to_owned(),
            archived_until: None,
            seconds: 30,
        });
        assert_eq!(ids(&facts), ["wal_arrival", "no_backup", "same_disk", "one_repository"]);
    }

    #[test]
    fn wal_that_no_backup_leads_across_is_critical_and_a_backup_mends_it() {
        let minimal = Obstacle::MinimalWal { lsn: Lsn(0x300_0000) };
        let hole = LsnRange { start: Lsn(0x300_0000), end: Lsn(0x400_0000) };
        let hole = Obstacle::Hole { range: hole, why: "nothing is archived there".to_owned() };
        for (id, obstacle) in [("wal_hole", hole), ("wal_minimal", minimal)] {
            let mut facts = healthy();
            facts.repositories[0].obstacle = Some(obstacle);
            let found = findings(&facts);
            assert_eq!(ids(&facts), [id]);
            assert_eq!(found[0].severity, Severity::Critical);
            assert!(found[0].what.contains("0/3000000"), "{}", found[0].what);
            assert_eq!(found[0].fix, backup(&facts).into());
        }
    }

    #[test]
    fn what_was_not_compared_is_not_said_to_be_as_it_was_written() {
        let mut facts = healthy();
        let said = |facts: &Facts| proven(facts).join("\n").contains("as it was written");
        assert!(said(&facts));
        for repository in &mut facts.repositories {
            repository.arrival = Some(Arrival::Proven { seconds: 0.4, compared: false });
        }
        assert!(!said(&facts));
    }

    #[test]
    fn missing_privileges_come_with_their_grants() {
        let mut facts = healthy();
        facts.missing_rights.functions = vec!["pg_catalog.pg_switch_wal()"];
        let found = findings(&facts);
        assert_eq!(ids(&facts), ["privileges"]);
        let grant = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO postgres;";
        assert!(format!("{:?}", found[0].fix).ends_with(grant), "{:?}", found[0].fix);
        assert_eq!(found[0].severity, Severity::Critical);
        // What only `check` calls keeps no backup from being made.
        facts.missing_rights.functions = vec!["pg_catalog.pg_logical_emit_message(boolean)"];
        assert_eq!(findings(&facts)[0].severity, Severity::Warning);
        assert!(proven(&facts).join("\n").contains("all a backup needs"));
    }

    #[test]
    fn what_is_known_is_noted_and_a_failure_cannot_be() {
        let mut facts = healthy();
        facts.repositories.truncate(1);
        facts.repositories[0].has_backup = false;
        let mut found = findings(&facts);
        let known = [(FindingId::OneRepository, "a copy is made by the storage".to_owned())];
        let failure = [(FindingId::NoBackup, "later".to_owned())];
        acknowledge(&mut found, &known.into_iter().chain(failure).collect());
        let noted: Vec<_> =
            found.iter().map(|one| (one.id.name(), one.acknowledged.is_some())).collect();
        assert_eq!(noted, [("no_backup", false), ("one_repository", true)]);
    }
}
