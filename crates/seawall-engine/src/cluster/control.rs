use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use seawall_core::{Code, Error, Result, ResultExt};
use seawall_pgdata::control::{ControlError, ControlFile};

/// A server may be writing `pg_control` while it is read; a torn read has a wrong CRC and is
/// repeated (`get_controlfile`, controldata_utils.c, does the same).
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Reads `global/pg_control` below a data directory.
///
/// # Errors
/// [`Code::ClusterUnreadable`] if it cannot be read, [`Code::ControlFileInvalid`] if it stays
/// damaged or is of an unknown version.
pub fn read_control(data_directory: &Path) -> Result<ControlFile> {
    read_control_bytes(data_directory).map(|(control, _)| control)
}

/// Reads `global/pg_control`, also giving its bytes.
///
/// # Errors
/// As [`read_control`].
pub fn read_control_bytes(data_directory: &Path) -> Result<(ControlFile, Vec<u8>)> {
    let path = data_directory.join("global/pg_control");
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let bytes = fs::read(&path).map_err(|error| {
            Error::new(Code::ClusterUnreadable, format!("cannot read {}", path.display()))
                .with_source(error)
                .with_hint("Give the data directory of the cluster and run as its owner.")
        })?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((control, bytes)),
            Err(error @ (ControlError::CrcMismatch { .. } | ControlError::Truncated(_))) => {
                last = Some(error);
                sleep(PAUSE);
            }
            Err(error) => {
                return Err(error).code(Code::ControlFileInvalid, || {
                    format!("{} cannot be used", path.display())
                });
            }
        }
    }
    let error = Error::new(Code::ControlFileInvalid, format!("{} is damaged", path.display()))
        .with_hint("The server itself would not start from it; look at `pg_controldata` and the server's log.");
    Err(match last {
        Some(last) => error.with_source(last),
        None => error,
    })
}
