//! Bytes to and from a server: a Unix socket or TCP.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use crate::PgError;
use crate::config::{Config, Host, HostPlace, Keepalive};
use crate::sessions::Watched;

/// Anything a session can run over.
pub(crate) trait Transport:
    AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug
{
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug> Transport for T {}

/// A stream to a server, encrypted or not.
pub(crate) type Stream = Box<dyn Transport>;

/// One address of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// The socket's path; abstract if it begins with `@`.
    Unix(PathBuf),
    Tcp {
        /// As the connection string has it; certificates are checked against it.
        name: String,
        socket: SocketAddr,
    },
}

impl Address {
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp { .. })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "socket \"{}\"", path.display()),
            Self::Tcp { name, socket } if *name == socket.ip().to_string() => {
                write!(f, "host \"{name}\", port {}", socket.port())
            }
            Self::Tcp { name, socket } => {
                write!(f, "host \"{name}\" ({}), port {}", socket.ip(), socket.port())
            }
        }
    }
}

/// Every address of a host.
pub(crate) async fn addresses(host: &Host) -> Result<Vec<Address>, PgError> {
    match &host.place {
        // `UNIXSOCK_PATH` (pqcomm.h)
        HostPlace::Socket(directory) => {
            Ok(vec![Address::Unix(directory.join(format!(".s.PGSQL.{}", host.port)))])
        }
        HostPlace::Tcp { name, address: Some(ip) } => {
            let socket = SocketAddr::new(*ip, host.port);
            Ok(vec![Address::Tcp { name: name.clone(), socket }])
        }
        HostPlace::Tcp { name, address: None } => {
            let found = lookup_host((name.as_str(), host.port)).await;
            let found = found.map_err(|error| {
                PgError::Unreachable(io::Error::other(format!("cannot look it up: {error}")))
            })?;
            Ok(found.map(|socket| Address::Tcp { name: name.clone(), socket }).collect())
        }
    }
}

/// Connects, without TLS.
pub(crate) async fn dial(address: &Address, config: &Config) -> Result<Stream, PgError> {
    match address {
        Address::Unix(path) => {
            let stream =
                UnixStream::connect(socket_path(path)).await.map_err(PgError::Unreachable)?;
            check_peer(&stream, config.require_peer.as_deref())?;
            Ok(watched(stream, config))
        }
        Address::Tcp { socket, .. } => {
            let stream = TcpStream::connect(socket).await.map_err(PgError::Unreachable)?;
            set_options(&stream, &config.keepalive).map_err(PgError::Unreachable)?;
            Ok(watched(stream, config))
        }
    }
}

fn watched<S: Transport + AsFd + 'static>(socket: S, config: &Config) -> Stream {
    match &config.sessions {
        Some(sessions) => Box::new(Watched::new(socket, sessions.clone())),
        None => Box::new(socket),
    }
}

/// Linux's abstract socket names begin with a NUL, which people write as `@`.
fn socket_path(path: &Path) -> PathBuf {
    match path.as_os_str().as_bytes().split_first() {
        Some((b'@', name)) => {
            let name: Vec<u8> = std::iter::once(0).chain(name.iter().copied()).collect();
            PathBuf::from(std::ffi::OsStr::from_bytes(&name))
        }
        _ => path.to_owned(),
    }
}

/// `requirepeer`: the operating system user the server must run as.
fn check_peer(stream: &UnixStream, required: Option<&str>) -> Result<(), PgError> {
    let Some(required) = required else { return Ok(()) };
    let uid = stream.peer_cred().map_err(PgError::Unreachable)?.uid();
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let name = user.map_or_else(|| uid.to_string(), |user| user.name);
    if name == required {
        return Ok(());
    }
    Err(PgError::Unsuitable(format!(
        "requirepeer names \"{required}\", and the server runs as \"{name}\""
    )))
}

fn set_options(stream: &TcpStream, keepalive: &Keepalive) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if keepalive.enabled {
        let settings = TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.count);
        socket.set_keepalive(true)?;
        socket.set_tcp_keepalive(&settings)?;
    }
    #[cfg(target_os = "linux")]
    if keepalive.user_timeout.is_some() {
        socket.set_tcp_user_timeout(keepalive.user_timeout)?;
    }
    Ok(())
}
