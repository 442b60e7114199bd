use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use seawall_core::{Code, Error, Result, ResultExt};
use seawall_engine::restore::find_programs;
use seawall_pgdata::PgMajor;
use seawall_pgwire::{Config, Connection, quote_conninfo_value};

use super::narrator::Narrator;
use super::place::{DemoPlace, quiet};
use super::traffic::{Ledger, read_ledger};
use crate::owner::Owner;
use crate::{postgres, run};

/// The programs of one major.
#[derive(Debug, Clone)]
pub struct Programs {
    pub major: PgMajor,
    directory: PathBuf,
}

/// The newest PostgreSQL on this machine.
///
/// # Errors
/// [`Code::NotConfigured`] if there is none.
pub fn find_newest() -> Result<Programs> {
    let found = PgMajor::ALL.into_iter().rev().find_map(|major| {
        let directory = find_programs(major).ok()?;
        directory.join("initdb").is_file().then_some(Programs { major, directory })
    });
    found.ok_or_else(|| {
        Error::new(Code::NotConfigured, "there is no PostgreSQL 12 to 18 on this machine")
            .with_hint("Install a server (`apt install postgresql`), or name its programs: `SEAWALL_PG_BIN=/…/bin seawall demo`.")
    })
}

/// The demo's server, and how to ask it.
#[derive(Debug)]
pub struct DemoServer {
    programs: Programs,
    directory: PathBuf,
    conninfo: String,
}

impl DemoServer {
    pub fn new(programs: Programs, place: &DemoPlace) -> Self {
        let conninfo = format!(
            "host={} port=5432 user=postgres",
            quote_conninfo_value(&place.directory().display().to_string())
        );
        Self { programs, directory: place.join("data"), conninfo }
    }

    pub fn conninfo(&self) -> &str {
        &self.conninfo
    }

    /// # Errors
    /// [`Code::ConninfoInvalid`]
    pub fn connection(&self) -> Result<Config> {
        postgres::resolve(&self.conninfo, &Owner::current())
    }

