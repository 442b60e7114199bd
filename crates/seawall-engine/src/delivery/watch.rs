//! Whether WAL that is waited for can still come.

use std::time::Duration;

use seawall_core::{
    Action, ClusterName, Code, Error, Hint, Lsn, Result, TimelineId, WalSegmentSize, hint,
};
use seawall_repo::wal::WalArchive;
use tokio::time::Instant;

use crate::cluster::{Archiver, Server, is_push_of};

/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// PostgreSQL tries so often, a second apart, before it lets a file rest for a minute
/// (`NUM_ARCHIVE_RETRIES`, pgarch.c). Fewer failures in a row may be a hiccup.
const FAILURES: u64 = 3;

/// Of one that failed on a file before the wait began and has archived none since, one more is enough.
const FAILURES_AGAIN: u64 = 1;

/// What the archiver says is archived may take so long to be seen in storage that is shared.
const GRACE: Duration = Duration::from_secs(10);

/// Watches the archiver while WAL is waited for.
pub(super) struct Watch {
    cluster: ClusterName,
    segment_size: WalSegmentSize,
    timeline: TimelineId,
    to: Lsn,
    /// As it was when the wait began, or when it last archived something.
    base: Archiver,
    now: Archiver,
    /// Whether it has archived something since the wait began.
    has_archived: bool,
    asked: Instant,
    /// Since when the archiver says that it has archived everything up to `to`.
    claimed: Option<Instant>,
}

impl Watch {
    /// Begins to wait for WAL up to `to`.
    pub async fn begin(
        archive: &WalArchive,
        timeline: TimelineId,
        to: Lsn,
        server: &mut Server,
    ) -> Result<Self> {
        let base = Archiver::ask(server).await?;
        Ok(Self {
            cluster: archive.line().cluster().clone(),
            segment_size: archive.segment_size(),
            timeline,
            to,
            now: base.clone(),
            base,
            has_archived: false,
            asked: Instant::now(),
            claimed: None,
        })
    }

    /// Why the WAL will not come, if that can be told.
    pub async fn look(&mut self, server: &mut Server) -> Result<Option<Error>> {
        if self.asked.elapsed() >= ASK_EVERY {
            self.now = Archiver::ask(server).await?;
            self.asked = Instant::now();
        }
        if self.now.archived_count != self.base.archived_count {
            self.base = self.now.clone();
            self.has_archived = true;
        }
        let reaches = self
            .now
            .last_segment(self.segment_size)
            .is_some_and(|segment| segment.timeline == self.timeline && segment.end() >= self.to);
        self.claimed = reaches.then(|| self.claimed.unwrap_or_else(Instant::now));
        Ok(self.trouble())
    }

    fn trouble(&self) -> Option<Error> {
        if self.now.is_idle() {
            let what = "archive_command is empty: the WAL a backup needs is not archived";
            let hint = hint![self.check(), " prints the SQL that sets it."];
            return Some(Error::new(Code::SettingUnsuitable, what).with_hint(hint));
        }
        if self.sees_failures() {
            let wal = self.now.last_failed.as_deref().unwrap_or("a file");
            let what = format!("PostgreSQL's archiver fails on {wal}");
            return Some(Error::new(Code::WalNotArrived, what).with_hint(self.cause()));
        }
        let claimed = self.claimed.is_some_and(|since| since.elapsed() >= GRACE);
        claimed.then(|| {
            let wal = self.now.last_archived.as_deref().unwrap_or("it");
            let what = format!("PostgreSQL has archived {wal}, and not into this repository");
            Error::new(Code::WalNotArrived, what).with_hint(self.cause())
        })
    }

    /// Whether the archiver is seen to fail: it may be held up by one repository that it pushes to.
    /// One that is not used, or archives elsewhere, is not.
    pub const fn sees_failures(&self) -> bool {
        let failed_before = self.base.failing_on.is_some() && !self.has_archived;
        self.failures() >= if failed_before { FAILURES_AGAIN } else { FAILURES }
    }

    /// Failures in a row since the wait began.
    const fn failures(&self) -> u64 {
        self.now.failed_count.saturating_sub(self.base.failed_count)
    }

