//! Which line a server writes: a note in its data directory.
//!
//! Servers that share a system identifier cannot be told apart by their WAL. An adopted one has
//! the note, and with it whatever is copied or restored from it; one that was never adopted has
//! none and stays in the cluster's first line, whoever else is adopted.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use seawall_core::{Action, BranchNumber, Code, Error, LineId, Result, SystemId, hint};

use crate::durable::{local, publish};

/// The name of the note.
pub(crate) const FILE: &str = "seawall.line";

/// The branch of the line that the server in a data directory writes.
///
/// # Errors
/// [`Code::LocalIo`] if the note cannot be read, [`Code::NotConfigured`] if it says nothing.
pub fn branch_of(data_directory: &Path, system_id: SystemId) -> Result<BranchNumber> {
    let path = data_directory.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BranchNumber(0)),
        Err(error) => return Err(local(error, "reading", &path)),
    };
    let line: LineId = text.trim().parse().map_err(|_| {
        Error::new(Code::NotConfigured, format!("{} names no line", path.display())).with_hint(
            hint![
                Action::Adopt { cluster: None },
                " gives the server a line, and writes the file anew."
            ],
        )
    })?;
    // pg_upgrade and initdb make another cluster, which was not adopted under this number.
    Ok(if line.system_id == system_id { line.branch } else { BranchNumber(0) })
}

/// Notes the line a server writes from now on; durable when it returns.
///
/// # Errors
/// [`Code::LocalIo`].
pub fn write(data_directory: &Path, line: LineId) -> Result<()> {
    let directory =
        fs::metadata(data_directory).map_err(|error| local(error, "reading", data_directory))?;
    let group_reads = directory.permissions().mode() & 0o040 != 0;
    let mode = if group_reads { 0o640 } else { 0o600 };
    publish(&data_directory.join(FILE), format!("{line}\n").as_bytes(), mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_note_writes_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let id = SystemId(7_000_000_000_000_000_001);
        assert_eq!(branch_of(dir.path(), id).unwrap(), BranchNumber(0));
        let line = LineId { system_id: id, branch: BranchNumber(3) };
        write(dir.path(), line).unwrap();
        assert_eq!(branch_of(dir.path(), id).unwrap(), BranchNumber(3));
        assert_eq!(branch_of(dir.path(), SystemId(8)).unwrap(), BranchNumber(0));
        fs::write(dir.path().join(FILE), "3").unwrap();
        assert_eq!(branch_of(dir.path(), id).unwrap_err().code(), Code::NotConfigured);
    }
}
