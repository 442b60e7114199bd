//! Collecting the answer to a simple query.

use postgres_protocol::message::backend::{Message, RowDescriptionBody};

use crate::rows::{ResultSet, Row, column_names};
use crate::server_message::server_error;
use crate::{PgError, ServerError};

/// What a message means for the query it answers.
pub(crate) enum Step {
    /// More will come.
    Continue,
    /// The server wants data for `COPY FROM STDIN`, and must be told that there is none.
    RefuseCopyIn,
    /// The server said its last words.
    Over(Box<ServerError>),
}

/// The result sets so far.
pub(crate) struct Answer {
    complete: Vec<ResultSet>,
    current: Option<ResultSet>,
    failure: Option<PgError>,
    copy_refused: bool,
    held_bytes: usize,
    limit_bytes: usize,
}

impl Answer {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self {
            complete: Vec::new(),
            current: None,
            failure: None,
            copy_refused: false,
            held_bytes: 0,
            limit_bytes,
        }
    }

    /// Takes a message other than `ReadyForQuery`, `ParameterStatus` and notices.
    pub(crate) fn take(&mut self, message: Message) -> Result<Step, PgError> {
        match message {
            Message::RowDescription(body) => self.begin(&body)?,
            Message::DataRow(body) => {
                let set = self.current.as_mut().ok_or_else(|| out_of_order("a row"))?;
                let row = Row::parse(set.columns_shared(), &body)?;
                let bytes = row.memory_bytes();
                set.push(row);
                self.hold(bytes)?;
            }
            Message::CommandComplete(body) => {
                let set = self.current.take().unwrap_or_default();
                self.end(set.complete(body.tag()?))?;
            }
            Message::EmptyQueryResponse => self.end(ResultSet::default())?,
            Message::ErrorResponse(body) => {
                let error = Box::new(server_error(body.fields()));
                if error.is_fatal() {
                    return Ok(Step::Over(error));
                }
                // A statement that failed is the last one; what was found out here comes first.
                self.failure.get_or_insert(PgError::Server(error));
            }
            Message::CopyInResponse(_) if !self.copy_refused => {
                self.copy_refused = true;
                return Ok(Step::RefuseCopyIn);
            }
            Message::CopyOutResponse(_) => {
                let problem = "COPY TO STDOUT is not a simple query".to_owned();
                self.failure.get_or_insert(PgError::Value(problem));
            }
            Message::CopyData(_) | Message::CopyDone if self.failure.is_some() => {}
            _ => return Err(out_of_order("a message")),
        }
        Ok(Step::Continue)
    }

    fn begin(&mut self, body: &RowDescriptionBody) -> Result<(), PgError> {
        if self.current.is_some() {
            return Err(out_of_order("a description of rows"));
        }
        let columns = column_names(body)?;
        let names = columns.iter().map(String::len).sum::<usize>();
        self.hold(names + columns.len() * size_of::<String>())?;
        self.current = Some(ResultSet::new(columns));
        Ok(())
    }

    fn end(&mut self, set: ResultSet) -> Result<(), PgError> {
        self.hold(set.memory_bytes())?;
        self.complete.push(set);
        Ok(())
    }

    fn hold(&mut self, bytes: usize) -> Result<(), PgError> {
        self.held_bytes += bytes;
        if self.held_bytes <= self.limit_bytes {
            return Ok(());
        }
        let limit = self.limit_bytes;
        Err(PgError::TooLarge(format!("the result of a query exceeds the limit of {limit} bytes")))
    }

    /// What the query came to.
    pub(crate) fn finish(self) -> Result<Vec<ResultSet>, PgError> {
        self.failure.map_or(Ok(self.complete), Err)
    }
}

fn out_of_order(what: &str) -> PgError {
    PgError::Protocol(format!("{what} out of order in the answer to a query"))
}
