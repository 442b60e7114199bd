//! A pooler between Seawall and PostgreSQL is noticed before anything is read, and named.

mod support;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use seawall_testkit::process::wait_until;
use support::{LIMIT, Protected, seawall};

/// What Seawall sends in its startup packet, for a pooler that is told to swallow it.
const SWALLOW: &str = "search_path,statement_timeout,lock_timeout,\
    idle_in_transaction_session_timeout,tcp_user_timeout,default_transaction_isolation,\
    default_transaction_deferrable,bytea_output";

/// A PgBouncer in front of a server.
struct Pooler {
    process: Child,
    port: u16,
}

impl Pooler {
    fn start(house: &Protected, room: &str, mode: &str, swallow: &str) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let directory = house.room(room);
        house.pg.owner().create_dir(&directory, 0o755)?;
        let write = |name: &str, text: &str| -> Result<()> {
            let path = directory.join(name);
            std::fs::write(&path, text)?;
            house.pg.owner().chown(&path)
        };
        write("users", "\"postgres\" \"\"\n")?;
        write(
            "ini",
            &format!(
                "[databases]\n* = {}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 auth_type = trust\nauth_file = {}\npool_mode = {mode}\nunix_socket_dir =\n\
                 admin_users = postgres\nignore_startup_parameters = {swallow}\n",
                server_only(&house.pg.connection_string()),
                directory.join("users").display(),
            ),
        )?;
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
            .into_iter()
            .find(|p| Path::new(p).exists());
        let program = program.context("no pgbouncer: cargo xtask setup --tests")?;
        let mut command: Command = house.pg.owner().command(program);
        let process = command.args(["-q"]).arg(directory.join("ini")).spawn()?;
        let pooler = Self { process, port };
        wait_until("the pooler", LIMIT, || Ok(TcpStream::connect(("127.0.0.1", port)).is_ok()))?;
        Ok(pooler)
    }

    fn connection(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={database}", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The words of a connection string that say where the server is.
fn server_only(connection: &str) -> String {
    let words =
        connection.split(' ').filter(|word| word.starts_with("host=") || word.starts_with("port="));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_pooler_is_named_before_anything_is_read() -> Result<()> {
    let house = Protected::start()?;
    for (room, mode, swallow, database) in [
        ("refuses", "session", "", "postgres"),
        ("swallows", "session", SWALLOW, "postgres"),
        ("shares", "transaction", SWALLOW, "postgres"),
        ("console", "session", SWALLOW, "pgbouncer"),
    ] {
        let pooler = Pooler::start(&house, room, mode, swallow)?;
        let connection = pooler.connection(database);
        for command in [vec!["backup"], vec!["check"], vec!["adopt", "--yes"]] {
            let words = command.into_iter().chain(["--connection", &connection]);
            let output = house.command(words).fail(2).with_context(|| room.to_owned())?;
            ensure!(output.stderr.contains("SW0110"), "{room}: {}", output.stderr);
            ensure!(output.stderr.contains("pooler"), "{room}: {}", output.stderr);
            ensure!(output.stderr.contains("directly"), "{room}: {}", output.stderr);
        }
        let there = house.command(["list", "--json"]).succeed()?;
        ensure!(!there.stdout.contains("complete"), "{}", there.stdout);
    }
    // The real port is told where the pooler lets a question through.
    let pooler = Pooler::start(&house, "tells", "transaction", SWALLOW)?;
    let init = seawall()?.command(["init", "other", "--no-kit", "--connection"]);
    let init = init.arg(pooler.connection("postgres")).arg("--repo").arg(house.room("new"));
    let output = init.arg("--config").arg(house.room("new.toml")).fail(2)?;
    let port = house.pg.psql("SHOW port")?;
    ensure!(output.stderr.contains(&format!("its port is {port}")), "{}", output.stderr);
    ensure!(!house.room("new").exists() && !house.room("new.toml").exists());
    Ok(())
}