    /// Makes the cluster and starts it.
    ///
    /// # Errors
    /// [`Code::LocalIo`] with what PostgreSQL's programs said.
    pub fn create(&self, place: &DemoPlace, narrator: &Narrator) -> Result<()> {
        narrator.command("initdb -D $DIR/data && pg_ctl -D $DIR/data start")?;
        let mut initdb = self.program("initdb");
        initdb.args(["--no-sync", "--data-checksums", "--auth=trust", "--username=postgres"]);
        succeed(initdb.arg("-D").arg(&self.directory))?;
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nport = 5432\n",
            place.directory().display().to_string().replace('\'', "''")
        );
        let path = self.directory.join("postgresql.conf");
        let mut text =
            fs::read_to_string(&path).code(Code::LocalIo, || path.display().to_string())?;
        text.push_str(&settings);
        fs::write(&path, text).code(Code::LocalIo, || path.display().to_string())?;
        self.pg_ctl(&["start", "-l", &place.join("server.log").display().to_string()])
    }

    /// # Errors
    /// [`Code::LocalIo`]
    pub fn restart(&self) -> Result<()> {
        let log = self.directory.with_file_name("server.log");
        self.pg_ctl(&["restart", "-m", "fast", "-l", &log.display().to_string()])
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.program("pg_ctl");
        command.args(["--wait", "--silent", "-D"]).arg(&self.directory).args(arguments);
        // The server inherits the descriptors: with a pipe, its end would be waited for.
        let status =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let status = status.status().code(Code::LocalIo, || "cannot run pg_ctl".to_owned())?;
        if status.success() {
            return Ok(());
        }
        Err(Error::new(Code::LocalIo, format!("pg_ctl {}: {status}", arguments.join(" ")))
            .with_hint("The server's log, server.log, says why."))
    }

    fn program(&self, name: &str) -> Command {
        quiet(&self.programs.directory.join(name))
    }

    /// Runs SQL.
    ///
    /// # Errors
    /// Those of the query.
    pub fn sql(&self, sql: &str) -> Result<()> {
        let config = self.connection()?;
        run::runtime()?.block_on(async {
            let mut connection = Connection::connect(&config).await?;
            connection.simple_query(sql).await?;
            connection.close().await;
            Ok(())
        })
    }

    /// The accident; gives its transaction's number.
    ///
    /// # Errors
    /// Those of the query.
    pub fn drop_table(&self) -> Result<u64> {
        let config = self.connection()?;
        run::runtime()?.block_on(async {
            let mut connection = Connection::connect(&config).await?;
            connection.simple_query("begin").await?;
            let xid = connection.query_value("select pg_catalog.txid_current()").await?;
            connection.simple_query("drop table shop.orders").await?;
            connection.simple_query("commit").await?;
            connection.close().await;
            Ok(xid)
        })
    }

    /// Ends the WAL segment, as `archive_timeout` does within a minute, and waits until it is
    /// archived.
    ///
    /// # Errors
    /// [`Code::WalNotArrived`]
    pub fn archive_now(&self, patience: Duration) -> Result<()> {
        let config = self.connection()?;
        run::runtime()?.block_on(async {
            let mut connection = Connection::connect(&config).await?;
            let sql = "select pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal())";
            let segment: String = connection.query_value(sql).await?;
            let sql = "select coalesce(last_archived_wal, '') from pg_catalog.pg_stat_archiver";
            let began = Instant::now();
            while began.elapsed() < patience {
                let archived: String = connection.query_value(sql).await?;
                if archived >= segment {
                    connection.close().await;
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(Error::new(Code::WalNotArrived, format!("{segment} was not archived"))
                .with_hint("The server's log, server.log, says why."))
        })
    }

    /// A port for the restored server.
    ///
    /// # Errors
    /// [`Code::LocalIo`]
    pub fn free_port(&self) -> Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let address = listener.and_then(|listener| listener.local_addr());
        address.map(|address| address.port()).code(Code::LocalIo, || "no port is free".to_owned())
    }

    /// Every order in the restored cluster.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn read_restored(&self, place: &DemoPlace) -> Result<Ledger> {
        let conninfo = running_in(&place.join("restored")).ok_or_else(|| {
            Error::new(Code::RestoredServerFailed, "the restored server does not run")
        })?;
        let config = postgres::resolve(&conninfo, &Owner::current())?;
        run::runtime()?.block_on(read_ledger(&config))
    }

    /// Ends both servers, whatever state they are in.
    pub fn stop_all(&self, place: &DemoPlace) {
        for directory in [self.directory.clone(), place.join("restored")] {
            if directory.join("postmaster.pid").exists() {
                let mut stop = self.program("pg_ctl");
                stop.args(["stop", "-m", "immediate", "--silent", "-D"]).arg(directory);
                if let Err(error) = succeed(&mut stop) {
                    tracing::warn!("{}", error.chain());
                }
            }
        }
    }

    /// Commands to look around with.
    pub fn ways_in(&self, place: &DemoPlace) -> Vec<String> {
        let restored = running_in(&place.join("restored")).unwrap_or_default();
        let pg_ctl = self.programs.directory.join("pg_ctl");
        let stop = |directory: &Path| {
            format!("{} -D {} -m immediate stop", pg_ctl.display(), directory.display())
        };
        vec![
            format!("psql '{}'   # the one with the accident", self.conninfo),
            format!("psql '{restored}'   # the restored one"),
            format!("seawall --config {} info", place.join("seawall.toml").display()),
            format!("{}; {}", stop(&self.directory), stop(&place.join("restored"))),
            format!("rm -r {}", place.directory().display()),
        ]
    }
}

/// How to reach the server in a directory, as its `postmaster.pid` says (pidfile.h, 12–18).
fn running_in(directory: &Path) -> Option<String> {
    let text = fs::read_to_string(directory.join("postmaster.pid")).ok()?;
    let mut lines = text.lines();
    let (port, socket) = (lines.nth(3)?.trim(), lines.next()?.trim());
    Some(format!("host={} port={port} user=postgres", quote_conninfo_value(socket)))
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().code(Code::LocalIo, || format!("cannot run {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(Code::LocalIo, format!("{command:?}: {}: {said}", output.status)))
}
