//! Every object by itself: is it what was written under its name?

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use seawall_core::{Code, Error, Progress, Result};
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::pack::{FrameReader, FrameTable};
use seawall_repo::{ObjectSet, Repository};
use seawall_store::ObjectPath;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Findings, Listed, VerifyRequest};
use crate::pace::{Pace, StopWhenDropped};

/// How much of a pack is read at a time.
const READ_BYTES: u64 = 4 << 20;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct ReadTotals {
    pub objects: u64,
    pub bytes: u64,
    /// Objects of which all that was asked for was read and is authentic.
    pub proven: BTreeSet<ObjectPath>,
}

/// One object that was read.
struct Outcome {
    path: ObjectPath,
    bytes: u64,
    result: Result<()>,
}

/// Reads objects on several threads. What is not `needed` by a backup may be deleted meanwhile.
pub(super) async fn read_all(
    repository: &Repository,
    request: &VerifyRequest,
    objects: Vec<Listed>,
    needed: &BTreeSet<ObjectPath>,
    findings: &mut Findings,
    progress: &dyn Progress,
) -> Result<ReadTotals> {
    let queue = Arc::new(Mutex::new(objects.into_iter()));
    let pace = Arc::new(Pace::new(&request.crew));
    let _guard = StopWhenDropped(Arc::clone(&pace));
    let (sender, mut outcomes) = mpsc::channel(64);
    let mut threads = Vec::new();
    for _ in 0..request.jobs.max(1) {
        let (queue, sender, repository) = (Arc::clone(&queue), sender.clone(), repository.clone());
        let (percent, pace) = (request.sample_percent, Arc::clone(&pace));
        let (runtime, member) = (Handle::current(), pace.member());
        threads.push(tokio::task::spawn_blocking(move || -> Result<()> {
            let _member = member;
            let mut reader = FrameReader::new()?;
            loop {
                let next = queue.lock().map_err(|_| died())?.next();
                let Some(object) = next else { return Ok(()) };
                let result =
                    read_object(&repository, &object, percent, &pace, &runtime, &mut reader);
                let outcome = Outcome { path: object.path, bytes: object.size_bytes, result };
                if sender.blocking_send(outcome).is_err() {
                    return Ok(());
                }
            }
        }));
    }
    drop(sender);
    let mut totals = ReadTotals::default();
    while let Some(outcome) = outcomes.recv().await {
        totals.objects += 1;
        totals.bytes += outcome.bytes;
        progress.advance(outcome.bytes);
        match outcome.result {
            Ok(()) => _ = totals.proven.insert(outcome.path),
            // That it vanished without a reason the heads tell.
            Err(error)
                if error.code() == Code::ObjectMissing
                    && !needed.contains(&outcome.path)
                    && may_go(&outcome.path) => {}
            Err(error) => findings.error(&outcome.path, &error),
        }
    }
    for thread in threads {
        thread.await.map_err(|_| died())??;
    }
    Ok(totals)
}

/// Whether an object is of a kind that is deleted where nobody needs it.
fn may_go(path: &ObjectPath) -> bool {
    match ObjectName::parse(path) {
        Some(ObjectName::Line(_, _, LineObject::Head(_) | LineObject::Gc(..))) => true,
        Some(ObjectName::Line(_, _, object)) => ObjectSet::holds(&object),
        _ => false,
    }
}

fn died() -> Error {
    Error::new(Code::Internal, "a verifying thread died")
}

/// Reads one object from end to end. Waiting for the pace needs no runtime, which an interrupt ends
/// under the feet of this thread.
fn read_object(
    repository: &Repository,
    object: &Listed,
    sample_percent: u8,
    pace: &Pace,
    runtime: &Handle,
    reader: &mut FrameReader,
) -> Result<()> {
    let path = &object.path;
    if let ObjectName::Line(_, _, LineObject::Pack(_)) = &object.name {
        return read_pack(repository, path, sample_percent, pace, runtime, reader);
    }
    pace.take(object.size_bytes)?;
    let proven = runtime.block_on(repository.prove(path, &object.name));
    match &object.name {
        // The next backup, or one that ends, takes pins away, and slots and removals go together.
        ObjectName::Line(_, _, LineObject::Pin(..))
        | ObjectName::Key(..)
        | ObjectName::Removal(..) => proven
            .or_else(|error| if error.code() == Code::ObjectMissing { Ok(()) } else { Err(error) }),
        _ => proven,
    }
}

/// Reads the frames of a pack, all of them or a sample, and proves each by its hash.
fn read_pack(
    repository: &Repository,
    path: &ObjectPath,
    sample_percent: u8,
    pace: &Pace,
    runtime: &Handle,
    reader: &mut FrameReader,
) -> Result<()> {
    let table = FrameTable::read_any(repository.store(), repository.keyring(), path);
    let table = runtime.block_on(table)?;
    let mut first = 0;
    while first < table.frames() {
        let count = table.frames_within(first, table.frames() - 1, READ_BYTES);
        if is_sampled(first, sample_percent) {
            let mut frames = runtime.block_on(table.fetch(repository.store(), first, count))?;
            pace.take(frames.stored_bytes())?;
            for frame in first..first + count {
                reader.open(&table, &mut frames, frame)?;
            }
        }
        first += count;
    }
    Ok(())
}

/// Whether the frames from `first` on belong to a sample: spread evenly, the same each time.
fn is_sampled(first: u32, percent: u8) -> bool {
    let scattered = u64::from(first).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    scattered % 100 < u64::from(percent)
}
