//! Where a server that is started listens: a copy beside production on a port of its own, a server
//! that takes production's place where its configuration says.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use seawall_core::{Code, Error, Result};

use crate::restored::Mode;

/// The ports tried when none is given: those after PostgreSQL's own.
const PORTS: std::ops::Range<u16> = 5433..5533;

/// Where sockets are put: where clients look, else anywhere.
const SOCKET_DIRECTORIES: [&str; 2] = ["/run/postgresql", "/tmp"];

/// What the server's command line says; what it does not say is as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The port.
    pub port: Option<u16>,
    /// The directory of its socket.
    pub socket_directory: Option<PathBuf>,
}

impl Listen {
    const AS_CONFIGURED: Self = Self { port: None, socket_directory: None };

    /// Chooses where a server of that mode listens. `asked` is the port that was asked for.
    ///
    /// # Errors
    /// [`Code::RestoredServerFailed`] if the port is taken, with one that is free.
    pub fn choose(mode: Mode, asked: Option<u16>, configured: u16) -> Result<Self> {
        match (mode, asked) {
            (Mode::Clone, Some(port)) => {
                refuse_taken(port, "Give another")?;
                Self::beside(port)
            }
            (Mode::Clone, None) => Self::beside(free_port()?),
            (Mode::Primary | Mode::Standby, Some(port)) => {
                refuse_taken(port, "Give another")?;
                Ok(Self { port: Some(port), socket_directory: None })
            }
            (Mode::Primary, None) => {
                refuse_taken(configured, "Stop what listens there, or give another port for now")?;
                Ok(Self::AS_CONFIGURED)
            }
            // Its primary may be on this host.
            (Mode::Standby, None) if is_taken(configured) => Self::beside(free_port()?),
            (Mode::Standby, None) => Ok(Self::AS_CONFIGURED),
        }
    }

    fn beside(port: u16) -> Result<Self> {
        Ok(Self { port: Some(port), socket_directory: Some(socket_directory()?) })
    }
}

fn refuse_taken(port: u16, what: &str) -> Result<()> {
    if !is_taken(port) {
        return Ok(());
    }
    let free = free_port().map_or_else(|_| "N".to_owned(), |port| port.to_string());
    Err(Error::new(
        Code::RestoredServerFailed,
        format!("port {port} is taken, and PostgreSQL is to be started on it"),
    )
    .with_hint(format!(
        "{what}: `--port {free}`. Who listens there: `ss -ltnp 'sport = :{port}'; ls -l /run/postgresql/.s.PGSQL.{port} /tmp/.s.PGSQL.{port}`."
    )))
}

/// Whether somebody listens on a port, or on a socket of that number where servers usually have
/// theirs. A socket that a server left behind is no hindrance.
fn is_taken(port: u16) -> bool {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let by_tcp = bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
    let socket = format!(".s.PGSQL.{port}");
    let answers = |directory: &&str| match UnixStream::connect(Path::new(directory).join(&socket)) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused),
    };
    by_tcp || SOCKET_DIRECTORIES.iter().any(answers)
}

fn free_port() -> Result<u16> {
    PORTS.clone().find(|port| !is_taken(*port)).ok_or_else(|| {
        Error::new(Code::RestoredServerFailed, "no port from 5433 to 5532 is free")
            .with_hint("Give one: `--start --port N`.")
    })
}

fn socket_directory() -> Result<PathBuf> {
    for directory in SOCKET_DIRECTORIES {
        let rights = Access::WRITE_OK | Access::EXEC_OK;
        if accessat(CWD, directory, rights, AtFlags::EACCESS).is_ok() {
            return Ok(PathBuf::from(directory));
        }
    }
    Err(Error::new(Code::RestoredServerFailed, "there is no directory for the server's socket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_by_whoever_listens_and_the_hint_names_a_free_one() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for mode in [Mode::Clone, Mode::Primary, Mode::Standby] {
            let error = Listen::choose(mode, Some(port), 5432).unwrap_err();
            assert!(error.message().contains(&format!("port {port} is taken")), "{error:?}");
            assert!(format!("{:?}", error.hint()).contains("`--port 5"), "{error:?}");
        }
        assert!(Listen::choose(Mode::Primary, None, port).is_err());
        // Its primary is there: a standby goes elsewhere.
        let beside = Listen::choose(Mode::Standby, None, port).unwrap();
        assert!(beside.port.is_some_and(|other| other != port));
        drop(listener);
        assert_eq!(Listen::choose(Mode::Primary, None, port).unwrap(), Listen::AS_CONFIGURED);
        assert_eq!(Listen::choose(Mode::Standby, None, port).unwrap(), Listen::AS_CONFIGURED);
    }
}
