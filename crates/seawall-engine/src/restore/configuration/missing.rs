//! What the backup's configuration names and this host has not.

use std::net::IpAddr;
use std::path::Path;

use super::backed_up::TLS_FILES;
use super::{Configuration, Purpose, ServerHost};
use crate::restored::Mode;

/// Libraries that do work of their own in the background, in a clone too.
const WITH_JOBS: [&str; 6] =
    ["pg_cron", "pg_partman_bgw", "timescaledb", "pglogical", "bdr", "pg_timetable"];

/// The settings that name libraries, and what becomes of a server without one.
const LIBRARIES: [(&str, &str, &[Mode]); 3] = [
    ("shared_preload_libraries", "the server does not start without", ALL),
    ("session_preload_libraries", "no connection can be made without", ALL),
    ("archive_library", "nothing is archived without", SERVING),
];

const ALL: &[Mode] = &[Mode::Clone, Mode::Primary, Mode::Standby];
const SERVING: &[Mode] = &[Mode::Primary, Mode::Standby];

/// The settings that run programs, and what becomes of a server without.
const COMMANDS: [(&str, &str); 2] = [
    ("archive_command", "nothing is archived without"),
    ("ssl_passphrase_command", "the server may not start without"),
];

/// The settings and files of TLS that are neither on this host nor restored, if TLS is on.
pub(super) fn tls_files(there: &Configuration, host: &ServerHost) -> Vec<(&'static str, String)> {
    if !there.is_on("ssl") {
        return Vec::new();
    }
    let named = TLS_FILES.iter().filter_map(|(setting, default)| {
        let file = there.text(setting).unwrap_or(default);
        (!file.is_empty()).then(|| (*setting, file.to_owned()))
    });
    named
        .filter(|(_, file)| {
            let path = Path::new(file);
            let is_on_host = path.is_absolute() && host.has(path);
            !is_on_host && !there.files.contains(file)
        })
        .collect()
}

/// What a person should know.
pub(super) fn warnings(purpose: Purpose, there: &Configuration, host: &ServerHost) -> Vec<String> {
    let mut warnings = Vec::new();
    if purpose.mode == Mode::Clone {
        warnings.extend(jobs(there));
    } else {
        warnings.extend(tls_files(there, host).into_iter().map(|(setting, file)| {
            format!(
                "{setting} = '{file}': there is no such file on this host, nor is it restored to there, and the server does not start without: bring it back, or `ssl = off`."
            )
        }));
        warnings.extend(addresses(there, host));
        warnings.extend(commands(there, host));
    }
    warnings.extend(libraries(purpose.mode, there, host));
    warnings
}

fn libraries(mode: Mode, there: &Configuration, host: &ServerHost) -> Vec<String> {
    let path: Vec<&str> =
        there.text("dynamic_library_path").unwrap_or("$libdir").split(':').collect();
    let mut warnings = Vec::new();
    for (setting, what, modes) in LIBRARIES {
        let missing = there.list(setting).into_iter().filter(|it| !host.has_library(it, &path));
        let missing: Vec<&str> = missing.collect();
        if !missing.is_empty() && modes.contains(&mode) {
            warnings.push(format!(
                "{setting}: {} is not installed on this host, and {what}: install its package, or change the setting.",
                missing.join(", ")
            ));
        }
    }
    warnings
}

/// PostgreSQL does not start where it can listen on none of its addresses.
fn addresses(there: &Configuration, host: &ServerHost) -> Option<String> {
    let listed = there.list("listen_addresses");
    let is_foreign =
        |text: &&str| text.parse::<IpAddr>().is_ok_and(|address| !host.has_address(address));
    (!listed.is_empty() && listed.iter().all(is_foreign)).then(|| {
        format!(
            "listen_addresses = '{}': this host has none of them, and the server does not start without: change the setting.",
            listed.join(", ")
        )
    })
}

fn commands(there: &Configuration, host: &ServerHost) -> Vec<String> {
    let missing = COMMANDS.iter().filter_map(|(setting, what)| {
        // The whole command may hold secrets; its program does not.
        let program = there.text(setting)?.split_whitespace().next()?.trim_matches(['"', '\'']);
        let is_missing = program.starts_with('/') && !host.has(Path::new(program));
        is_missing.then(|| format!("{setting} runs {program}, which is not on this host: {what}."))
    });
    missing.collect()
}

fn jobs(there: &Configuration) -> Option<String> {
    let loaded = there.list("shared_preload_libraries");
    let loaded: Vec<&str> = loaded.into_iter().filter(|it| WITH_JOBS.contains(it)).collect();
    (!loaded.is_empty()).then(|| {
        format!(
            "shared_preload_libraries has {}: once the clone takes writes, its jobs and subscriptions run there as they do in production. To keep them from it, start it with `-c shared_preload_libraries=`.",
            loaded.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use seawall_pgdata::PgMajor;

    use super::super::configuration;
    use super::*;
    use crate::restored::TargetAction;

    fn told(mode: Mode, lines: &[(&str, &str)]) -> String {
        let purpose = Purpose { mode, then: TargetAction::Promote, major: PgMajor::V15 };
        warnings(purpose, &configuration(lines), &ServerHost::with_programs(None)).join("\n")
    }

    #[test]
    fn files_of_tls_are_in_the_backup_or_on_the_host_or_missed() {
        let mut there = configuration(&[
            ("ssl", "on"),
            ("ssl_cert_file", "/etc/passwd"),
            ("ssl_ca_file", "/nowhere/ca.crt"),
        ]);
        let host = ServerHost::with_programs(None);
        let missing = |there: &Configuration| {
            let files = tls_files(there, &host).into_iter().map(|(_, file)| file);
            files.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(missing(&there), "server.key /nowhere/ca.crt");
        there.files.insert("server.key".to_owned());
        assert_eq!(missing(&there), "/nowhere/ca.crt");
        there.values.insert("ssl".to_owned(), "off".to_owned());
        assert_eq!(missing(&there), "");
    }

    #[test]
    fn what_keeps_a_server_from_starting_here_is_told() {
        let foreign = ("listen_addresses", "203.0.113.7");
        assert!(told(Mode::Primary, &[foreign]).contains("has none of them"));
        assert_eq!(told(Mode::Clone, &[foreign]), "", "it is told to listen elsewhere");
        assert_eq!(told(Mode::Primary, &[("listen_addresses", "203.0.113.7, 127.0.0.1")]), "");
        let command = ("archive_command", "/nowhere/push --token=secret %p");
        let text = told(Mode::Primary, &[command]);
        assert!(text.contains("/nowhere/push") && !text.contains("secret"), "{text}");
        assert_eq!(told(Mode::Clone, &[command]), "");
        let jobs = told(Mode::Clone, &[("shared_preload_libraries", "pg_cron, auto_explain")]);
        assert!(jobs.contains("has pg_cron: "), "{jobs}");
    }
}
