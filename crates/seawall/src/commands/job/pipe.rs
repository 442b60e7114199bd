use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use seawall_core::{Code, Result, ResultExt};
use seawall_engine::job::{Cancel, Events, JobEvent};

/// How often the end looks whether the job was told to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// So long the last events wait for a reader of a job that was told to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Standard output as a pipe of events, which a thread of its own writes: a reader that does not read
/// keeps no job waiting.
pub struct EventPipe {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    waiting: VecDeque<Line>,
    /// No more will come.
    closed: bool,
    /// All are written, or nobody reads them.
    ended: bool,
}

struct Line {
    text: String,
    /// Whether the next of its kind says all that it does.
    is_passing: bool,
}

impl EventPipe {
    /// Begins to write.
    ///
    /// # Errors
    /// [`Code::Internal`] if the system gives no thread.
    pub fn begin() -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let writing = Arc::clone(&shared);
        let thread = thread::Builder::new().name("events".to_owned());
        let thread = thread.spawn(move || {
            // Whoever started the job has gone away, and with it the other end of standard input.
            if let Err(error) = writing.write() {
                tracing::warn!("events cannot be written any more: {error}");
            }
            writing.locked().ended = true;
            writing.changed.notify_all();
        });
        thread.map(drop).code(Code::Internal, || "cannot start a thread".to_owned())?;
        Ok(Self { shared })
    }

    /// Waits until all events are written. That of a job that was told to end is not waited for by a
    /// reader that does not read.
    pub fn end(&self, cancel: &Cancel) {
        let mut lines = self.shared.locked();
        lines.closed = true;
        self.shared.changed.notify_all();
        let mut cancelled: Option<Instant> = None;
        while !lines.ended {
            if cancel.is_cancelled()
                && cancelled.get_or_insert_with(Instant::now).elapsed() >= LAST_WORDS
            {
                return;
            }
            let waited = self.shared.changed.wait_timeout(lines, LOOK_EVERY);
            (lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Events for EventPipe {
    fn event(&self, event: &JobEvent) {
        let is_passing = matches!(event, JobEvent::Progress { .. } | JobEvent::Waiting { .. });
        let text = match serde_json::to_string(event) {
            Ok(text) => format!("{text}\n"),
            Err(error) => return tracing::error!("an event cannot be written as JSON: {error}"),
        };
        let mut lines = self.shared.locked();
        if lines.ended {
            return;
        }
        if is_passing && lines.waiting.back().is_some_and(|last| last.is_passing) {
            lines.waiting.pop_back();
        }
        lines.waiting.push_back(Line { text, is_passing });
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> io::Result<()> {
        let mut output = io::stdout();
        while let Some(line) = self.next() {
            output.write_all(line.text.as_bytes())?;
            output.flush()?;
        }
        Ok(())
    }

    /// The next line; `None` after the last.
    fn next(&self) -> Option<Line> {
        let mut lines = self.locked();
        loop {
            if let Some(line) = lines.waiting.pop_front() {
                return Some(line);
            }
            if lines.closed {
                return None;
            }
            lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
