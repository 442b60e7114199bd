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

/// So many bytes of events are held for a reader that does not read. What is told then is left out,
/// but for errors and how the job ended.
const HELD_BYTES_MAX: usize = 16 << 20;

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
    /// Their bytes.
    held_bytes: usize,
    /// Some were left out since the reader last read.
    left_out: bool,
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
        let Some(line) = Line::of(event, is_passing) else { return };
        let mut lines = self.shared.locked();
        if lines.ended {
            return;
        }
        lines.add(line, is_kept_for_ever(event));
        self.shared.changed.notify_all();
    }
}

/// Whether it is held however little is read: there are few of them.
const fn is_kept_for_ever(event: &JobEvent) -> bool {
    matches!(event, JobEvent::Error { .. } | JobEvent::Report { .. } | JobEvent::End { .. })
}

impl Line {
    fn of(event: &JobEvent, is_passing: bool) -> Option<Self> {
        match serde_json::to_string(event) {
            Ok(text) => Some(Self { text: format!("{text}\n"), is_passing }),
            Err(error) => {
                tracing::error!("an event cannot be written as JSON: {error}");
                None
            }
        }
    }
}

impl Lines {
    fn add(&mut self, line: Line, is_kept: bool) {
        if line.is_passing && self.waiting.back().is_some_and(|last| last.is_passing) {
            self.waiting.pop_back().inspect(|last| self.held_bytes -= last.text.len());
        }
        if !is_kept && self.held_bytes + line.text.len() > HELD_BYTES_MAX {
            if !self.left_out {
                self.left_out = true;
                let note = "events are left out here: nobody read those before";
                Line::of(&JobEvent::Note { note: note.into() }, false)
                    .into_iter()
                    .for_each(|line| self.push(line));
            }
            return;
        }
        self.push(line);
    }

    fn push(&mut self, line: Line) {
        self.held_bytes += line.text.len();
        self.waiting.push_back(line);
    }

    fn take(&mut self) -> Option<Line> {
        let line = self.waiting.pop_front()?;
        self.held_bytes -= line.text.len();
        self.left_out = false;
        Some(line)
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
            if let Some(line) = lines.take() {
                return Some(line);
            }
            if lines.closed {
                return None;
            }
            lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use seawall_engine::job::Ending;

    use super::*;

    #[test]
    fn what_is_held_for_a_reader_that_does_not_read_has_a_bound_and_errors_and_the_end_are_held() {
        let mut lines = Lines::default();
        let note = JobEvent::Note { note: "x".repeat(1 << 20).as_str().into() };
        for _ in 0..100 {
            lines.add(Line::of(&note, false).unwrap(), is_kept_for_ever(&note));
        }
        assert!(lines.held_bytes <= HELD_BYTES_MAX + 1024, "{}", lines.held_bytes);
        let end = JobEvent::End { outcome: Ending::Done };
        lines.add(Line::of(&end, false).unwrap(), is_kept_for_ever(&end));
        let held: Vec<Line> = std::iter::from_fn(|| lines.take()).collect();
        assert_eq!(lines.held_bytes, 0);
        let [.., left_out, last] = held.as_slice() else { panic!("nothing is held") };
        assert!(left_out.text.contains("events are left out here"), "{}", left_out.text);
        assert!(last.text.contains("\"end\""), "{}", last.text);
    }
}
