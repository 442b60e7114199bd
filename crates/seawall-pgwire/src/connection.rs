use std::fmt;
use std::pin::pin;
use std::time::Duration;

use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::time::timeout;

use crate::message::{BackendMessage, MessageStream, WireError};
use crate::query::{Answer, Step};
use crate::server_message::{log_notice, server_error};
use crate::startup::Session;
use crate::transport::Stream;
use crate::vet::is_pooler_version;
use crate::{CancelToken, Config, FromText, Limits, PgError, ResultSet, Row, ServerError, connect};

/// The longest query: what fits a PostgreSQL allocation (`MaxAllocSize`).
const MAX_QUERY_BYTES: usize = (1 << 30) - 1;

/// How long closing and last words may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// A session.
///
/// After an error of the server it can be used on; after [`PgError::Lost`] every call fails the
/// same way. Dropping it closes the socket, which PostgreSQL takes for a client that went away;
/// [`close`](Self::close) says goodbye.
///
/// **Cancellation.** A query's future that is dropped before it ends leaves an answer on the wire
/// that nobody will read, so the session is over: the next call returns [`PgError::Lost`]. To end a
/// query and keep the session, use [`cancel_token`](Self::cancel_token) or [`within`](Self::within).
///
/// **Time.** Every question has a limit, [`Limits::query_time`] unless [`within`](Self::within) names
/// another one. A query that exceeds it is cancelled, and the session lost if that does not help.
pub struct Connection {
    wire: MessageStream<Stream>,
    session: Session,
    version_num: u32,
    token: CancelToken,
    limits: Limits,
    state: State,
    /// A warning that the server is going down, which may be all it says about it.
    farewell: Option<Box<ServerError>>,
}

/// Whether the wire is between two queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Busy,
    Over,
}

/// Where a session is between transactions (`ReadyForQuery`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// In none.
    Idle,
    /// In a transaction block.
    InTransaction,
    /// In a transaction block that failed and can only be rolled back.
    Failed,
}

impl Connection {
    /// Tries the hosts in order, each at all its addresses, until one gives a session that
    /// `target_session_attrs` wants. As with libpq, a host that refuses the login ends the search.
    ///
    /// # Errors
    /// [`PgError::Connect`], which names every address tried and why it failed.
    pub async fn connect(config: &Config) -> Result<Self, PgError> {
        connect::connect(config).await
    }

    pub(crate) fn new(
        wire: MessageStream<Stream>,
        session: Session,
        token: CancelToken,
        limits: Limits,
    ) -> Result<Self, PgError> {
        let version = session.parameters.get("server_version");
        if let Some(version) = version.filter(|version| is_pooler_version(version)) {
            let evidence = format!("this is the console of version {version}");
            return Err(PgError::Pooler { evidence, port: None });
        }
        let version_num = version
            .and_then(|text| version_num(text))
            .ok_or_else(|| PgError::Protocol(format!("not a PostgreSQL version: {version:?}")))?;
        let state = State::Idle;
        Ok(Self { wire, session, version_num, token, limits, state, farewell: None })
    }

    /// The server's version as `server_version_num` has it: 150004 for 15.4.
    #[must_use]
    pub fn server_version_num(&self) -> u32 {
        self.version_num
    }

