//! What a restore needs of this program: whose files it writes, and what it calls itself.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use seawall_core::{ClusterName, LocalPath, Result};
use seawall_engine::job::{ConnectionText, RestoreVerb, Restoring};
use seawall_engine::restore::{Login, PlannedRestore, RestoreReport};

use super::{after, login_as, room};
use crate::context::Context;
use crate::owner::{Acting, Owner};
use crate::postgres;
use crate::render::shell_bytes;
use crate::trust::prove_own_way;

/// Whether a plan is carried out.
type Consent = Box<dyn Fn(&PlannedRestore) -> Result<()> + Send + Sync>;

/// The user a restored cluster will belong to, as whom this process acts from now on and whom it
/// becomes when it begins to write.
pub struct Hands {
    owner: Owner,
    typist: Owner,
    /// The flags again, for what PostgreSQL calls.
    again: Vec<OsString>,
    acting: Mutex<Option<Acting>>,
    /// `None` if it was given with the request.
    consent: Option<Consent>,
}

impl Hands {
    /// Acts as the user the cluster will belong to.
    ///
    /// # Errors
    /// [`seawall_core::Code::WrongUser`], [`seawall_core::Code::KeyUnreadable`]
    pub fn take(context: &Context, verb: &RestoreVerb) -> Result<Self> {
        let typist = Owner::current();
        let owner = context.owner_of_restored()?;
        let LocalPath(into) = &verb.into;
        let tablespaces = verb.tablespaces.iter().map(|mapping| mapping.new.as_path());
        for directory in std::iter::once(into.as_path()).chain(tablespaces) {
            prove_own_way(directory, &owner)?;
        }
        let acting = Mutex::new(Some(owner.act_as()?));
        context.prove_flags_are_readable()?;
        let again = context.again.clone();
        Ok(Self { owner, typist, again, acting, consent: None })
    }

    /// Asks before anything is written.
    pub fn asking(self, consent: Consent) -> Self {
        Self { consent: Some(consent), ..self }
    }

    /// Whether somebody is asked before anything is written.
    pub const fn asks(&self) -> bool {
        self.consent.is_some()
    }

    /// What stands before a command that the cluster's owner has to run.
    pub fn sudo(&self) -> String {
        self.owner.sudo(&self.typist)
    }
}

impl Restoring for Hands {
    fn agree(&self, planned: &PlannedRestore) -> Result<()> {
        self.consent.as_ref().map_or(Ok(()), |consent| consent(planned))
    }

    fn begin_writing(&self, into: &Path) -> Result<()> {
        drop(self.acting.lock().unwrap_or_else(PoisonError::into_inner).take());
        room::make(into, &self.owner)?;
        self.owner.become_for_good()
    }

    fn restore_command(&self, cluster: &ClusterName) -> Result<OsString> {
        let own = postgres::own_path()?;
        let fetch = ["wal", "fetch", "%f", "%p", "--cluster", cluster.as_str()];
        let fetch = fetch.map(|word| word.as_bytes().to_vec());
        let again = self.again.iter().map(|word| command_word(word));
        let words = std::iter::once(command_word(own.as_os_str())).chain(fetch).chain(again);
        Ok(OsString::from_vec(words.collect::<Vec<_>>().join(&b' ')))
    }

    fn login(&self, connection: Option<&ConnectionText>, role: Option<&str>) -> Result<Login> {
        login_as(connection.map(ConnectionText::reveal), role, &self.owner)
    }

    fn log_file(&self, data_directory: &Path) -> PathBuf {
        after::log_file(data_directory)
    }

    fn start_command(&self, report: &RestoreReport) -> String {
        after::pg_ctl_start(report, &self.sudo())
    }

    fn stop_command(&self, report: &RestoreReport) -> String {
        after::pg_ctl_stop(report, &self.sudo())
    }
}

/// A word of `restore_command`: what the shell and PostgreSQL leave as it is.
fn command_word(word: &OsStr) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in shell_bytes(word) {
        if byte == b'%' {
            escaped.push(byte);
        }
        escaped.push(byte);
    }
    escaped
}
