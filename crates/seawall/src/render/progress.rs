use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use seawall_core::{ByteSize, Stage};
use seawall_engine::job::{Events, JobEvent};

use super::sentence;

/// How often a line tells of long work where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How often a waiting reporter looks whether the work is done.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Shows how far a job is, on standard error: a bar on a terminal, a line every ten seconds
/// elsewhere.
#[derive(Debug)]
pub struct Display {
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(Bar),
    Lines(Lines),
}

/// A bar, and the name of the stage it shows.
#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    stage: Mutex<&'static str>,
}

/// The reporter thread and what it tells.
#[derive(Debug)]
struct Lines {
    state: Arc<State>,
    reporter: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    stage: Mutex<Option<(Stage, Option<u64>)>>,
    detail: Mutex<String>,
    done_bytes: AtomicU64,
    over: std::sync::atomic::AtomicBool,
}

impl Display {
    /// A display for one job; it goes when it is dropped.
    pub fn new() -> Self {
        let shown = if std::io::stderr().is_terminal() {
            Shown::Bar(Bar { bar: ProgressBar::new_spinner(), stage: Mutex::default() })
        } else {
            let state = Arc::<State>::default();
            let reported = Arc::clone(&state);
            let reporter = thread::Builder::new()
                .name("progress".to_owned())
                .spawn(move || report(&reported))
                .ok();
            Shown::Lines(Lines { state, reporter })
        };
        Self { shown }
    }
}

impl Events for Display {
    fn event(&self, event: &JobEvent) {
        match event {
            JobEvent::Stage { stage, total_bytes } => self.stage(*stage, *total_bytes),
            JobEvent::Progress { done_bytes, .. } => self.done(*done_bytes),
            JobEvent::Waiting { waits_for } => self.detail(waits_for),
            JobEvent::Note { note } => self.aside(|| eprintln!("{}", sentence(note))),
            JobEvent::Error { error, .. } => self.aside(|| super::report(error)),
            JobEvent::Starting { port, log_file } => self.aside(|| {
                let log_file = log_file.as_ref().display();
                eprintln!("starting PostgreSQL on port {port}; its log is {log_file}");
            }),
            // The report has all that was found, and a command tells it.
            JobEvent::Started { .. }
            | JobEvent::Plan { .. }
            | JobEvent::Finding(_)
            | JobEvent::Report { .. }
            | JobEvent::End { .. } => {}
        }
    }
}

impl Display {
    fn stage(&self, stage: Stage, total_bytes: Option<u64>) {
        match &self.shown {
            Shown::Bar(Bar { bar, stage: shown }) => {
                *locked(shown) = name(stage);
                begin(bar, stage, total_bytes);
            }
            Shown::Lines(Lines { state, .. }) => {
                *locked(&state.stage) = Some((stage, total_bytes));
                locked(&state.detail).clear();
                state.done_bytes.store(0, Ordering::Relaxed);
            }
        }
    }

    fn detail(&self, what: &str) {
        match &self.shown {
            Shown::Bar(Bar { bar, stage }) => bar.set_message(format!("{}: {what}", locked(stage))),
            Shown::Lines(Lines { state, .. }) => what.clone_into(&mut locked(&state.detail)),
        }
    }

    fn done(&self, bytes: u64) {
        match &self.shown {
            Shown::Bar(Bar { bar, .. }) => bar.set_position(bytes),
            Shown::Lines(Lines { state, .. }) => state.done_bytes.store(bytes, Ordering::Relaxed),
        }
    }

    /// Writes to standard error without being written over.
    fn aside(&self, tell: impl FnOnce()) {
        match &self.shown {
            Shown::Bar(Bar { bar, .. }) => bar.suspend(tell),
            Shown::Lines(_) => tell(),
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        match &mut self.shown {
            Shown::Bar(Bar { bar, .. }) => bar.finish_and_clear(),
            Shown::Lines(Lines { state, reporter }) => {
                state.over.store(true, Ordering::Relaxed);
                if let Some(reporter) = reporter.take() {
                    reporter.join().ok();
                }
            }
        }
    }
}

fn begin(bar: &ProgressBar, stage: Stage, total_bytes: Option<u64>) {
    let template = match total_bytes {
        Some(_) => "{msg:24} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{spinner} {msg} {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar.reset();
    bar.set_message(name(stage));
    bar.set_length(total_bytes.unwrap_or_default());
    bar.enable_steady_tick(Duration::from_millis(120));
}

fn report(state: &State) {
    let mut last = Instant::now();
    while !state.over.load(Ordering::Relaxed) {
        thread::sleep(LOOK_EVERY);
        if last.elapsed() < LINE_EVERY {
            continue;
        }
        last = Instant::now();
        let (stage, detail) = (*locked(&state.stage), locked(&state.detail).clone());
        if let Some((stage, total_bytes)) = stage {
            let done_bytes = state.done_bytes.load(Ordering::Relaxed);
            eprintln!("{}", line(stage, &detail, done_bytes, total_bytes));
        }
    }
}

fn locked<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn line(stage: Stage, detail: &str, done_bytes: u64, total_bytes: Option<u64>) -> String {
    let name = name(stage);
    match total_bytes {
        Some(total) if total > 0 => {
            let percent = u128::from(done_bytes) * 100 / u128::from(total);
            format!("{name}: {} of {} ({percent} %)", ByteSize(done_bytes), ByteSize(total))
        }
        _ if done_bytes > 0 => format!("{name}: {}", ByteSize(done_bytes)),
        _ if !detail.is_empty() => format!("{name}: {detail}"),
        _ => name.to_owned(),
    }
}

const fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::WaitingForPostgres => "waiting for PostgreSQL",
        Stage::WaitingForWal => "waiting for WAL",
        Stage::Copying => "copying",
        Stage::Comparing => "comparing",
        Stage::Writing => "writing",
        Stage::Syncing => "syncing",
        Stage::Verifying => "verifying",
        Stage::Pruning => "pruning",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_the_work_is() {
        assert_eq!(
            line(Stage::Copying, "", 512 << 20, Some(1 << 30)),
            "copying: 512.0 MiB of 1.0 GiB (50 %)"
        );
        assert_eq!(line(Stage::Verifying, "", 1 << 20, None), "verifying: 1.0 MiB");
        assert_eq!(line(Stage::WaitingForWal, "", 0, None), "waiting for WAL");
        assert_eq!(
            line(Stage::WaitingForWal, "up to LSN 0/5000148", 0, None),
            "waiting for WAL: up to LSN 0/5000148"
        );
    }
}
