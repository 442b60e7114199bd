//! A server that says whatever a test wants, and what a client makes of it.

use std::future::Future;
use std::time::{Duration, Instant};

use seawall_pgwire::{Config, Connection, Environment, Limits, PgError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the client may take for a question here. Then it asks for an end, and waits for it.
pub const QUERY_TIME: Duration = Duration::from_millis(400);
const CANCEL_TIME: Duration = Duration::from_millis(400);

/// Longer than this no test lasts, whatever the machine does besides.
pub const BOUND: Duration = Duration::from_secs(20);

/// What the server process says its number is.
const BACKEND_PID: i32 = 4711;

/// A client, as the server sees it.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    /// Sends bytes. A client that has gone away is no failure of the server's.
    pub async fn say(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Says the same again until the client goes away.
    pub async fn say_for_ever(&mut self, bytes: &[u8]) {
        while self.say(bytes).await {
            tokio::task::yield_now().await;
        }
    }

    /// Says nothing more, and stays.
    pub async fn stay_silent(&mut self) {
        let mut ignored = [0; 1024];
        while self.stream.read(&mut ignored).await.is_ok_and(|count| count > 0) {}
    }

    /// Reads the packet a connection begins with, and declines TLS.
    pub async fn startup_packet(&mut self) -> Vec<u8> {
        loop {
            let length = self.stream.read_u32().await.unwrap();
            let mut packet = vec![0; usize::try_from(length).unwrap() - 4];
            self.stream.read_exact(&mut packet).await.unwrap();
            if packet != 80_877_103_u32.to_be_bytes() {
                return packet;
            }
            self.stream.write_all(b"N").await.unwrap();
        }
    }

    /// The next message: its tag and its content.
    pub async fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let tag = self.stream.read_u8().await.ok()?;
        let length = self.stream.read_u32().await.ok()?;
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((tag, body))
    }

    /// Lets the client in as a server does, without asking for a password.
    pub async fn let_in(&mut self) {
        self.startup_packet().await;
        self.say(&[request(0, b""), welcome()].concat()).await;
    }

    /// Lets the client in, answers what every client asks first, and reads its question.
    pub async fn until_question(&mut self) -> Option<String> {
        self.let_in().await;
        self.question().await
    }

    /// The next question that is not one about the session itself, which is answered.
    pub async fn question(&mut self) -> Option<String> {
        loop {
            let (tag, body) = self.message().await?;
            if tag != b'Q' {
                return None;
            }
            let sql = String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
            if !sql.contains("pg_backend_pid") {
                return Some(sql);
            }
            let pid = BACKEND_PID.to_string();
            let answer =
                rows(&["pid", "search_path", "port", "timeouts"], &[&[&pid, "", "5432", ""]]);
            self.say(&answer).await;
        }
    }
}

/// A message of the server.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

/// A request for authentication.
pub fn request(code: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), data].concat())
}

pub fn parameter(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

pub fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// What follows a login: a version, the key, and that the server is ready.
pub fn welcome() -> Vec<u8> {
    let key = [BACKEND_PID.to_be_bytes(), 1_i32.to_be_bytes()].concat();
    [parameter("server_version", "15.4"), message(b'K', &key), ready()].concat()
}

pub fn columns(names: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(names.len()).unwrap().to_be_bytes().to_vec();
    for name in names {
        body.extend(name.as_bytes());
        body.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]);
    }
    message(b'T', &body)
}

pub fn row(values: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value.as_bytes());
    }
    message(b'D', &body)
}

pub fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

/// A whole answer.
pub fn rows(names: &[&str], values: &[&[&str]]) -> Vec<u8> {
    let mut answer = columns(names);
    for values in values {
        answer.extend(row(values));
    }
    answer.extend(complete("SELECT"));
    answer.extend(ready());
    answer
}

/// An error or a notice: `E` or `N`.
pub fn complaint(tag: u8, severity: &str, sqlstate: &str, text: &str) -> Vec<u8> {
    message(tag, format!("S{severity}\0V{severity}\0C{sqlstate}\0M{text}\0\0").as_bytes())
}

/// Serves every connection alike; gives the port.
pub async fn serve<F, S>(behave: S) -> u16
where
    S: Fn(Client) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(behave(Client { stream }));
        }
    });
    port
}

pub fn config(port: u16, options: &str) -> Config {
    let environment = Environment::new(|_| None).with_os_user("postgres");
    let conninfo =
        format!("host=127.0.0.1 port={port} sslmode=disable connect_timeout=2 {options}");
    let limits = Limits { query_time: QUERY_TIME, cancel_time: CANCEL_TIME, ..Limits::default() };
    Config::parse(&conninfo, &environment).unwrap().with_limits(limits)
}

/// Connects and asks one question; a test fails if that does not end by itself.
pub async fn ask(port: u16, options: &str) -> Result<String, PgError> {
    let ask = async {
        let mut session = Connection::connect(&config(port, options)).await?;
        session.query_value("SELECT 1").await
    };
    tokio::time::timeout(BOUND, ask).await.expect("the client waits for ever")
}

/// How the memory of this process grew at its peak while `work` was done, in bytes. The server is in
/// the same process, and holds no more than what it says at a time.
pub async fn peak_growth<T>(work: impl Future<Output = T>) -> (T, u64) {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak();
    let done = work.await;
    (done, peak().saturating_sub(before))
}

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Runs until done, at most for [`BOUND`].
pub fn within_bound(begun: Instant) {
    assert!(begun.elapsed() < BOUND, "it took {:?}", begun.elapsed());
}
