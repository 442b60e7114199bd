//! Errors and notices of the server.

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

use crate::ServerError;
use crate::message::lossy;

/// Collects the fields. A malformed rest is left out: half an error says more than none.
pub(crate) fn server_error(mut fields: ErrorFields<'_>) -> ServerError {
    let mut error = ServerError::default();
    let mut translated_severity = String::new();
    while let Ok(Some(field)) = fields.next() {
        let value = lossy(field.value_bytes());
        match field.type_() {
            b'S' => translated_severity = value,
            b'V' => error.severity = value,
            b'C' => error.sqlstate = value,
            b'M' => error.message = value,
            b'D' => error.detail = Some(value),
            b'H' => error.hint = Some(value),
            b'W' => error.context = Some(value),
            b'R' => error.routine = Some(value),
            _ => {}
        }
    }
    if error.severity.is_empty() {
        error.severity = translated_severity;
    }
    error
}

/// What the server says beside the answers is logged, not returned.
pub(crate) fn log_notice(notice: &ServerError) {
    tracing::debug!(
        severity = notice.severity,
        sqlstate = notice.sqlstate,
        detail = notice.detail,
        "{}",
        notice.message
    );
}
