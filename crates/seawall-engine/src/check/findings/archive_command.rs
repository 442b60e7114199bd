use seawall_core::Hint;

use super::{Facts, FindingList, Severity};
use crate::check::FindingId;
use crate::cluster::is_push_of;

impl FindingList {
    /// Where the program or its configuration is not there, no try can succeed.
    pub(super) fn archive_program(&mut self, facts: &Facts) {
        let Some(path) = &facts.archive_command_lacks else { return };
        let what = format!(
            "archive_command names {}, which is not there: no WAL is archived",
            path.display()
        );
        self.add(FindingId::ArchiveProgram, Severity::Critical, what, set(facts));
    }

    pub(super) fn archive_command(&mut self, facts: &Facts) {
        let settings = &facts.settings;
        if !settings.archive_library.is_empty() {
            self.add(
                FindingId::ArchiveLibrary,
                Severity::Critical,
                format!(
                    "archive_library is {}: archive_command is not used",
                    settings.archive_library
                ),
                "ALTER SYSTEM SET archive_library = ''; SELECT pg_catalog.pg_reload_conf();",
            );
        }
        let command = &settings.archive_command;
        // What it names and is not there was told already.
        if *command == facts.expected_archive_command || facts.archive_command_lacks.is_some() {
            return;
        }
        let (severity, what) = if command.is_empty() {
            (Severity::Critical, "archive_command is empty: no WAL is archived".to_owned())
        } else if !is_push_of(command, facts.cluster.as_str()) {
            let name = &facts.cluster;
            let what =
                format!("archive_command does not push to Seawall as cluster {name}: {command}");
            (Severity::Critical, what)
        } else {
            let what = format!(
                "archive_command is not the one of this program and configuration: {command}"
            );
            (Severity::Advice, what)
        };
        let waits = if settings.archive_mode == "off" {
            "; with archive_mode it takes effect with the restart"
        } else {
            ""
        };
        self.add(FindingId::ArchiveCommand, severity, format!("{what}{waits}"), set(facts));
    }
}

/// The SQL that sets it right.
fn set(facts: &Facts) -> Hint {
    let expected = facts.expected_archive_command.replace('\'', "''");
    format!("ALTER SYSTEM SET archive_command = '{expected}'; SELECT pg_catalog.pg_reload_conf();")
        .into()
}
