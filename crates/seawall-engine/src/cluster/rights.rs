//! What the role must be allowed, and the SQL that allows it.

use seawall_core::{Code, Error, Result};
use seawall_pgdata::PgMajor;
use seawall_pgwire::{PgError, quote_ident};

use super::Server;

/// What a role lacks of what Seawall needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingRights {
    /// The role, quoted as SQL wants it.
    pub role: String,
    /// The database of the session, quoted likewise: rights on functions are kept in each.
    pub database: String,
    /// It may not see every setting.
    pub settings: bool,
    /// The functions it may not call, as `GRANT` writes them.
    pub functions: Vec<&'static str>,
}

/// Every setting is seen with this one; the paths among them are hidden from other roles.
const READ_ALL_SETTINGS: &str = "pg_read_all_settings";

const SWITCH_WAL: &str = "pg_catalog.pg_switch_wal()";

/// What backups do without: `check` writes a record with the first before it ends a segment, and
/// `status` asks a standby with the second.
const BESIDE_BACKUPS: [&str; 2] =
    ["pg_catalog.pg_logical_emit_message(", "pg_catalog.pg_last_wal_replay_lsn("];

/// The functions of a backup that nobody but a superuser may call unless told so.
const fn guarded(major: PgMajor) -> [&'static str; 3] {
    if major.number() >= PgMajor::V15.number() {
        [
            "pg_catalog.pg_backup_start(pg_catalog.text, boolean)",
            "pg_catalog.pg_backup_stop(boolean)",
            SWITCH_WAL,
        ]
    } else {
        [
            "pg_catalog.pg_start_backup(pg_catalog.text, boolean, boolean)",
            "pg_catalog.pg_stop_backup(boolean, boolean)",
            SWITCH_WAL,
        ]
    }
}

/// The functions about the server that everybody may call unless somebody took that away.
const fn open(major: PgMajor) -> [&'static str; 7] {
    [
        "pg_catalog.pg_control_system()",
        "pg_catalog.pg_control_checkpoint()",
        "pg_catalog.pg_walfile_name(pg_catalog.pg_lsn)",
        "pg_catalog.pg_current_wal_insert_lsn()",
        "pg_catalog.pg_last_wal_replay_lsn()",
        "pg_catalog.pg_export_snapshot()",
        if major.number() >= PgMajor::V17.number() {
            "pg_catalog.pg_logical_emit_message(boolean, pg_catalog.text, pg_catalog.text, boolean)"
        } else {
            "pg_catalog.pg_logical_emit_message(boolean, pg_catalog.text, pg_catalog.text)"
        },
    ]
}

const ROLE: &str = "select pg_catalog.quote_ident(current_user::pg_catalog.text) as role, \
     pg_catalog.quote_ident(pg_catalog.current_database()::pg_catalog.text) as database, \
     pg_catalog.pg_has_role('pg_read_all_settings'::pg_catalog.name, \
       'usage'::pg_catalog.text) as sees_settings";

impl MissingRights {
    /// Asks the server.
    ///
    /// # Errors
    /// Those of the query.
    pub async fn ask(server: &mut Server) -> Result<Self> {
        let major = server.major();
        let row = server.connection().query_one(ROLE).await?;
        let needed = || guarded(major).into_iter().chain(open(major));
        let literals: Vec<String> = needed().map(|function| format!("'{function}'")).collect();
        let sql = format!(
            "select function, pg_catalog.has_function_privilege(\
               function, 'execute'::pg_catalog.text) as allowed \
             from pg_catalog.unnest(array[{}]::pg_catalog.text[]) as function",
            literals.join(", ")
        );
        let mut functions: Vec<&str> = Vec::new();
        for answer in server.connection().query_rows(&sql).await? {
            let name: String = answer.get("function")?;
            if !answer.get::<bool>("allowed")? {
                functions.extend(needed().filter(|function| *function == name));
            }
        }
        Ok(Self {
            role: row.get("role")?,
            database: row.get("database")?,
            settings: !row.get::<bool>("sees_settings")?,
            functions,
        })
    }

