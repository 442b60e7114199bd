//! A PostgreSQL server for one test, gone when dropped.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{User, geteuid};
use seawall_pgwire::{Config, Connection, Environment, PgError};

pub struct Server {
    process: Child,
    bin: PathBuf,
    dir: tempfile::TempDir,
    pub port: u16,
}

impl Server {
    /// Initialises a cluster and starts it with these settings and this `pg_hba.conf`.
    pub fn start(settings: &str, hba: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("seawall-pgwire").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        give_to_server(dir.path());
        let bin = bin_directory();
        let data = dir.path().join("data");
        let mut initdb = as_server_user(&bin.join("initdb"));
        initdb.args(["--no-sync", "--locale=C", "--encoding=UTF8", "--username=postgres", "-D"]);
        let output = initdb.arg(&data).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::run(bin, dir, settings, hba)
    }

    /// A streaming standby of this server.
    pub fn start_standby(&self) -> Self {
        let dir = tempfile::Builder::new().prefix("seawall-pgwire").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        give_to_server(dir.path());
        let mut copy = as_server_user(&self.bin.join("pg_basebackup"));
        copy.args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf", "-U", "postgres"]);
        copy.arg("-h").arg(self.socket_directory()).arg("-p").arg(self.port.to_string());
        let output = copy.arg("-D").arg(dir.path().join("data")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::run(self.bin.clone(), dir, "", "local all all trust\nhost all all all trust\n")
    }

    fn run(bin: PathBuf, dir: tempfile::TempDir, settings: &str, hba: &str) -> Self {
        let data = dir.path().join("data");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let conf = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             fsync = off\nmax_wal_size = 1GB\nmax_connections = 20\n{settings}\n",
            dir.path().display()
        );
        fs::write(data.join("postgresql.auto.conf"), {
            // Recovery settings of a standby are in there already.
            let before = fs::read_to_string(data.join("postgresql.auto.conf")).unwrap_or_default();
            before + &conf
        })
        .unwrap();
        fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = as_server_user(&bin.join("postgres"));
        let process = command.arg("-D").arg(&data).stderr(log).spawn().unwrap();
        let server = Self { process, bin, dir, port };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = self.dir.path().join("data/postmaster.pid");
        while !fs::read_to_string(&status).is_ok_and(|text| text.contains("ready")) {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the server did not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn socket_directory(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file into the data directory, owned by the server, mode 0600.
    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.dir.path().join("data").join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        give_to_server(&path);
    }

    /// Sends a signal to the postmaster: `SIGHUP` reloads, `SIGQUIT` stops at once.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.process.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    /// A configuration over the Unix socket, with more options.
    pub fn socket(&self, options: &str) -> Config {
        let host = self.socket_directory().display();
        config(&format!("host={host} port={} dbname=postgres {options}", self.port))
    }

    /// A configuration over TCP, with more options.
    pub fn tcp(&self, options: &str) -> Config {
        config(&format!("host=127.0.0.1 port={} dbname=postgres {options}", self.port))
    }

    pub async fn admin(&self) -> Connection {
        connect(&self.socket("user=postgres")).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.signal(nix::sys::signal::Signal::SIGQUIT);
            let _ = self.process.wait();
        }
    }
}

pub fn config(conninfo: &str) -> Config {
    let environment = Environment::new(|_| None).with_os_user("postgres");
    Config::parse(conninfo, &environment).unwrap()
}

pub async fn connect(config: &Config) -> Result<Connection, PgError> {
    Connection::connect(config).await
}

/// The newest server installed, or the one `SEAWALL_TEST_PG_BIN` names.
fn bin_directory() -> PathBuf {
    if let Some(named) = std::env::var_os("SEAWALL_TEST_PG_BIN") {
        return named.into();
    }
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let bins = installed.map(|entry| entry.path().join("bin"));
    bins.filter(|bin| bin.join("initdb").exists())
        .max()
        .expect("a PostgreSQL server: install one or set SEAWALL_TEST_PG_BIN")
}

/// PostgreSQL refuses to run as root; then the user `postgres` does it.
fn server_user() -> Option<User> {
    geteuid().is_root().then(|| User::from_name("postgres").unwrap().expect("a user postgres"))
}

fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).env_clear().env("TZ", "UTC");
    command.current_dir("/tmp");
    if let Some(user) = server_user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

fn give_to_server(path: &Path) {
    if let Some(user) = server_user() {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}
