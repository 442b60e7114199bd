use std::fs;
use std::io;
use std::path::Path;

use seawall_core::{Code, Error, Result};
use seawall_pgdata::exclusion::PROMOTION_NOTE_FILE;
use serde::{Deserialize, Serialize};

use crate::cluster::PostmasterFile;
use crate::durable::{local, publish};

/// That a running server is to be promoted although its archive cannot be asked, `seawall.promote`
/// in its data directory: `wal fetch` tells it then that there is no more. It holds for one run of
/// one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotionNote {
    version: u32,
    postmaster_pid: u32,
    postmaster_started: u64,
}

const VERSION: u32 = 1;

impl PromotionNote {
    /// Lets a running server end its recovery without the archive.
    ///
    /// # Errors
    /// [`Code::LocalIo`]
    pub fn write(data_directory: &Path, server: &PostmasterFile) -> Result<()> {
        let bytes = serde_json::to_vec(&Self::of(server)).map_err(|error| {
            Error::new(Code::Internal, "the promotion note is not JSON").with_source(error)
        })?;
        publish(&data_directory.join(PROMOTION_NOTE_FILE), &bytes, 0o600)
    }

    /// Takes it back, or takes away one that was left behind.
    ///
    /// # Errors
    /// [`Code::LocalIo`]
    pub fn remove(data_directory: &Path) -> Result<()> {
        let path = data_directory.join(PROMOTION_NOTE_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(local(error, "removing", &path))
            }
            _ => Ok(()),
        }
    }

    /// Whether it was written for this run of the server.
    pub(crate) fn holds_for(data_directory: &Path, server: &PostmasterFile) -> bool {
        let read = fs::read(data_directory.join(PROMOTION_NOTE_FILE)).ok();
        let note = read.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        note.is_some_and(|note| note == Self::of(server))
    }

    const fn of(server: &PostmasterFile) -> Self {
        Self { version: VERSION, postmaster_pid: server.pid, postmaster_started: server.started }
    }
}