    /// A setting that the server reports whenever it changes, such as `server_version`,
    /// `server_encoding` or, since 14, `in_hot_standby`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.session.parameters.get(name).map(String::as_str)
    }

    /// The process id of the server process behind this session.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.session.backend_pid
    }

    /// Whether a transaction is open, as of the last query's end.
    #[must_use]
    pub fn transaction_status(&self) -> TransactionStatus {
        match self.session.status {
            b'T' => TransactionStatus::InTransaction,
            b'E' => TransactionStatus::Failed,
            _ => TransactionStatus::Idle,
        }
    }

    /// Whether no query can be sent any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state != State::Idle
    }

    /// What cancels this session's queries from elsewhere.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.token.clone()
    }

    /// Gives questions another limit of time than [`Limits::query_time`].
    pub fn within(&mut self, limit: Duration) -> Timed<'_> {
        Timed { connection: self, limit }
    }

    fn in_usual_time(&mut self) -> Timed<'_> {
        let limit = self.limits.query_time;
        self.within(limit)
    }

    /// As [`Timed::simple_query`], in the usual time.
    ///
    /// # Errors
    /// As [`Timed::simple_query`].
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<ResultSet>, PgError> {
        self.in_usual_time().simple_query(sql).await
    }

    /// As [`Timed::query_one`], in the usual time.
    ///
    /// # Errors
    /// As [`Timed::query_one`].
    pub async fn query_one(&mut self, sql: &str) -> Result<Row, PgError> {
        self.in_usual_time().query_one(sql).await
    }

    /// As [`Timed::query_rows`], in the usual time.
    ///
    /// # Errors
    /// As [`Timed::query_rows`].
    pub async fn query_rows(&mut self, sql: &str) -> Result<Vec<Row>, PgError> {
        self.in_usual_time().query_rows(sql).await
    }

    /// As [`Timed::query_value`], in the usual time.
    ///
    /// # Errors
    /// As [`Timed::query_value`].
    pub async fn query_value<T: FromText>(&mut self, sql: &str) -> Result<T, PgError> {
        self.in_usual_time().query_value(sql).await
    }

    /// One question and its answer, however long it takes.
    async fn untimed(&mut self, sql: &str) -> Result<Vec<ResultSet>, PgError> {
        match self.state {
            State::Idle => {}
            State::Busy => return Err(PgError::lost("an earlier query was abandoned midway")),
            State::Over => return Err(PgError::lost("the session ended before")),
        }
        if sql.contains('\0') || sql.len() > MAX_QUERY_BYTES {
            return Err(PgError::Value("a query contains a NUL or exceeds 1 GB".to_owned()));
        }
        self.state = State::Busy;
        let answer = self.exchange(sql).await;
        let over = answer.as_ref().is_err_and(PgError::ends_session);
        self.state = if over { State::Over } else { State::Idle };
        answer
    }

    /// Ends the session. The server rolls back what was not committed.
    pub async fn close(mut self) {
        if self.state == State::Idle {
            frontend::terminate(self.wire.outgoing());
            let farewell = async {
                self.wire.flush().await?;
                self.wire.shutdown().await
            };
            if let Ok(Err(error)) = timeout(FAREWELL, farewell).await {
                tracing::debug!(%error, "closing the session");
            }
        }
    }

    /// Sends a query and reads everything up to `ReadyForQuery`.
    async fn exchange(&mut self, sql: &str) -> Result<Vec<ResultSet>, PgError> {
        frontend::query(sql, self.wire.outgoing())?;
        if let Err(error) = self.wire.flush().await {
            return Err(self.last_words(error).await);
        }
        let mut answer = Answer::new(self.limits.result_bytes);
        loop {
            let message = match self.wire.read().await {
                Ok(BackendMessage::Standard(message)) => message,
                Ok(_) => return Err(PgError::Protocol("an unknown message".to_owned())),
                Err(error) => return Err(self.lost(error)),
            };
            let Some(message) = self.take_aside(message)? else { continue };
            if let Message::ReadyForQuery(body) = &message {
                self.session.status = body.status();
                return answer.finish();
            }
            match answer.take(message)? {
                Step::Continue => {}
                Step::RefuseCopyIn => {
                    frontend::copy_fail("there is no data to copy", self.wire.outgoing())?;
                    self.wire.flush().await?;
                }
                Step::Over(error) => return Err(ended_by(error)),
            }
        }
    }

    /// Handles what the server may say at any time.
    fn take_aside(&mut self, message: Message) -> Result<Option<Message>, PgError> {
        match message {
            Message::ParameterStatus(body) => {
                self.session.set_parameter(body.name()?, body.value()?)?;
            }
            Message::NoticeResponse(body) => {
                let notice = server_error(body.fields());
                log_notice(&notice);
                // Class 57P: operator intervention
                if notice.sqlstate.starts_with("57P") {
                    self.farewell = Some(Box::new(notice));
                }
            }
            Message::NotificationResponse(_) => {}
            message => return Ok(Some(message)),
        }
        Ok(None)
    }

    /// A server that closed an idle session has said why before; that may still be there to read.
    async fn last_words(&mut self, error: WireError) -> PgError {
        let search = async {
            while let Ok(BackendMessage::Standard(message)) = self.wire.read().await {
                if let Message::ErrorResponse(body) = message {
                    return Some(Box::new(server_error(body.fields())));
                }
            }
            None
        };
        match timeout(FAREWELL, search).await {
            Ok(Some(words)) => ended_by(words),
            _ => self.lost(error),
        }
    }

    fn lost(&mut self, error: WireError) -> PgError {
        let broken = !matches!(error, WireError::TooLarge { .. });
        match self.farewell.take() {
            Some(words) if broken => ended_by(words),
            _ => error.into(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A statement goes on without its client, for as long as it takes.
        if self.state == State::Busy
            && let Some(sessions) = self.token.sessions()
        {
            sessions.abandon(self.token.clone());
        }
    }
}

/// Questions with a limit of time, see [`Connection::within`].
#[derive(Debug)]
pub struct Timed<'a> {
    connection: &'a mut Connection,
    limit: Duration,
}

