//! Configuration files, in the data directory and outside it.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Result};
use seawall_repo::manifest::{ExternalFile, INCLUDED};

use super::source::{Settled, read_settled, restless};
use crate::cluster::{ConfigFile, ServerFacts};
use crate::config_text::{Include, conf_files, include_of};

/// A configuration file is kept up to this size; `pg_hba.conf` of the largest sites has less.
const BYTES_MAX: u64 = 8 << 20;

/// A cluster's configuration, as the server reads it.
#[derive(Debug, Default)]
pub(crate) struct ConfigFiles {
    /// The files outside the data directory.
    pub external: Vec<ExternalFile>,
    /// Where files and included directories are in the data directory, relative to it.
    pub inside: BTreeSet<PathBuf>,
}

/// Reads the files that settings name, and those that they include. One that is gone or unreadable
/// is an error: after a disaster it would be missed.
///
/// # Errors
/// [`Code::ClusterUnreadable`], [`Code::UnsupportedCluster`] for one that is too large.
pub(crate) fn config_files(facts: &ServerFacts) -> Result<ConfigFiles> {
    let mut files = ConfigFiles::default();
    for ConfigFile { setting, path } in &facts.config_files {
        if let Ok(below) = path.strip_prefix(&facts.data_directory) {
            files.inside.insert(below.to_owned());
            continue;
        }
        let content = read(path).map_err(|error| error.context(format_args!("{setting}")))?;
        files.external.push(file(setting, path, content));
    }
    let main = facts.config_files.iter().find(|file| file.setting == "config_file");
    let main = main.map(|file| file.path.clone());
    let main = main.unwrap_or_else(|| facts.data_directory.join("postgresql.conf"));
    Includes { root: &facts.data_directory, seen: BTreeSet::new(), files: &mut files }.of(&main)?;
    Ok(files)
}

/// Follows what configuration files include.
struct Includes<'f> {
    /// The data directory: what is in it is part of the cluster's own files.
    root: &'f Path,
    seen: BTreeSet<PathBuf>,
    files: &'f mut ConfigFiles,
}

impl Includes<'_> {
    /// The files that `path` includes, and all that those do.
    fn of(&mut self, path: &Path) -> Result<()> {
        if !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        let content = match read(path) {
            // A data directory need not have a postgresql.conf of its own.
            Err(_) if path.starts_with(self.root) && !path.exists() => return Ok(()),
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
                    if let Ok(below) = directory.strip_prefix(self.root) {
                        self.files.inside.insert(below.to_owned());
                    }
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
        if let Ok(below) = path.strip_prefix(self.root) {
            self.files.inside.insert(below.to_owned());
        } else if !self.seen.contains(path) {
            self.files.external.push(file(INCLUDED, path, read(path)?));
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
    match read_settled(path, BYTES_MAX).map_err(named)? {
        Settled::Content(bytes, _) => Ok(bytes),
        Settled::Gone => Err(unreadable(path, io::ErrorKind::NotFound.into())),
        Settled::Restless => Err(restless(path)),
        Settled::Larger => {
            let what = format!("{} is too large for a configuration file", path.display());
            Err(Error::new(Code::UnsupportedCluster, what))
        }
    }
}

/// The same error, with what helps where a configuration names the file.
fn named(error: Error) -> Error {
    error.with_hint(HINT)
}

const HINT: &str =
    "The server's configuration names it: let the server's user read it, or take the line out.";

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(Code::ClusterUnreadable, format!("cannot read {}", path.display()))
        .with_source(error)
        .with_hint(HINT)
}
