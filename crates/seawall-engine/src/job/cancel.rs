use std::sync::Arc;

use tokio::sync::watch;

/// Ends a job from anywhere: by a signal, a line on a pipe, another thread.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<watch::Sender<Option<String>>>);

impl Cancel {
    /// Tells the job to end; `why` stands in its error. What was said first stays.
    pub fn cancel(&self, why: &str) {
        self.0.send_modify(|told| {
            told.get_or_insert_with(|| why.to_owned());
        });
    }

    /// Whether the job was told to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until the job is told to end, and says why.
    pub async fn cancelled(&self) -> String {
        let mut told = self.0.subscribe();
        let why = told.wait_for(Option::is_some).await;
        // This has the sender itself: it cannot be gone.
        why.ok().and_then(|why| why.clone()).unwrap_or_default()
    }
}
