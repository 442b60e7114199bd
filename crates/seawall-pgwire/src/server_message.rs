//! Errors and notices of the server.

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

use seawall_core::printable;

use crate::ServerError;

/// The longest text of an error that is kept, in characters. The rest is of use to nobody.
const FIELD_CHARACTERS: usize = 2000;

/// Text from the server for people: never refused for its encoding, one line, and of bounded length.
fn shown(bytes: &[u8]) -> String {
    // A character has four bytes at most.
    let beginning = bytes.get(..4 * FIELD_CHARACTERS).unwrap_or(bytes);
    let text = String::from_utf8_lossy(beginning);
    let mut shown = printable(&text.chars().take(FIELD_CHARACTERS).collect::<String>());
    if text.chars().nth(FIELD_CHARACTERS).is_some() || beginning.len() < bytes.len() {
        shown.push('…');
    }
    shown
}

/// Collects the fields. A malformed rest is left out: half an error says more than none.
pub(crate) fn server_error(mut fields: ErrorFields<'_>) -> ServerError {
    let mut error = ServerError::default();
    let mut translated_severity = String::new();
    while let Ok(Some(field)) = fields.next() {
        let value = shown(field.value_bytes());
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
