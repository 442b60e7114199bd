use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seawall_core::{Hint, Progress, Stage};

use super::{Events, JobEvent};

/// Progress is told so often at most.
const EVERY: Duration = Duration::from_millis(250);

/// Makes events of what a verb says of its progress.
pub(super) struct Reporter {
    events: Arc<dyn Events>,
    stage: Mutex<Measured>,
}

/// How far a stage is.
#[derive(Debug, Default)]
struct Measured {
    total_bytes: Option<u64>,
    done_bytes: u64,
    /// What was told last, and when.
    told: Option<(u64, Instant)>,
    bytes_per_s: f64,
}

impl Reporter {
    pub fn new(events: Arc<dyn Events>) -> Self {
        Self { events, stage: Mutex::default() }
    }

    /// Tells how far the last stage came, if that was not told.
    pub fn end(&self) {
        let mut stage = self.stage();
        if stage.told.is_some_and(|(told, _)| told < stage.done_bytes) {
            self.tell(&mut stage);
        }
        stage.told = None;
    }

    fn stage(&self) -> MutexGuard<'_, Measured> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, stage: &mut Measured) {
        let now = Instant::now();
        if let Some((told, at)) = stage.told {
            let passed = now.duration_since(at).as_secs_f64().max(f64::EPSILON);
            let lately = (stage.done_bytes - told) as f64 / passed;
            let is_first = told == 0;
            stage.bytes_per_s =
                if is_first { lately } else { 0.7 * stage.bytes_per_s + 0.3 * lately };
        }
        stage.told = Some((stage.done_bytes, now));
        self.events.event(&JobEvent::Progress {
            done_bytes: stage.done_bytes,
            total_bytes: stage.total_bytes,
            bytes_per_s: rounded(stage.bytes_per_s),
        });
    }
}

impl Progress for Reporter {
    fn stage(&self, stage: Stage, total_bytes: Option<u64>) {
        self.end();
        let told = Some((0, Instant::now()));
        *self.stage() = Measured { total_bytes, told, ..Measured::default() };
        self.events.event(&JobEvent::Stage { stage, total_bytes });
    }

    fn detail(&self, what: &str) {
        self.events.event(&JobEvent::Waiting { waits_for: what.to_owned() });
    }

    fn advance(&self, bytes: u64) {
        let mut stage = self.stage();
        stage.done_bytes = stage.done_bytes.saturating_add(bytes);
        if stage.told.is_some_and(|(_, at)| at.elapsed() >= EVERY) {
            self.tell(&mut stage);
        }
    }

    fn note(&self, message: &Hint) {
        self.events.event(&JobEvent::Note { note: message.clone() });
    }
}

/// A rate as a number of bytes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "such a cast saturates, and there is no other from a float"
)]
const fn rounded(bytes_per_s: f64) -> u64 {
    bytes_per_s as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Events for Told {
        fn event(&self, event: &JobEvent) {
            self.0.lock().unwrap().push(serde_json::to_string(event).unwrap());
        }
    }

    #[test]
    fn all_that_a_stage_did_is_told_when_it_ends_and_not_every_byte_before() {
        let told = Arc::new(Told::default());
        let reporter = Reporter::new(told.clone());
        Progress::stage(&reporter, Stage::Copying, Some(3000));
        for _ in 0..3000 {
            reporter.advance(1);
        }
        Progress::stage(&reporter, Stage::WaitingForWal, None);
        reporter.detail("0/5000148");
        reporter.end();
        let told = told.0.lock().unwrap();
        assert!(told.len() < 100, "{}", told.len());
        assert_eq!(told[0], r#"{"event":"stage","stage":"copying","total_bytes":3000}"#);
        let end = &told[told.len() - 3];
        assert!(end.contains(r#""done_bytes":3000,"total_bytes":3000,"bytes_per_s""#), "{end}");
        let [.., stage, waiting] = told.as_slice() else { panic!() };
        assert_eq!(stage, r#"{"event":"stage","stage":"waiting_for_wal","total_bytes":null}"#);
        assert_eq!(waiting, r#"{"event":"waiting","waits_for":"0/5000148"}"#);
    }
}
