//! What a recovering server does, seen from outside: it may wait where nobody can ask it why.

use std::fs;
use std::time::{Duration, Instant};

use seawall_core::{Lsn, WalFileName, WalSegmentSize};

/// The process that replays, as its title tells (`XLogFileRead`, xlogrecovery.c; `startup recovering
/// 000000010000000000000003` or `startup waiting for …`, 12–18). There is none with
/// `update_process_title = off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StartupProcess {
    /// What it does and with which file.
    activity: String,
}

impl StartupProcess {
    /// The one of a server.
    pub fn of(postmaster: u32) -> Option<Self> {
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = fs::read_to_string(children).ok()?;
        children.split_whitespace().find_map(|pid| {
            let title = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Self::titled(&String::from_utf8_lossy(&title))
        })
    }

    fn titled(title: &str) -> Option<Self> {
        let (before, activity) = title.split_once("startup")?;
        let activity = activity.trim_matches(['\0', ' ']).to_owned();
        before.starts_with("postgres:").then_some(Self { activity })
    }

    /// The segment it waits for, by its first byte, if it does.
    pub fn waits_for(&self, segment_size: WalSegmentSize) -> Option<Lsn> {
        let name = self.activity.strip_prefix("waiting for ")?;
        match WalFileName::parse(name, segment_size)? {
            WalFileName::Segment(segment) => Some(segment.start()),
            _ => None,
        }
    }
}

/// Since when something that may pass is as it is.
#[derive(Debug, Default)]
pub(super) struct Since<T> {
    is: Option<(T, Instant)>,
}

impl<T: PartialEq> Since<T> {
    /// Tells what is now; returns for how long it has been so.
    pub fn is(&mut self, now: Option<T>) -> Duration {
        match (&self.is, now) {
            (_, None) => self.is = None,
            (Some((was, _)), Some(now)) if *was == now => {}
            (_, Some(now)) => self.is = Some((now, Instant::now())),
        }
        self.is.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_title_of_every_major_tells_what_replay_waits_for() {
        let waits_for = |title: &str| {
            StartupProcess::titled(title)
                .and_then(|it| it.waits_for(WalSegmentSize::DEFAULT))
                .map(|lsn| lsn.0)
        };
        for title in [
            "postgres: startup   waiting for 000000020000000000000003\0",
            "postgres: startup waiting for 000000020000000000000003",
            "postgres: main: startup waiting for 000000020000000000000003 ",
        ] {
            assert_eq!(waits_for(title), Some(0x300_0000), "{title}");
        }
        for title in [
            "postgres: startup recovering 000000020000000000000003",
            "postgres: startup waiting for 00000003.history",
            "postgres: checkpointer ",
            "sh -c startup waiting for 000000020000000000000003",
        ] {
            assert_eq!(waits_for(title), None, "{title}");
        }
    }

    #[test]
    fn what_changes_begins_anew() {
        let mut since = Since::default();
        since.is(Some(1));
        std::thread::sleep(Duration::from_millis(20));
        assert!(since.is(Some(1)) >= Duration::from_millis(20));
        assert!(since.is(Some(2)) < Duration::from_millis(20));
        assert_eq!(since.is(None), Duration::ZERO);
    }
}
