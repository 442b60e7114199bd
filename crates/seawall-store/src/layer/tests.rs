//! Every layer keeps every promise of the store behind it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::suite;
use crate::testing::{Fault, Faulty, Latency, MemoryStore};

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_memory_keeps_every_promise_of_a_store() {
    suite::run_all(|| async { memory() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counted_store_keeps_every_promise_of_a_store() {
    suite::run_all(|| async { Arc::new(Metered::new(memory())) as Arc<dyn Store> }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_store_keeps_every_promise_of_a_store() {
    let limits = Limits { calls_at_once: NonZeroUsize::new(3), rate: "1GB/s".parse().unwrap() };
    suite::run_all(|| async { Arc::new(Limited::new(memory(), limits.clone())) as Arc<dyn Store> })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_answers_in_time_keeps_every_promise_of_a_store() {
    let limit = Duration::from_secs(3600);
    suite::run_all(|| async { Arc::new(TimeLimited::new(memory(), limit)) as Arc<dyn Store> })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distant_store_keeps_every_promise_of_a_store() {
    let distance = Duration::from_micros(100);
    suite::run_all(|| async { Arc::new(Latency::new(memory(), distance)) as Arc<dyn Store> }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_faults_keeps_every_promise_of_a_store() {
    suite::run_all(|| async { Arc::new(Faulty::new(memory())) as Arc<dyn Store> }).await;
}

/// Every third call is not answered, unless it is a writer's, which is not repeated, or a creation:
/// that is known by its bytes afterwards, and two in the suite have the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_asked_again_keeps_every_promise_however_often_it_does_not_answer() {
    let policy = RetryPolicy {
        times: 100,
        first_wait: Duration::from_micros(10),
        longest_wait: Duration::from_micros(10),
    };
    suite::run_all(|| async {
        let faulty = Faulty::new(memory()).choose(|call, _, number| {
            let repeated = !matches!(call, Call::Create | Call::Write | Call::Finish);
            (repeated && number % 3 == 0).then_some(Fault::Unavailable)
        });
        Arc::new(Retrying::new(Arc::new(faulty), policy)) as Arc<dyn Store>
    })
    .await;
}
