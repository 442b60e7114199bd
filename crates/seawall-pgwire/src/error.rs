use std::fmt;
use std::io;
use std::time::Duration;

use crate::conninfo::ConninfoError;

/// Why a connection or a query failed.
///
/// Once a session stands, only [`Lost`](PgError::Lost), [`Protocol`](PgError::Protocol) and
/// [`TooLarge`](PgError::TooLarge) end it; after any other error it can be used on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PgError {
    /// The connection string or a file it refers to is wrong.
    #[error("{0}")]
    Conninfo(#[from] ConninfoError),
    /// No host gave a session. What [`Connection::connect`](crate::Connection::connect) returns.
    #[error("no connection to PostgreSQL: {}", attempts_shown(.attempts))]
    Connect {
        /// Every address tried, in order.
        attempts: Vec<FailedAttempt>,
    },
    /// The host or its socket cannot be reached.
    #[error("{0}")]
    Unreachable(io::Error),
    /// Something did not happen in time.
    #[error("no answer within {:.1} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The login failed on this side: no password, a method that is unknown or not allowed, or a
    /// server that could not prove it knows the password.
    #[error("{0}")]
    Auth(String),
    /// The server asks for more SCRAM iterations than can be counted in time.
    #[error("the server asks for {iterations} SCRAM iterations, which take longer than {:.1} s here", .limit.as_secs_f64())]
    ScramTooSlow {
        /// `scram_iterations`, as the role's password was set with.
        iterations: u32,
        /// `connect_timeout`
        limit: Duration,
    },
    /// A connection pooler answers instead of the server.
    #[error("a connection pooler is between Seawall and PostgreSQL: {evidence}")]
    Pooler {
        /// How it was noticed.
        evidence: String,
        /// The port on which the server says that it listens.
        port: Option<u16>,
    },
    /// TLS could not be set up.
    #[error("{0}")]
    Tls(String),
    /// The session is not what `target_session_attrs` or `requirepeer` asks for.
    #[error("{0}")]
    Unsuitable(String),
    /// The server answered with an error.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// The session ended; with the server's reason, if it gave one.
    #[error("connection to PostgreSQL lost: {message}")]
    Lost {
        /// What happened.
        message: String,
        /// The server's last words.
        server: Option<Box<ServerError>>,
    },
    /// The other side does not speak PostgreSQL's protocol as it should.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The result is longer than [`Limits`](crate::Limits) allow.
    #[error("{0}")]
    TooLarge(String),
    /// An answer is not of the shape or type the caller expects.
    #[error("unexpected answer of the server: {0}")]
    Value(String),
}

/// One address that gave no session.
#[derive(Debug)]
pub struct FailedAttempt {
    /// The host, its address if it was looked up, and the port; or the socket.
    pub target: String,
    /// Why.
    pub reason: PgError,
}

fn attempts_shown(attempts: &[FailedAttempt]) -> String {
    let shown: Vec<String> =
        attempts.iter().map(|attempt| format!("{}: {}", attempt.target, attempt.reason)).collect();
    shown.join("; ")
}

impl PgError {
    /// The five-character SQLSTATE, if the server sent an error; of a failed
    /// [`Connect`](PgError::Connect), that of the last attempt.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.sqlstate),
            Self::Lost { server, .. } => server.as_ref().map(|error| error.sqlstate.as_str()),
            Self::Connect { attempts } => attempts.last()?.reason.sqlstate(),
            _ => None,
        }
    }

    pub(crate) fn lost(message: impl fmt::Display) -> Self {
        Self::Lost { message: message.to_string(), server: None }
    }

    /// Whether the session cannot be used any more.
    pub(crate) fn ends_session(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Protocol(_) | Self::TooLarge(_))
    }
}

/// An error or notice of the server (`ErrorResponse`; the documentation's "Error and Notice Message
/// Fields").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE` and so on, never translated.
    pub severity: String,
    /// Five characters.
    pub sqlstate: String,
    /// In the server's language.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do about it, in PostgreSQL's opinion.
    pub hint: Option<String>,
    /// Where in the server's code execution was, innermost first.
    pub context: Option<String>,
    /// The function of PostgreSQL's source that reports it; unlike the message not translated.
    pub routine: Option<String>,
}

impl ServerError {
    /// Whether the server ends the session with it.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (SQLSTATE {})", self.severity, self.message, self.sqlstate)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, "; {detail}"))
    }
}
