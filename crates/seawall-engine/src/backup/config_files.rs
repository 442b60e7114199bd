//! Configuration files outside the data directory.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Result};
use seawall_repo::manifest::{ExternalFile, INCLUDED};

use crate::cluster::ServerFacts;
use crate::config_text::{Include, conf_files, include_of};

/// A configuration file is kept up to this size; `pg_hba.conf` of the largest sites has less.
const BYTES_MAX: u64 = 8 << 20;

/// Reads the files that settings name, and those that they include. One that is gone or unreadable
/// is an error: after a disaster it would be missed.
///
/// # Errors
/// [`Code::ClusterUnreadable`], [`Code::UnsupportedCluster`] for one that is too large.
pub(super) fn external_files(facts: &ServerFacts) -> Result<Vec<ExternalFile>> {
    let mut files = Vec::new();
    for external in &facts.external_config {
        let read = read(&external.path);
        let content = read.map_err(|error| error.context(format_args!("{}", external.setting)))?;
        files.push(file(&external.setting, &external.path, content));
    }
    let main = facts.external_config.iter().find(|external| external.setting == "config_file");
    let main = main.map(|external| external.path.clone());
    let mut includes =
        Includes { inside: &facts.data_directory, seen: BTreeSet::new(), files: &mut files };
    includes.of(&main.unwrap_or_else(|| facts.data_directory.join("postgresql.conf")))?;
    Ok(files)
}

/// Follows what configuration files include.
struct Includes<'f> {
    /// What is in here is part of the cluster's own files.
    inside: &'f Path,
    seen: BTreeSet<PathBuf>,
    files: &'f mut Vec<ExternalFile>,
}

impl Includes<'_> {
    /// The files that `path` includes, and all that those do.
    fn of(&mut self, path: &Path) -> Result<()> {
        if !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        let content = match read(path) {
            // A data directory need not have a postgresql.conf of its own.
            Err(_) if path.starts_with(self.inside) && !path.exists() => return Ok(()),
            content => content?,
        };
        let beside = path.parent().unwrap_or(path);
        for include in content.split(|byte| *byte == b'\n').filter_map(include_of) {
            match include {
                Include::File { path, optional } => {
                    let path = beside.join(path);
                    if !optional || path.exists() {
                        self.take(&path)?;
                    }
                }
                Include::Directory(path) => {
                    let directory = beside.join(path);
                    let files = conf_files(&directory);
                    for path in files.map_err(|error| unreadable(&directory, error))? {
                        self.take(&path)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &Path) -> Result<()> {
        if !path.starts_with(self.inside) && !self.seen.contains(path) {
            self.files.push(file(INCLUDED, path, read(path)?));
        }
        self.of(path)
    }
}

fn file(setting: &str, path: &Path, content: Vec<u8>) -> ExternalFile {
    ExternalFile {
        setting: setting.to_owned(),
        path: path.as_os_str().as_bytes().to_vec().into(),
        content: content.into(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let length = fs::metadata(path).map_err(|error| unreadable(path, error))?.len();
    if length > BYTES_MAX {
        let what =
            format!("{} has {length} bytes, too many for a configuration file", path.display());
        return Err(Error::new(Code::UnsupportedCluster, what));
    }
    fs::read(path).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(Code::ClusterUnreadable, format!("cannot read {}", path.display()))
        .with_source(error)
        .with_hint("The server's configuration names it: let the server's user read it, or take the line out.")
}