    /// Whether the role may do all that Seawall does.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !self.settings && self.functions.is_empty()
    }

    /// What of it a backup needs.
    #[must_use]
    pub fn of_backups(mut self) -> Self {
        self.functions.retain(|it| !BESIDE_BACKUPS.iter().any(|name| it.starts_with(name)));
        self
    }

    /// Whether it may write a record and end the WAL segment with it.
    #[must_use]
    pub fn may_send_wal(&self) -> bool {
        let [emit_message, _] = BESIDE_BACKUPS;
        !self.functions.iter().any(|it| *it == SWITCH_WAL || it.starts_with(emit_message))
    }

    /// The SQL that gives the role what it lacks, without semicolons.
    #[must_use]
    pub fn grants(&self) -> Vec<String> {
        let mut grants = Vec::new();
        if self.settings {
            grants.push(format!("GRANT {READ_ALL_SETTINGS} TO {}", self.role));
        }
        if !self.functions.is_empty() {
            let functions = self.functions.join(", ");
            grants.push(format!("GRANT EXECUTE ON FUNCTION {functions} TO {}", self.role));
        }
        grants
    }

    /// What to run, and where.
    #[must_use]
    pub fn fix(&self) -> String {
        let grants: Vec<String> = self.grants().iter().map(|sql| format!("{sql};")).collect();
        format!("As a superuser, in database {}: {}", self.database, grants.join(" "))
    }

    /// What the role lacks, in words.
    #[must_use]
    pub fn what(&self) -> String {
        let settings = self.settings.then(|| "see every setting".to_owned());
        let functions =
            (!self.functions.is_empty()).then(|| format!("call {}", self.functions.join(", ")));
        let lacks: Vec<String> = settings.into_iter().chain(functions).collect();
        format!("the role {} may not {}", self.role, lacks.join(", nor "))
    }

    /// The error of a command that needs what is missing.
    #[must_use]
    pub fn error(&self) -> Error {
        Error::new(Code::PrivilegeMissing, self.what()).with_hint(self.fix())
    }
}

/// The SQL that makes a role which may do what Seawall does on this major and nothing else, without
/// semicolons. It is to be run in the database that Seawall connects to.
#[must_use]
pub fn least_role(name: &str, major: PgMajor) -> Vec<String> {
    let role = quote_ident(name);
    let rights = MissingRights {
        role: role.clone(),
        settings: true,
        functions: guarded(major).into(),
        ..MissingRights::default()
    };
    [vec![format!("CREATE ROLE {role} LOGIN")], rights.grants()].concat()
}

/// A question that was refused for want of a right is answered with the `GRANT` that suffices.
pub(super) async fn explain(server: &mut Server, error: PgError) -> Error {
    let error = Error::from(error);
    if error.code() != Code::PrivilegeMissing {
        return error;
    }
    match MissingRights::ask(server).await {
        Ok(missing) if !missing.is_empty() => error.with_hint(missing.fix()),
        Ok(_) => error,
        Err(second) => {
            tracing::debug!("asking for the rights of the role: {}", second.chain());
            error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_told_the_grants_it_lacks_and_no_others() {
        let missing = MissingRights {
            role: "backup".to_owned(),
            database: "postgres".to_owned(),
            settings: false,
            functions: vec![SWITCH_WAL],
        };
        assert_eq!(
            missing.fix(),
            "As a superuser, in database postgres: GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO backup;"
        );
        assert!(!missing.may_send_wal() && !missing.is_empty());
        let settings = MissingRights { settings: true, functions: Vec::new(), ..missing };
        assert_eq!(settings.grants(), ["GRANT pg_read_all_settings TO backup"]);
        assert!(settings.may_send_wal() && !settings.is_empty());
    }

    #[test]
    fn a_backup_needs_nothing_that_only_other_commands_call() {
        for major in PgMajor::ALL {
            let all: Vec<&str> = guarded(major).into_iter().chain(open(major)).collect();
            let missing = MissingRights { functions: all.clone(), ..MissingRights::default() };
            let needed = missing.clone().of_backups().functions;
            assert_eq!(needed.len() + BESIDE_BACKUPS.len(), all.len(), "{needed:?}");
            assert!(!missing.may_send_wal());
            let others = all.into_iter().filter(|it| !needed.contains(it)).collect();
            let beside = MissingRights { functions: others, ..missing };
            assert!(!beside.is_empty() && beside.of_backups().is_empty());
        }
    }

    #[test]
    fn the_least_role_may_do_what_is_not_everybody_s_on_its_major() {
        let before_15 = least_role("seawall", PgMajor::V14).join("; ");
        assert!(before_15.starts_with("CREATE ROLE \"seawall\" LOGIN; GRANT pg_read_all_settings"));
        assert!(before_15.contains("pg_start_backup(pg_catalog.text, boolean, boolean)"));
        let since_15 = least_role("seawall", PgMajor::V15).join("; ");
        assert!(
            since_15.contains("pg_catalog.pg_backup_stop(boolean), pg_catalog.pg_switch_wal()")
        );
    }
}
