//! From [`PgError`] to the error a person sees: its code, and what to do about it.

use std::io;

use seawall_core::{Code, Error, Key};

use crate::{PgError, ServerError};

impl PgError {
    /// The code of the error a person sees.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Conninfo(_) => Code::ConninfoInvalid,
            // The last attempt decides: nothing is tried after a refused login.
            Self::Connect { attempts } => match attempts.last().map(|last| last.reason.code()) {
                Some(code @ (Code::AuthenticationFailed | Code::TlsFailed)) => code,
                Some(code @ (Code::PrivilegeMissing | Code::PoolerInBetween)) => code,
                _ => Code::ConnectFailed,
            },
            Self::Unreachable(_) | Self::Unsuitable(_) => Code::ConnectFailed,
            Self::Auth(_) | Self::ScramTooSlow { .. } => Code::AuthenticationFailed,
            Self::Pooler { .. } => Code::PoolerInBetween,
            Self::Tls(_) => Code::TlsFailed,
            Self::Server(error) => server_code(error),
            Self::Lost { .. } | Self::Protocol(_) => Code::ConnectionLost,
            Self::Timeout(_) | Self::TooLarge(_) | Self::Value(_) => Code::QueryFailed,
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Conninfo(error) => error.hint(),
            Self::Connect { attempts } => {
                attempts.iter().rev().find_map(|attempt| attempt.reason.hint())
            }
            Self::Unreachable(error) => unreachable_hint(error).map(str::to_owned),
            Self::Server(error) => server_hint(error),
            Self::Auth(message) if message.contains("no password") => Some(
                "Add a line HOST:PORT:DATABASE:USER:PASSWORD to the password file (~/.pgpass unless \
                 another is named), which has to be that user's with mode 0600, or set PGPASSWORD."
                    .to_owned(),
            ),
            Self::ScramTooSlow { .. } => Some(
                "Allow more time with connect_timeout=SECONDS, or lower scram_iterations on the \
                 server and set the role's password again: ALTER ROLE name PASSWORD '...'."
                    .to_owned(),
            ),
            Self::Pooler { port, .. } => Some(pooler_hint(*port)),
            Self::Timeout(_) => Some(
                "The server takes no queries or is overloaded: see pg_stat_activity and its log, \
                 and whether host= and port= lead to PostgreSQL itself."
                    .to_owned(),
            ),
            Self::Lost { server: Some(error), .. } => error.hint.clone(),
            _ => None,
        }
    }
}

fn pooler_hint(port: Option<u16>) -> String {
    let place = port.map_or_else(String::new, |port| format!(" (it says that its port is {port})"));
    format!(
        "A backup lasts as long as its session, so it must be PostgreSQL's own: connect to the \
         server directly{place}, with host= and port= of SHOW unix_socket_directories or \
         SHOW listen_addresses and SHOW port."
    )
}

fn server_code(error: &ServerError) -> Code {
    match error.sqlstate.as_str() {
        "42501" => Code::PrivilegeMissing,
        state if state.starts_with("28") => Code::AuthenticationFailed,
        _ => Code::QueryFailed,
    }
}

fn unreachable_hint(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::NotFound => Some(
            "Is PostgreSQL running on this machine? Its socket may be elsewhere: add host= with a \
             directory of SHOW unix_socket_directories, and port= with SHOW port.",
        ),
        io::ErrorKind::PermissionDenied => Some(
            "The socket's permissions shut this user out: see SHOW unix_socket_permissions, or \
             connect over TCP with host=localhost.",
        ),
        io::ErrorKind::ConnectionRefused => Some(
            "Is PostgreSQL running, and does it listen there? Compare SHOW listen_addresses and \
             SHOW port with host= and port=.",
        ),
        _ => None,
    }
}

/// `routine` rather than the message is looked at: messages are translated.
fn server_hint(error: &ServerError) -> Option<String> {
    if let Some(hint) = &error.hint {
        return Some(hint.clone());
    }
    let routine = error.routine.as_deref().unwrap_or_default();
    let hint = match (error.sqlstate.as_str(), routine) {
        ("28000", "ClientAuthentication") => {
            "Add a line for this database, role and address to the file SHOW hba_file names, then \
             run SELECT pg_catalog.pg_reload_conf()."
        }
        ("28000", "InitializeSessionUserId") => {
            "Name an existing role with user=; without it the operating system user's name is used."
        }
        ("28000", "auth_failed") => {
            "Peer and ident authentication want the operating system user to be named like the \
             role: run as that user, or add a map to pg_ident.conf."
        }
        ("28P01", _) => {
            "Check the password: password=, then PGPASSWORD, then .pgpass in the home directory of \
             the user who connects are looked at; root connects as the data directory's owner."
        }
        ("3D000", _) => "Name an existing database with dbname=, for example dbname=postgres.",
        ("42501", _) => {
            "Grant the role what it lacks, or log in as another: GRANT ... TO role; as a superuser."
        }
        ("53300", _) => "All connections are taken: see SHOW max_connections.",
        ("57P03", _) => "The server is starting, stopping or recovering: try again.",
        _ => return None,
    };
    Some(hint.to_owned())
}

impl From<PgError> for Error {
    fn from(error: PgError) -> Self {
        let mut shown = Self::new(error.code(), error.to_string());
        if let PgError::Connect { attempts } = &error
            && let Some(last) = attempts.last()
        {
            shown = shown.with_pair(Key::Host, &last.target);
        }
        match error.hint() {
            Some(hint) => shown.with_hint(hint),
            None => shown,
        }
    }
}
