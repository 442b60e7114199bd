use std::path::PathBuf;

use seawall_core::{Code, Error, Hint, Lsn, Result, SystemId, TimelineId, WalSegmentSize};
use seawall_pgdata::PgMajor;
use seawall_pgwire::{Config, Connection, PgError};
use seawall_repo::manifest::Database;

use super::bytes::{bytes_of, hex_of, path_of};
use super::rights;

/// A session with a cluster's server.
#[derive(Debug)]
pub struct Server {
    connection: Connection,
    major: PgMajor,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// The major version.
    pub major: PgMajor,
    /// The version as the server shows it, such as `15.18`.
    pub version: String,
    /// What `initdb` gave the cluster.
    pub system_id: SystemId,
    /// Where the server says its files are.
    pub data_directory: PathBuf,
    /// Whether it is a standby, or still recovering.
    pub in_recovery: bool,
    /// Whether data pages carry checksums.
    pub data_checksums: bool,
    /// Bytes of a WAL segment.
    pub wal_segment_size: WalSegmentSize,
    /// `wal_level`.
    pub wal_level: String,
    /// `archive_mode`.
    pub archive_mode: String,
    /// Settings that were changed and take effect only when the server starts.
    pub pending_restart: Vec<String>,
    /// `full_page_writes`.
    pub full_page_writes: bool,
    /// The configuration files that settings name, wherever they lie.
    pub config_files: Vec<ConfigFile>,
}

impl ServerFacts {
    /// The error of a setting under which there can be no backup; `sql` says what to do about it.
    #[must_use]
    pub fn unsuitable(&self, setting: &str, what: &str, sql: Hint) -> Error {
        let waits = self.pending_restart.iter().any(|pending| pending == setting);
        let changed =
            "It was changed in the configuration and waits for a restart: restart PostgreSQL.";
        Error::new(Code::SettingUnsuitable, what).with_hint(if waits {
            changed.into()
        } else {
            sql
        })
    }
}

/// A configuration file that a setting names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// The setting that names it.
    pub setting: String,
    /// Where it is.
    pub path: PathBuf,
}

const FACTS: &str = "select pg_catalog.current_setting('server_version') as version, \
     (select system_identifier from pg_catalog.pg_control_system()) as system_id, \
     pg_catalog.pg_is_in_recovery() as in_recovery, \
     pg_catalog.current_setting('data_checksums') as data_checksums, \
     pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')) as wal_segment_bytes, \
     pg_catalog.current_setting('wal_level') as wal_level, \
     pg_catalog.current_setting('archive_mode') as archive_mode, \
     pg_catalog.current_setting('full_page_writes') as full_page_writes";

const PENDING_RESTART: &str =
    "select name from pg_catalog.pg_settings where pending_restart order by name";

/// Settings that name files. `pg_settings` leaves them out for a role that may not see them, and
/// that would look as if there were none: `current_setting` is an error then.
const CONFIG_FILES: [&str; 3] = ["config_file", "hba_file", "ident_file"];

impl Server {
    /// Connects, for a session that may last.
    ///
    /// # Errors
    /// Those of the connection, and [`Code::UnknownPostgresVersion`].
    pub async fn connect(config: &Config) -> Result<Self> {
        let connection = Connection::connect(config).await?;
        let number = connection.server_version_num();
        let major = PgMajor::from_number(number).ok_or_else(|| {
            Error::new(
                Code::UnknownPostgresVersion,
                format!(
                    "the server is PostgreSQL {}, which this Seawall does not know",
                    number / 10_000
                ),
            )
            .with_hint("PostgreSQL 12 to 18 are supported; use a newer Seawall for newer majors.")
        })?;
        Ok(Self { connection, major })
    }

    /// The server's major version.
    #[must_use]
    pub const fn major(&self) -> PgMajor {
        self.major
    }