    /// The error of a wait that was too long.
    pub fn not_arrived(&self, have: Lsn, patience: Duration) -> Error {
        let (to, seconds) = (self.to, patience.as_secs());
        let mut what =
            format!("WAL from {have} to {to} did not arrive in the repository within {seconds} s");
        if let Some(wal) = self.now.last_failed.as_deref().filter(|_| self.failures() > 0) {
            what.push_str(&format!("; the archiver fails on {wal}"));
        }
        Error::new(Code::WalNotArrived, what).with_hint(self.cause())
    }

    fn cause(&self) -> Hint {
        let (library, command) = (&self.now.library, &self.now.command);
        if !library.is_empty() {
            let what = format!("archive_library is {library}, so archive_command is not used; ");
            return hint![what, self.check(), " prints what to set."];
        }
        let it_is = format!("It is: {command}");
        if is_push_of(command, self.cluster.as_str()) {
            let said = "What archive_command said is in PostgreSQL's log; ";
            return hint![said, self.check(), " tries the whole path. ", it_is];
        }
        let what =
            format!("archive_command does not push to Seawall as cluster {}: ", self.cluster);
        hint![what, self.check(), " prints the one that does. ", it_is]
    }

    fn check(&self) -> Action {
        Action::Check { cluster: Some(self.cluster.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(command: &str) -> Watch {
        let base = Archiver { command: command.to_owned(), ..Archiver::default() };
        Watch {
            cluster: "main".parse().unwrap(),
            segment_size: WalSegmentSize::DEFAULT,
            timeline: TimelineId(1),
            to: Lsn(0x300_0000),
            now: base.clone(),
            base,
            has_archived: false,
            asked: Instant::now(),
            claimed: None,
        }
    }

    fn told(watch: &Watch) -> Option<(Code, String)> {
        let error = watch.trouble()?;
        Some((error.code(), format!("{} {:?}", error.message(), error.hint())))
    }

    #[test]
    fn an_archiver_that_works_or_fails_once_is_waited_for() {
        let mut watch = watch("seawall wal push %p --cluster main");
        assert_eq!(told(&watch), None);
        watch.now.failed_count = 2;
        assert_eq!(told(&watch), None);
    }

    #[test]
    fn an_archiver_that_failed_before_the_wait_is_given_up_when_it_fails_once_more() {
        let mut watch = watch("seawall wal push %p --cluster main");
        watch.base.failing_on = Some("000000010000000000000001".to_owned());
        watch.now = watch.base.clone();
        assert_eq!(told(&watch), None, "it may be mended");
        watch.now.failed_count = 1;
        assert_eq!(told(&watch).map(|(code, _)| code), Some(Code::WalNotArrived));
        watch.has_archived = true;
        assert_eq!(told(&watch), None, "it was mended since");
    }

    #[test]
    fn three_failures_in_a_row_name_the_file_and_the_command() {
        let mut watch = watch("seawall wal push %p --cluster main");
        (watch.base.failed_count, watch.now.failed_count) = (10, 13);
        watch.now.last_failed = Some("000000010000000000000002".to_owned());
        let (code, text) = told(&watch).unwrap();
        assert!(code == Code::WalNotArrived && watch.sees_failures());
        assert!(text.contains("000000010000000000000002"), "{text}");
        assert!(text.contains("PostgreSQL's log"), "{text}");
        watch.now.command = "seawall wal push %p --cluster other".to_owned();
        let (_, text) = told(&watch).unwrap();
        assert!(text.contains("does not push to Seawall as cluster main"), "{text}");
    }

    #[test]
    fn without_a_command_nothing_is_waited_for() {
        assert_eq!(told(&watch("")).map(|(code, _)| code), Some(Code::SettingUnsuitable));
        assert!(!watch("").sees_failures(), "no repository is to blame");
        let mut library = watch("");
        library.now.library = "basic_archive".to_owned();
        assert_eq!(told(&library), None, "it may succeed or fail");
    }

    #[test]
    fn wal_that_was_archived_elsewhere_is_not_waited_for() {
        let mut watch = watch("/bin/true");
        watch.now.last_archived = Some("000000010000000000000002".to_owned());
        watch.claimed = Some(Instant::now());
        assert_eq!(told(&watch), None, "storage may be slow to show it");
        watch.claimed = Instant::now().checked_sub(GRACE);
        let (code, text) = told(&watch).unwrap();
        assert_eq!(code, Code::WalNotArrived);
        assert!(text.contains("not into this repository") && text.contains("/bin/true"), "{text}");
    }
}