impl Timed<'_> {
    /// Runs one or more statements separated by semicolons; a result set for each.
    ///
    /// # Errors
    /// [`PgError::Server`] if a statement fails, after which those that follow were not run;
    /// [`PgError::Timeout`] if it was cancelled for taking too long;
    /// [`PgError::Lost`], [`PgError::Protocol`] and [`PgError::TooLarge`], after which the session
    /// is over; [`PgError::Value`] for text that cannot be sent.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<ResultSet>, PgError> {
        let token = self.connection.cancel_token();
        let limit = self.limit;
        let answer = {
            let mut query = pin!(self.connection.untimed(sql));
            if let Ok(answer) = timeout(limit, &mut query).await {
                return answer;
            }
            if let Err(error) = token.cancel().await {
                tracing::debug!(%error, "the cancel request could not be sent");
            }
            timeout(token.limit(), query).await
        };
        match answer {
            Ok(Err(PgError::Server(error))) if error.sqlstate == "57014" => {
                Err(PgError::Timeout(limit))
            }
            Ok(answer) => answer,
            Err(_) => {
                self.connection.state = State::Over;
                Err(PgError::lost(format!(
                    "no answer within {:.1} s, and a request to cancel the query did not end it",
                    limit.as_secs_f64()
                )))
            }
        }
    }

    /// Runs one statement that returns exactly one row.
    ///
    /// # Errors
    /// As [`simple_query`](Self::simple_query); [`PgError::Value`] if there are more or fewer rows.
    pub async fn query_one(&mut self, sql: &str) -> Result<Row, PgError> {
        let rows = self.query_rows(sql).await?;
        match <[Row; 1]>::try_from(rows) {
            Ok([row]) => Ok(row),
            Err(rows) => Err(PgError::Value(format!("{} rows instead of one", rows.len()))),
        }
    }

    /// Runs one statement and returns its rows.
    ///
    /// # Errors
    /// As [`simple_query`](Self::simple_query); [`PgError::Value`] for several statements.
    pub async fn query_rows(&mut self, sql: &str) -> Result<Vec<Row>, PgError> {
        match <[ResultSet; 1]>::try_from(self.simple_query(sql).await?) {
            Ok([set]) => Ok(set.into_rows()),
            Err(sets) => Err(PgError::Value(format!("{} results instead of one", sets.len()))),
        }
    }

    /// Runs one statement that returns one row of one column.
    ///
    /// # Errors
    /// As [`query_one`](Self::query_one); [`PgError::Value`] if the value is not a `T`.
    pub async fn query_value<T: FromText>(&mut self, sql: &str) -> Result<T, PgError> {
        let row = self.query_one(sql).await?;
        match row.columns() {
            [column] => row.get(column),
            columns => Err(PgError::Value(format!("{} columns instead of one", columns.len()))),
        }
    }
}

fn ended_by(words: Box<ServerError>) -> PgError {
    PgError::Lost { message: words.to_string(), server: Some(words) }
}

/// `server_version_num` of a `server_version` such as `15.4 (Debian 15.4-1)`, `18beta2` or
/// `9.6.24` (`PQserverVersion`, fe-exec.c).
fn version_num(text: &str) -> Option<u32> {
    let numeric = text.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
    let mut parts = numeric.split('.').map(|part| part.parse::<u32>().ok());
    let major = parts.next()??;
    let second = parts.next().flatten().unwrap_or(0);
    let third = parts.next().flatten().unwrap_or(0);
    if major > 9999 || second > 9999 || third > 99 {
        return None;
    }
    let minor = if major >= 10 { second } else { second.checked_mul(100)?.checked_add(third)? };
    Some(major * 10_000 + minor)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("backend_pid", &self.session.backend_pid)
            .field("server_version_num", &self.version_num)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::version_num;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version_num("15.4 (Debian 15.4-1.pgdg120+1)"), Some(150_004));
        assert_eq!(version_num("18beta2"), Some(180_000));
        assert_eq!(version_num("17devel"), Some(170_000));
        assert_eq!(version_num("9.6.24"), Some(90_624));
        assert_eq!(version_num("PgBouncer"), None);
        assert_eq!(version_num("99999999999.1"), None);
    }
}
