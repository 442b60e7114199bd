//! What a fresh session must be before anything is asked in it: with the server process that the
//! login was for, and one that no setting can cut short.
//!
//! What every supported major knows is set in the startup packet, where nothing can come first: not
//! `ALTER ROLE … SET`, which the packet outranks, and not a time limit that would already end the
//! `SET` that takes it away. A setting that a server does not know fails the login, so newer ones,
//! and those of majors to come, are looked for in the session; where one is in force the login is
//! done again with it in the packet.

use crate::connection::Connection;
use crate::{PgError, Row};

/// What the startup packet sets in every session. Functions and operators of others are not found
/// without a schema; and nothing that is kept open for hours is ended by settings that are meant for
/// applications. All are known to PostgreSQL 12 and later.
pub(crate) const SESSION_SETTINGS: [(&str, &str); 9] = [
    ("search_path", ""),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("tcp_user_timeout", "0"),
    // A deferrable transaction would wait for others to end, a serializable one fails on a standby.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // How values are written; callers read them.
    ("bytea_output", "hex"),
    ("standard_conforming_strings", "on"),
];

/// Limits that came later, and with which version (`server_version_num`).
const LATER: [(u32, &str); 2] =
    [(140_000, "idle_session_timeout"), (170_000, "transaction_timeout")];

/// Everything that is asked of a fresh session. All names are qualified: behind a pooler the path
/// may be somebody else's.
///
/// Limits of majors to come are those that a session may set, that are off unless somebody turns
/// them on, and that are on.
const QUESTION: &str = "SELECT pg_catalog.pg_backend_pid() AS pid, \
     pg_catalog.current_setting('search_path') AS search_path, \
     pg_catalog.current_setting('port') AS port, \
     (SELECT pg_catalog.string_agg(s.name, ' ') FROM pg_catalog.pg_settings AS s \
      WHERE s.name OPERATOR(pg_catalog.~) '^[a-z_]+_timeout$'::pg_catalog.text \
        AND s.context OPERATOR(pg_catalog.=) 'user'::pg_catalog.text \
        AND s.boot_val OPERATOR(pg_catalog.=) '0'::pg_catalog.text \
        AND s.setting OPERATOR(pg_catalog.<>) '0'::pg_catalog.text) AS timeouts";

/// What has to be done about a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It can be used.
    Suitable,
    /// These limits would cut it: they have to be in the startup packet.
    WouldBeCut(Vec<String>),
}

/// Asks the session about itself. `without` are the limits whose names were in the startup packet.
///
/// # Errors
/// [`PgError::Pooler`], and those of the question.
pub(crate) async fn vet(session: &mut Connection, without: &[String]) -> Result<Verdict, PgError> {
    let row = match session.query_one(QUESTION).await {
        Ok(row) => row,
        Err(error) if without.is_empty() && was_cut(&error) => {
            let version = session.server_version_num();
            let known = LATER.iter().filter(|(since, _)| version >= *since);
            let names: Vec<String> = known.map(|(_, name)| (*name).to_owned()).collect();
            return if names.is_empty() { Err(error) } else { Ok(Verdict::WouldBeCut(names)) };
        }
        Err(error) => return Err(error),
    };
    prove_own_process(session, &row)?;
    let timeouts: Option<String> = row.get("timeouts")?;
    let names: Vec<String> =
        timeouts.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    if let Some(name) = names.iter().find(|name| without.contains(name)) {
        return Err(PgError::Unsuitable(format!("the server does not let a session set {name}")));
    }
    if names.is_empty() { Ok(Verdict::Suitable) } else { Ok(Verdict::WouldBeCut(names)) }
}

/// The server process that answers is the one that was logged in to, with what its startup packet
/// said. A pooler gives the session's queries to processes of its own.
fn prove_own_process(session: &Connection, row: &Row) -> Result<(), PgError> {
    let pid: i32 = row.get("pid")?;
    let search_path: String = row.get("search_path")?;
    let told = session.backend_pid();
    let evidence = if pid != told {
        format!("the login was answered by process {told}, the query by process {pid}")
    } else if search_path.is_empty() {
        return Ok(());
    } else {
        "what the login asked for did not arrive at the server".to_owned()
    };
    Err(PgError::Pooler { evidence, port: row.get("port")? })
}

/// Whether the session ended, or the query was cancelled, as a limit does it.
fn was_cut(error: &PgError) -> bool {
    match error {
        PgError::Server(error) => error.sqlstate == "57014",
        PgError::Lost { .. } => true,
        _ => false,
    }
}

/// Whether a login was refused as PgBouncer refuses what it does not know in a startup packet, or
/// let in to its console.
pub(crate) fn refused_by_pooler(error: &PgError) -> Option<PgError> {
    let PgError::Server(refusal) = error else { return None };
    let evidence = refusal.message.contains("unsupported startup parameter");
    evidence.then(|| PgError::Pooler { evidence: refusal.message.clone(), port: None })
}

/// The `server_version` of PgBouncer's console, `1.18.0/bouncer`.
pub(crate) fn is_pooler_version(version: &str) -> bool {
    version.ends_with("/bouncer")
}
