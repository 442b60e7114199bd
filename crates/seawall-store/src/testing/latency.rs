use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::call::Asked;
use crate::layer::{Answer, Layer, Layered};
use crate::{Store, StoreError};

/// A store that is far away: each call takes a while before it is done.
pub type Latency = Layered<Distance>;

/// How far away a [`Latency`] store is.
#[derive(Debug)]
pub struct Distance(Duration);

impl Latency {
    /// Lets every call to `inner` take so much longer.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, each_call: Duration) -> Self {
        Self::over(inner, Distance(each_call))
    }
}

impl Layer for Distance {
    async fn around_once<T: Answer>(
        &self,
        _: &Asked<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        tokio::time::sleep(self.0).await;
        run.await
    }
}
