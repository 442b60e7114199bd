//! The server's settings an archive needs, and the SQL that makes them so.

use seawall_core::Result;
use seawall_engine::cluster::Server;
use seawall_pgwire::quote_literal;

/// The settings as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub wal_level: String,
    pub archive_mode: String,
    pub archive_command: String,
    /// 12 and later, empty; `archive_library`, 15 and later, excludes `archive_command`.
    pub archive_library: String,
    /// Seconds; 0 is never.
    pub archive_timeout_s: u32,
}

/// What remains to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// SQL statements, without semicolons, and what each is for.
    pub statements: Vec<(String, String)>,
    /// Whether a statement takes effect only when the server starts.
    pub restart: bool,
}

const SQL: &str = "select pg_catalog.current_setting('wal_level') as wal_level, \
     pg_catalog.current_setting('archive_mode') as archive_mode, \
     pg_catalog.current_setting('archive_command') as archive_command, \
     coalesce(pg_catalog.current_setting('archive_library', true), '') as archive_library, \
     (select setting::pg_catalog.int4 from pg_catalog.pg_settings \
       where name OPERATOR(pg_catalog.=) 'archive_timeout') as archive_timeout";

impl Settings {
    /// Asks the server.
    ///
    /// # Errors
    /// Those of the query.
    pub async fn ask(server: &mut Server) -> Result<Self> {
        let row = server.connection().query_one(SQL).await?;
        let command: String = row.get("archive_command")?;
        Ok(Self {
            wal_level: row.get("wal_level")?,
            archive_mode: row.get("archive_mode")?,
            // What SHOW says while archive_mode is off.
            archive_command: if command == "(disabled)" { String::new() } else { command },
            archive_library: row.get("archive_library")?,
            archive_timeout_s: row.get("archive_timeout")?,
        })
    }

    /// What must change so that WAL is archived with `archive_command`.
    pub fn missing(&self, archive_command: &str) -> Steps {
        let mut steps = Steps::default();
        if self.wal_level == "minimal" {
            steps.set("wal_level", "replica", "minimal WAL restores no backup; takes a restart");
            steps.restart = true;
        }
        if self.archive_mode == "off" {
            steps.set("archive_mode", "on", "takes a restart");
            steps.restart = true;
        }
        if self.archive_command != archive_command {
            let why = match self.archive_command.as_str() {
                "" => "takes a reload".to_owned(),
                other => format!("takes a reload; it is now: {other}"),
            };
            steps.set("archive_command", archive_command, &why);
        }
        if !self.archive_library.is_empty() {
            let why = format!("it is {}, which excludes archive_command", self.archive_library);
            steps.set("archive_library", "", &why);
        }
        if self.archive_timeout_s == 0 {
            steps.set("archive_timeout", "60s", "a quiet server's last commits wait no longer");
        }
        if !steps.statements.is_empty() {
            // Before a restart too: the server then knows that it waits for one, and can say so.
            steps.statements.push((
                "SELECT pg_catalog.pg_reload_conf()".to_owned(),
                "takes it over".to_owned(),
            ));
        }
        steps
    }
}

impl Steps {
    fn set(&mut self, name: &str, value: &str, why: &str) {
        let sql = format!("ALTER SYSTEM SET {name} = {}", quote_literal(value).trim_start());
        self.statements.push((sql, why.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: &str =
        "/usr/bin/seawall --config '/etc/sea wall.toml' wal push %p --cluster main";

    fn ready() -> Settings {
        Settings {
            wal_level: "replica".to_owned(),
            archive_mode: "on".to_owned(),
            archive_command: COMMAND.to_owned(),
            archive_library: String::new(),
            archive_timeout_s: 60,
        }
    }

    fn sql(steps: &Steps) -> Vec<&str> {
        steps.statements.iter().map(|(sql, _)| sql.as_str()).collect()
    }

    #[test]
    fn a_server_that_is_ready_needs_nothing() {
        assert_eq!(ready().missing(COMMAND), Steps::default());
    }

    #[test]
    fn a_fresh_server_needs_a_restart() {
        let fresh = Settings {
            archive_mode: "off".to_owned(),
            archive_command: String::new(),
            archive_timeout_s: 0,
            ..ready()
        };
        let steps = fresh.missing(COMMAND);
        assert!(steps.restart);
        assert_eq!(
            sql(&steps),
            [
                "ALTER SYSTEM SET archive_mode = 'on'",
                "ALTER SYSTEM SET archive_command = '/usr/bin/seawall --config ''/etc/sea wall.toml'' wal push %p --cluster main'",
                "ALTER SYSTEM SET archive_timeout = '60s'",
                "SELECT pg_catalog.pg_reload_conf()",
            ]
        );
    }

    #[test]
    fn another_tool_s_archive_command_is_shown_before_it_goes() {
        let other =
            Settings { archive_command: "pgbackrest archive-push %p".to_owned(), ..ready() };
        let steps = other.missing(COMMAND);
        assert!(!steps.restart);
        assert_eq!(sql(&steps).last(), Some(&"SELECT pg_catalog.pg_reload_conf()"));
        assert!(steps.statements[0].1.contains("pgbackrest archive-push %p"));
    }

    #[test]
    fn minimal_wal_and_an_archive_library_are_in_the_way() {
        let odd = Settings {
            wal_level: "minimal".to_owned(),
            archive_library: "basic_archive".to_owned(),
            ..ready()
        };
        let steps = odd.missing(COMMAND);
        assert!(steps.restart);
        assert_eq!(
            sql(&steps),
            [
                "ALTER SYSTEM SET wal_level = 'replica'",
                "ALTER SYSTEM SET archive_library = ''",
                "SELECT pg_catalog.pg_reload_conf()",
            ]
        );
    }
}
