//! Texts of the server that are bytes: paths and names, which have no encoding that anybody knows.
//!
//! A database's encoding is not the paths'. Sent as text, a path is converted from the one to the
//! client's and comes out as another, or is refused.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use seawall_core::{Code, Error, Result};
use seawall_pgwire::Row;

/// SQL for the bytes of a text expression as the server has them, in hex. `convert_to` would refuse
/// what is not of the database's encoding (`pg_convert`, mbutils.c); a cast to `bytea` takes all
/// bytes but a backslash for what they are (`byteain`, bytea.c), whatever settings say of strings.
pub(super) fn hex_of(expression: &str) -> String {
    format!(
        "pg_catalog.encode(pg_catalog.replace({expression}, pg_catalog.chr(92), \
         pg_catalog.repeat(pg_catalog.chr(92), 2))::pg_catalog.bytea, 'hex')"
    )
}

/// The bytes of a column that was asked for with [`hex_of`]; `None` is NULL.
pub(super) fn bytes_of(row: &Row, column: &str) -> Result<Option<Vec<u8>>> {
    let digits: Option<String> = row.get(column)?;
    let bytes = digits.map(hex::decode).transpose();
    bytes.map_err(|error| {
        Error::new(Code::QueryFailed, format!("the server's {column} is no bytes in hex"))
            .with_source(error)
    })
}

/// The path in such a column; empty for NULL.
pub(super) fn path_of(row: &Row, column: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(OsString::from_vec(bytes_of(row, column)?.unwrap_or_default())))
}
