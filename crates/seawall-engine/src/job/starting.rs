//! Starting what was restored, and asking it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use seawall_core::{Error, Lsn, Result, TimelineId, hint};
use serde::{Serialize, Serializer};
use serde_json::json;

use super::{Events, JobEvent, Restoring, StartVerb};
use crate::cluster::Listening;
use crate::cluster::PostmasterFile;
use crate::restore::{
    DEFAULT_ROLE, Ended, Listen, Login, Recovered, RestoreReport, StartOptions, Stretch,
    find_programs, look_at_databases, start as start_server,
};
use crate::restored::Mode;

/// A server that was started.
#[derive(Debug)]
pub struct Started {
    /// Where it listens.
    pub listening: Listening,
    /// Where it listens after any other start, if that is elsewhere.
    pub configured_port: Option<u16>,
    /// Who asks it.
    pub role: String,
    /// Where it logs.
    pub log_file: PathBuf,
    /// What became of it.
    pub recovered: Recovered,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Serialize for Started {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (state, lsn, timeline) = state_of(self.recovered);
        json!({
            "port": self.listening.port,
            "socket_directory": self.listening.socket_directory.to_string_lossy(),
            "log_file": self.log_file.to_string_lossy(),
            "state": state,
            "replayed_to": lsn,
            "timeline": timeline,
            "notes": self.notes,
        })
        .serialize(serializer)
    }
}

fn state_of(recovered: Recovered) -> (&'static str, Lsn, Option<TimelineId>) {
    match recovered {
        Recovered::Promoted { timeline, replayed_to } => ("promoted", replayed_to, Some(timeline)),
        Recovered::Paused { replayed_to } => ("paused", replayed_to, None),
        Recovered::Following { replayed_to } => ("following", replayed_to, None),
        Recovered::ShutDown { replayed_to } => ("shut down", replayed_to, None),
    }
}

/// What is needed to start a server and to ask it, found out before anything is restored.
#[derive(Debug)]
pub(super) struct Starting {
    port: Option<u16>,
    timeout: Duration,
    login: Login,
    configured_port: u16,
}

impl Starting {
    /// Looks for all of it; a restore takes hours.
    ///
    /// # Errors
    /// [`seawall_core::Code::RestoredServerFailed`] if the port is taken.
    pub fn prove(
        start: &StartVerb,
        mode: Mode,
        login: Login,
        configured_port: u16,
    ) -> Result<Self> {
        Listen::choose(mode, start.port, configured_port)?;
        Ok(Self { port: start.port, timeout: start.timeout(), login, configured_port })
    }

    /// Starts PostgreSQL on a restored directory and waits until it is where it should be.
    ///
    /// # Errors
    /// [`seawall_core::Code::RestoredServerFailed`]
    pub async fn start(
        self,
        restoring: &dyn Restoring,
        report: &RestoreReport,
        events: &Arc<dyn Events>,
    ) -> Result<Started> {
        let by_hand = |error: Error| {
            let nothing_lost = || "Nothing was lost: the repository is as it was.".into();
            let why = error.hint().cloned().unwrap_or_else(nothing_lost);
            let line = restoring.start_command(report);
            error.with_hint(hint![
                why,
                " The files are all restored; once its reason is mended, ",
                format!("start it yourself: `{line}`.")
            ])
        };
        let options = self.options(restoring, report).map_err(by_hand)?;
        let port = options.port.unwrap_or(self.configured_port);
        let log_file = options.log_file.clone().into();
        events.event(&JobEvent::Starting { port, log_file });
        // There may be the log of an earlier server.
        let log_bytes = std::fs::metadata(&options.log_file).map_or(0, |file| file.len());
        let started = start_server(&options, &report.plan).await;
        // What ran and did something else than planned is not to be started again.
        let recovered =
            started.map_err(|error| if error.hint().is_none() { by_hand(error) } else { error })?;
        let notes = look_at_databases(&Stretch {
            data_directory: &options.data_directory,
            login: &options.login,
            log: (&options.log_file, log_bytes),
            plan: &report.plan,
            kept: &report.kept_databases,
            ended: Ended::from(recovered),
        })
        .await?;
        let running = PostmasterFile::read(&report.data_directory);
        let listening = running.map_or_else(
            || Listening { socket_directory: options.socket_directory.unwrap_or_default(), port },
            |running| running.listening(),
        );
        let role = options.login.role().unwrap_or(DEFAULT_ROLE).to_owned();
        let is_elsewhere = report.plan.mode != Mode::Clone && port != self.configured_port;
        let configured_port = is_elsewhere.then_some(self.configured_port);
        let log_file = options.log_file;
        Ok(Started { listening, configured_port, role, log_file, recovered, notes })
    }

    fn options(&self, restoring: &dyn Restoring, report: &RestoreReport) -> Result<StartOptions> {
        let listen = Listen::choose(report.plan.mode, self.port, self.configured_port)?;
        Ok(StartOptions {
            data_directory: report.data_directory.clone(),
            programs: find_programs(report.major)?,
            port: listen.port,
            socket_directory: listen.socket_directory,
            log_file: restoring.log_file(&report.data_directory),
            restore_id: report.restore_id,
            login: self.login.clone(),
            timeout: self.timeout,
        })
    }
}
