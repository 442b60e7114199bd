use std::num::NonZeroU64;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::publish::Unfinished;
use super::tree::Tree;
use crate::direct::{AlignedBuffer, is_direct, set_direct};
use crate::{ObjectPlace, ObjectWriter, StoreError};

/// How many bytes of one object may wait for the disk before its writer waits too.
const IN_FLIGHT_BYTES: u32 = 8 << 20;

/// A part is handed over in pieces of at most this size, so that one piece is written while the
/// next is made.
const PIECE_BYTES: usize = 4 << 20;

/// What the writing thread is told. When the channel closes without `Finish` the object is dropped.
enum Order {
    Write(Bytes, OwnedSemaphorePermit),
    Finish,
}

/// A large object on its way to disk, on a thread of its own.
pub(super) struct FsWriter {
    place: ObjectPlace,
    room: Arc<Semaphore>,
    orders: mpsc::UnboundedSender<Order>,
    thread: JoinHandle<Result<Option<u64>, StoreError>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// A `write` has begun; seen by another call only if that `write` was dropped half-way.
    Writing,
    Failed,
}

impl FsWriter {
    pub(super) fn start(tree: Arc<Tree>, file: Unfinished) -> Self {
        // Bounded by `room`, in bytes.
        let (orders, received) = mpsc::unbounded_channel();
        let place = file.place().clone();
        let thread = tokio::task::spawn_blocking(move || write_in_order(&tree, file, received));
        let room = Arc::new(Semaphore::new(IN_FLIGHT_BYTES as usize));
        Self { place, room, orders, thread, state: State::Ready }
    }

    async fn hand_over(&mut self, mut part: Bytes) -> Result<(), StoreError> {
        while !part.is_empty() {
            let piece = part.split_to(part.len().min(PIECE_BYTES));
            let wanted = u32::try_from(piece.len()).unwrap_or(IN_FLIGHT_BYTES);
            let room = Arc::clone(&self.room).acquire_many_owned(wanted).await;
            let room = room.map_err(|_| self.broken())?;
            if self.orders.send(Order::Write(piece, room)).is_err() {
                return Err(self.why_it_stopped().await);
            }
        }
        Ok(())
    }

    /// The thread has ended by itself, which it does only with an error.
    async fn why_it_stopped(&mut self) -> StoreError {
        match joined((&mut self.thread).await, &self.place) {
            Err(error) => error,
            Ok(_) => self.broken(),
        }
    }

    fn broken(&self) -> StoreError {
        StoreError::Io {
            place: self.place.clone(),
            doing: "writing",
            source: std::io::Error::other("an earlier write failed or was interrupted"),
        }
    }
}

#[async_trait]
impl ObjectWriter for FsWriter {
    async fn write(&mut self, part: Bytes) -> Result<(), StoreError> {
        if self.state != State::Ready {
            return Err(self.broken());
        }
        self.state = State::Writing;
        let result = self.hand_over(part).await;
        self.state = if result.is_ok() { State::Ready } else { State::Failed };
        result
    }

    async fn finish(mut self: Box<Self>) -> Result<u64, StoreError> {
        if self.state != State::Ready {
            return Err(self.broken());
        }
        // If the thread has ended already, its error is below.
        let _ = self.orders.send(Order::Finish);
        joined((&mut self.thread).await, &self.place)?.ok_or_else(|| self.broken())
    }

    async fn abort(self: Box<Self>) {
        let Self { orders, thread, state, .. } = *self;
        drop(orders);
        // After a failed write the thread has been waited for and its file is gone.
        if state != State::Failed && thread.await.is_err() {
            tracing::warn!("the thread of an abandoned object did not end well");
        }
    }
}

fn joined<T>(
    result: Result<Result<T, StoreError>, tokio::task::JoinError>,
    place: &ObjectPlace,
) -> Result<T, StoreError> {
    match result {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(StoreError::Io {
            place: place.clone(),
            doing: "writing",
            source: std::io::Error::other(error),
        }),
    }
}

/// Gives the object's size, or nothing if it was abandoned.
fn write_in_order(
    tree: &Tree,
    file: Unfinished,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> Result<Option<u64>, StoreError> {
    let mut output = Output::new(file);
    while let Some(order) = orders.blocking_recv() {
        match order {
            Order::Write(piece, room) => {
                output.append(&piece)?;
                drop(room);
            }
            Order::Finish => return output.finish(tree).map(Some),
        }
    }
    Ok(None)
}

/// The file of a large object, written in large aligned pieces around the page cache where the
/// filesystem lets us.
struct Output {
    file: Unfinished,
    buffer: AlignedBuffer,
    written_bytes: u64,
}

impl Output {
    fn new(file: Unfinished) -> Self {
        set_direct(file.file(), true);
        Self { file, buffer: AlignedBuffer::new(PIECE_BYTES), written_bytes: 0 }
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let taken = self.buffer.take(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.buffer.is_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn finish(mut self, tree: &Tree) -> Result<u64, StoreError> {
        self.flush()?;
        self.file.publish(tree)?;
        Ok(self.written_bytes)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let bytes = self.buffer.filled();
        self.file.write_at(bytes, self.written_bytes)?;
        let length = bytes.len() as u64;
        if !is_direct(self.file.file()) {
            start_writeback(&self.file, self.written_bytes, length);
        }
        self.written_bytes += length;
        self.buffer.set_length(0);
        Ok(())
    }
}

/// Starts writing dirty pages out without waiting for them, so that the sync at the end waits for
/// the last of them only: what `POSIX_FADV_DONTNEED` does on Linux (`generic_fadvise`,
/// mm/fadvise.c) before it drops the clean ones.
///
/// Only advice: a failed write still shows in the sync at the end.
fn start_writeback(file: &Unfinished, offset: u64, length: u64) {
    if let Err(errno) = fadvise(file.file(), offset, NonZeroU64::new(length), Advice::DontNeed) {
        tracing::debug!(%errno, "early writeback is not available");
    }
}
