//! Settings that a restored server must not take over as they are, and why.
//!
//! Beside these there are the settings of recovery itself (`execute/settings.rs`) and those that
//! name the server's own files (`execute/external.rs`).

use std::path::{Component, Path};

use seawall_pgdata::PgMajor;
use seawall_pgwire::Conninfo;

use super::{Configuration, ServerHost, missing};
use crate::restored::{Mode, PlannedSetting, TargetAction};

/// What a server is restored for.
#[derive(Debug, Clone, Copy)]
pub(in crate::restore) struct Purpose {
    pub mode: Mode,
    pub then: TargetAction,
    pub major: PgMajor,
}

/// What a row of the tables is judged by.
struct Look<'l> {
    there: &'l Configuration,
    host: &'l ServerHost,
    purpose: Purpose,
    /// What the configuration sets the setting to; nothing if it does not.
    value: &'l str,
}

/// A setting that gets another value.
struct Changed {
    name: &'static str,
    modes: &'static [Mode],
    majors: Majors,
    when: fn(&Look<'_>) -> bool,
    value: &'static str,
    /// Whether the plan says so; what every clone gets is said by its being a clone.
    is_shown: bool,
    why: &'static str,
}

/// A setting that stays, and that a person has to know of.
struct Told {
    name: &'static str,
    modes: &'static [Mode],
    majors: Majors,
    when: fn(&Look<'_>) -> bool,
    what: &'static str,
}

const ALL: &[Mode] = &[Mode::Clone, Mode::Primary, Mode::Standby];
const CLONE: &[Mode] = &[Mode::Clone];
const SERVING: &[Mode] = &[Mode::Primary, Mode::Standby];

/// The majors that know a setting. What a new major does not drop, it has.
#[derive(Debug, Clone, Copy)]
enum Majors {
    Every,
    Since(PgMajor),
    Until(PgMajor),
}

const CHANGED: [Changed; 20] = [
    always("recovery_end_command", ALL, "", "it may run production's scripts"),
    always("archive_cleanup_command", ALL, "", "it may remove what others still need"),
    always("primary_slot_name", ALL, "", "slots are not in a backup, and each is of one standby"),
    Changed {
        majors: Majors::Until(PgMajor::V15),
        ..always("promote_trigger_file", ALL, "", "production's file would promote this server")
    },
    always(
        "recovery_min_apply_delay",
        ALL,
        "0",
        "replay would wait that long; set it again, by ALTER SYSTEM, where a standby shall be late",
    ),
    always("primary_conninfo", &[Mode::Clone, Mode::Primary], "", "it would follow that server"),
    Changed {
        when: |look| look.purpose.then == TargetAction::Pause || look.purpose.mode == Mode::Standby,
        // Without it PostgreSQL shuts down instead of pausing.
        ..always("hot_standby", ALL, "on", "nobody could read it")
    },
    hidden("archive_mode", "off"),
    hidden("archive_command", ""),
    Changed { majors: Majors::Since(PgMajor::V15), ..hidden("archive_library", "") },
    always(
        "synchronous_standby_names",
        CLONE,
        "",
        "no standby follows a clone, and its commits would wait for ever",
    ),
    Changed {
        majors: Majors::Since(PgMajor::V17),
        ..always("synchronized_standby_slots", CLONE, "", "no standby follows a clone")
    },
    always(
        "max_logical_replication_workers",
        CLONE,
        "0",
        "it would take changes that its publishers keep for production",
    ),
    Changed {
        majors: Majors::Until(PgMajor::V14),
        // Debian's is in /run, where production's statistics are.
        ..always(
            "stats_temp_directory",
            &[Mode::Clone, Mode::Standby],
            "pg_stat_tmp",
            "it may be production's",
        )
    },
    Changed {
        majors: Majors::Until(PgMajor::V14),
        when: |look| leads_out(look.value) && !look.host.has(Path::new(look.value)),
        ..always(
            "stats_temp_directory",
            &[Mode::Primary],
            "pg_stat_tmp",
            "this host has no such directory",
        )
    },
    Changed {
        when: |look| leads_out(look.value),
        ..always("log_directory", CLONE, "log", "production may log there")
    },
    Changed {
        when: |look| look.value.contains("syslog"),
        ..always("log_destination", CLONE, "stderr", "production may log there")
    },
    Changed {
        when: |look| look.value.eq_ignore_ascii_case("on"),
        ..always("huge_pages", CLONE, "try", "without huge pages it would not start")
    },
    Changed {
        when: |look| !missing::tls_files(look.there, look.host).is_empty(),
        ..always(
            "ssl",
            CLONE,
            "off",
            "files that it needs are neither on this host nor restored to where it names them, and it would not start",
        )
    },
    Changed {
        when: |look| !look.value.is_empty() && !is_there(look, look.value),
        ..always(
            "unix_socket_directories",
            CLONE,
            "",
            "this host has no such directory, and it would not start; it is reached by TCP",
        )
    },
];

const TOLD: [Told; 9] = [
    Told {
        name: "synchronous_standby_names",
        modes: &[Mode::Primary],
        majors: Majors::Every,
        when: is_set,
        what: "every commit waits until as many of them are connected. Where none will be: `ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf();`",
    },
    Told {
        name: "synchronous_standby_names",
        modes: &[Mode::Standby],
        majors: Majors::Every,
        when: is_set,
        what: "once it is promoted, every commit waits until as many of them are connected. Where none will be: `ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf();`",
    },
    Told {
        name: "synchronized_standby_slots",
        modes: SERVING,
        majors: Majors::Since(PgMajor::V17),
        when: is_set,
        what: "these slots are not in a backup, and logical replication waits for them until they are made again",
    },
    Told {
        name: "primary_conninfo",
        modes: &[Mode::Standby],
        majors: Majors::Every,
        when: is_set,
        what: "it streams from there. If the primary is another server now: `ALTER SYSTEM SET primary_conninfo = '…'; SELECT pg_reload_conf();`",
    },
    Told {
        name: "log_directory",
        modes: SERVING,
        majors: Majors::Every,
        when: |look| look.there.is_on("logging_collector") && leads_out(look.value),
        what: "it logs there, beside the server that was backed up if that is on this host; and it does not start if it may not",
    },
    Told {
        name: "unix_socket_directories",
        modes: SERVING,
        majors: Majors::Every,
        when: |look| {
            let directories = look.there.list("unix_socket_directories");
            directories.iter().any(|directory| !is_there(look, directory))
        },
        what: "this host has not all of these directories, and the server does not start without: make them, or change the setting",
    },
    Told {
        name: "unix_socket_group",
        modes: ALL,
        majors: Majors::Every,
        when: |look| !look.value.is_empty() && !look.host.has_group(look.value),
        what: "this host has no such group, and the server does not start without: make it, or change the setting",
    },
    Told {
        name: "krb_server_keyfile",
        modes: ALL,
        majors: Majors::Every,
        when: |look| {
            let file = look.value.strip_prefix("FILE:").unwrap_or(look.value);
            file.starts_with('/') && !look.host.has(Path::new(file))
        },
        what: "this host has no such file: logins by GSSAPI fail",
    },
    Told {
        name: "huge_pages",
        modes: SERVING,
        majors: Majors::Every,
        when: |look| look.value.eq_ignore_ascii_case("on") && !look.host.has_huge_pages(),
        what: "this host has none set apart (vm.nr_hugepages), and the server does not start without: `huge_pages = try`",
    },
];

/// A row that always counts.
const fn always(
    name: &'static str,
    modes: &'static [Mode],
    value: &'static str,
    why: &'static str,
) -> Changed {
    Changed { name, modes, majors: Majors::Every, when: |_| true, value, is_shown: true, why }
}

/// A row without which a clone would write into production's archive.
const fn hidden(name: &'static str, value: &'static str) -> Changed {
    Changed { is_shown: false, ..always(name, CLONE, value, "a clone archives nothing") }
}

fn is_set(look: &Look<'_>) -> bool {
    !look.value.is_empty()
}

/// Whether a path leaves the data directory.
fn leads_out(path: &str) -> bool {
    let components = || Path::new(path).components();
    path.starts_with('/') || components().any(|it| it == Component::ParentDir)
}

/// Whether this host has a directory for sockets; an abstract name needs none.
fn is_there(look: &Look<'_>, directories: &str) -> bool {
    let directories = directories.split(',').map(|it| it.trim().trim_matches('"'));
    let mut paths = directories.filter(|it| it.starts_with('/'));
    paths.all(|directory| look.host.has(Path::new(directory)))
}

fn applies(purpose: Purpose, modes: &[Mode], majors: Majors) -> bool {
    let knows = match majors {
        Majors::Every => true,
        Majors::Since(first) => first <= purpose.major,
        Majors::Until(last) => purpose.major <= last,
    };
    knows && modes.contains(&purpose.mode)
}

/// The settings that get another value than the backup's configuration gives them.
pub(in crate::restore) fn changed(
    purpose: Purpose,
    there: &Configuration,
    host: &ServerHost,
) -> Vec<PlannedSetting> {
    let rows = CHANGED.iter().filter(|row| applies(purpose, row.modes, row.majors));
    rows.filter_map(|row| {
        let value = there.text(row.name).unwrap_or_default();
        let is_other = !value.is_empty() && value != row.value;
        (row.when)(&Look { there, host, purpose, value }).then(|| PlannedSetting {
            name: row.name.to_owned(),
            value: row.value.to_owned(),
            was: (row.is_shown && is_other).then(|| shown(row.name, value)),
            why: row.why.to_owned(),
        })
    })
    .collect()
}

/// What a person should know of settings that stay.
pub(in crate::restore) fn warnings(
    purpose: Purpose,
    there: &Configuration,
    host: &ServerHost,
) -> Vec<String> {
    let rows = TOLD.iter().filter(|row| applies(purpose, row.modes, row.majors));
    let told = rows.filter_map(|row| {
        let value = there.text(row.name).unwrap_or_default();
        (row.when)(&Look { there, host, purpose, value })
            .then(|| format!("{} = '{}': {}.", row.name, shown(row.name, value), row.what))
    });
    told.chain(missing::warnings(purpose, there, host)).collect()
}

/// A value for people: a connection string may hold a password.
fn shown(name: &str, value: &str) -> String {
    if name != "primary_conninfo" {
        return value.to_owned();
    }
    let Ok(conninfo) = value.parse::<Conninfo>() else { return "…".to_owned() };
    let known = ["host", "hostaddr", "port", "user"].into_iter();
    let known = known.filter_map(|name| Some(format!("{name}={}", conninfo.get(name)?)));
    known.chain(["…".to_owned()]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::configuration;
    use super::*;

    const NOWHERE: &str = "/nowhere/at/all";

    fn purpose(mode: Mode, major: PgMajor) -> Purpose {
        Purpose { mode, then: TargetAction::Promote, major }
    }

    fn host() -> ServerHost {
        ServerHost::with_programs(None)
    }

    /// What a setting becomes.
    fn becomes(mode: Mode, major: PgMajor, line: (&str, &str)) -> Option<PlannedSetting> {
        let all = changed(purpose(mode, major), &configuration(&[line]), &host());
        let mut found = all.into_iter().filter(|setting| setting.name == line.0);
        let first = found.next();
        assert_eq!(found.next(), None, "{} is set once", line.0);
        first
    }

    #[test]
    fn what_a_clone_would_share_with_production_or_wait_for_is_its_own() {
        for (name, was, value) in [
            ("recovery_min_apply_delay", "1h", "0"),
            ("synchronous_standby_names", "ANY 1 (a, b)", ""),
            ("log_directory", "/var/log/postgresql", "log"),
            ("log_directory", "../log", "log"),
            ("log_destination", "stderr,syslog", "stderr"),
            ("huge_pages", "on", "try"),
            ("stats_temp_directory", "/run/postgresql/x", "pg_stat_tmp"),
            ("unix_socket_directories", NOWHERE, ""),
            ("max_logical_replication_workers", "8", "0"),
        ] {
            let setting = becomes(Mode::Clone, PgMajor::V14, (name, was)).expect(name);
            assert_eq!((setting.value.as_str(), setting.was.as_deref()), (value, Some(was)));
        }
        let archiving = becomes(Mode::Clone, PgMajor::V15, ("archive_mode", "always")).unwrap();
        assert_eq!((archiving.value.as_str(), archiving.was), ("off", None));
        assert_eq!(becomes(Mode::Clone, PgMajor::V14, ("log_directory", "log")), None);
        assert_eq!(becomes(Mode::Clone, PgMajor::V15, ("stats_temp_directory", "/x")), None);
    }

    #[test]
    fn a_primary_keeps_what_is_its_own_and_a_standby_is_not_late() {
        for name in ["synchronous_standby_names", "archive_command", "log_directory"] {
            assert_eq!(becomes(Mode::Primary, PgMajor::V15, (name, "/x")), None, "{name}");
        }
        let delay = becomes(Mode::Standby, PgMajor::V15, ("recovery_min_apply_delay", "2h"));
        assert_eq!(delay.unwrap().was.as_deref(), Some("2h"));
        assert_eq!(becomes(Mode::Standby, PgMajor::V15, ("primary_conninfo", "host=a")), None);
        let kept = becomes(Mode::Primary, PgMajor::V14, ("stats_temp_directory", "/tmp"));
        assert_eq!(kept, None);
        assert!(becomes(Mode::Primary, PgMajor::V14, ("stats_temp_directory", NOWHERE)).is_some());
    }

    #[test]
    fn what_stays_and_matters_is_told_and_no_password_is() {
        let told = |mode, line: (&str, &str)| {
            let there = configuration(&[line, ("logging_collector", "on")]);
            warnings(purpose(mode, PgMajor::V17), &there, &host()).join("\n")
        };
        for (mode, name, value) in [
            (Mode::Primary, "synchronous_standby_names", "a"),
            (Mode::Standby, "synchronous_standby_names", "a"),
            (Mode::Primary, "synchronized_standby_slots", "a"),
            (Mode::Standby, "log_directory", "/var/log/postgresql"),
            (Mode::Primary, "unix_socket_directories", NOWHERE),
            (Mode::Clone, "unix_socket_group", "no-such-group"),
            (Mode::Clone, "krb_server_keyfile", "FILE:/nowhere/keytab"),
        ] {
            let text = told(mode, (name, value));
            assert!(text.starts_with(&format!("{name} = '{value}': ")), "{text}");
        }
        let conninfo = "host=db1 user=repl password=open-sesame";
        let text = told(Mode::Standby, ("primary_conninfo", conninfo));
        assert!(text.contains("host=db1 user=repl …'") && !text.contains("sesame"), "{text}");
        let dropped = becomes(Mode::Clone, PgMajor::V15, ("primary_conninfo", conninfo)).unwrap();
        assert_eq!(dropped.was.as_deref(), Some("host=db1 user=repl …"));
        assert_eq!(told(Mode::Primary, ("unix_socket_directories", "/tmp, @x")), "");
    }
}