    /// The session itself.
    pub const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Asks the server about itself.
    ///
    /// # Errors
    /// Those of the query; [`Code::PrivilegeMissing`], with the SQL that helps, for a role that may
    /// not see settings.
    pub async fn facts(&mut self) -> Result<ServerFacts> {
        let data_directory = hex_of("pg_catalog.current_setting('data_directory')");
        let sql = format!("{FACTS}, {data_directory} as data_directory");
        let row = match self.connection.query_one(&sql).await {
            Ok(row) => row,
            Err(error) => return Err(self.explain(error).await),
        };
        let segment_bytes: u64 = row.get("wal_segment_bytes")?;
        let wal_segment_size = segment_size_of(segment_bytes)?;
        let system_id: i64 = row.get("system_id")?;
        let data_directory = path_of(&row, "data_directory")?;
        let mut pending_restart = Vec::new();
        for waiting in self.connection.query_rows(PENDING_RESTART).await? {
            pending_restart.push(waiting.get("name")?);
        }
        Ok(ServerFacts {
            major: self.major,
            version: row.get("version")?,
            system_id: SystemId(system_id.cast_unsigned()),
            data_directory,
            in_recovery: row.get("in_recovery")?,
            data_checksums: row.get("data_checksums")?,
            wal_segment_size,
            wal_level: row.get("wal_level")?,
            archive_mode: row.get("archive_mode")?,
            pending_restart,
            full_page_writes: row.get("full_page_writes")?,
            config_files: self.config_files().await?,
        })
    }

    /// The error of a question that failed. For want of a right, the hint is the `GRANT` that
    /// suffices.
    pub async fn explain(&mut self, error: PgError) -> Error {
        rights::explain(self, error).await
    }

    async fn config_files(&mut self) -> Result<Vec<ConfigFile>> {
        let settings = CONFIG_FILES.map(|setting| {
            let path = format!("pg_catalog.current_setting('{setting}')");
            format!("{} as {setting}", hex_of(&path))
        });
        let row = self.connection.query_one(&format!("select {}", settings.join(", "))).await?;
        let mut files = Vec::new();
        for setting in CONFIG_FILES {
            let path = path_of(&row, setting)?;
            if path.is_absolute() {
                files.push(ConfigFile { setting: setting.to_owned(), path });
            }
        }
        Ok(files)
    }

    /// Where the next WAL record will be written.
    ///
    /// # Errors
    /// Those of the query.
    pub async fn insert_lsn(&mut self) -> Result<Lsn> {
        Ok(self.connection.query_value("select pg_catalog.pg_current_wal_insert_lsn()").await?)
    }

    /// The timeline that is written.
    ///
    /// # Errors
    /// Those of the query; a standby writes none.
    pub async fn timeline(&mut self) -> Result<TimelineId> {
        let sql = "select pg_catalog.substr(pg_catalog.pg_walfile_name(\
             pg_catalog.pg_current_wal_insert_lsn()), 1, 8)";
        let hex: String = self.connection.query_value(sql).await?;
        u32::from_str_radix(&hex, 16).map(TimelineId).map_err(|error| {
            Error::new(Code::QueryFailed, format!("\"{hex}\" is no timeline")).with_source(error)
        })
    }

    /// Closes the current WAL segment, so that the archiver takes it.
    ///
    /// # Errors
    /// Those of the query; [`Code::PrivilegeMissing`] without EXECUTE on the function.
    pub async fn switch_wal(&mut self) -> Result<Lsn> {
        Ok(self.connection.query_value("select pg_catalog.pg_switch_wal()").await?)
    }

    /// The cluster's databases, by number. Their names are bytes: each database may have an
    /// encoding of its own, and nothing says in which one its name was given.
    ///
    /// # Errors
    /// Those of the query.
    pub async fn databases(&mut self) -> Result<Vec<Database>> {
        let sql = format!(
            "select d.oid::pg_catalog.int8 as oid, {} as name \
             from pg_catalog.pg_database d order by d.oid",
            hex_of("d.datname::pg_catalog.text")
        );
        let mut databases = Vec::new();
        for row in self.connection.query_rows(&sql).await? {
            let name = bytes_of(&row, "name")?.unwrap_or_default();
            databases.push(Database { oid: row.get("oid")?, name: name.into() });
        }
        Ok(databases)
    }

    /// Ends the session.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

/// What a server says of `wal_segment_size`, in bytes.
///
/// # Errors
/// [`Code::UnsupportedCluster`] for what PostgreSQL does not allow.
pub fn segment_size_of(bytes: u64) -> Result<WalSegmentSize> {
    let size = u32::try_from(bytes).ok().and_then(|bytes| WalSegmentSize::new(bytes).ok());
    size.ok_or_else(|| Error::new(Code::UnsupportedCluster, format!("wal_segment_size is {bytes}")))
}
