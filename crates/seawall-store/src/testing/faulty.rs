//! A store that fails on purpose, as a script says.

use std::fmt;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::io::Errno;

use crate::{
    ListPage, ObjectInfo, ObjectPath, ObjectPrefix, ObjectWriter, Place, Store, StoreError,
    StoreUrl,
};

/// A kind of call to a store, counted from 1 over the life of a [`Faulty`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Store::create`].
    Create,
    /// [`Store::create_large`].
    CreateLarge,
    /// [`ObjectWriter::write`], of all writers together.
    Write,
    /// [`ObjectWriter::finish`].
    Finish,
    /// [`Store::read`].
    Read,
    /// [`Store::read_range`].
    ReadRange,
    /// [`Store::stat`].
    Stat,
    /// [`Store::list`].
    List,
    /// [`Store::delete`].
    Delete,
    /// [`Store::make_durable`].
    MakeDurable,
}

const CALLS: usize = Call::MakeDurable as usize + 1;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store is full; nothing was done.
    Full,
    /// Access is refused; nothing was done.
    Forbidden,
    /// The store does not answer; nothing was done.
    Unavailable,
    /// The disk reports an error; nothing was done.
    Io,
    /// The store does it, and its answer is lost: the caller is told `Unavailable`.
    AnswerLost,
    /// The object looks as if it ended after so many bytes. For reads and `stat`.
    TruncatedTo(u64),
    /// It is done after a while.
    Delay(Duration),
    /// The process dies before the store does anything; see [`Faulty::on_crash`].
    CrashBefore,
    /// The process dies after the store did it.
    CrashAfter,
}

struct Rule {
    call: Call,
    numbers: (Bound<u64>, Bound<u64>),
    fault: Fault,
}

struct Script {
    rules: Vec<Rule>,
    counts: Mutex<[u64; CALLS]>,
    dead: AtomicBool,
    on_crash: Box<dyn Fn() + Send + Sync>,
}

/// A store that does to chosen calls what a script says, and passes on the others.
///
/// After a crash it is dead: every further call, also of writers it gave out, fails with
/// [`StoreError::Unavailable`]. The store behind it can then be looked at as a new process would.
pub struct Faulty {
    inner: Arc<dyn Store>,
    script: Arc<Script>,
}

impl Faulty {
    /// A store without faults yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        let script = Script {
            rules: Vec::new(),
            counts: Mutex::new([0; CALLS]),
            dead: AtomicBool::new(false),
            on_crash: Box::new(|| {}),
        };
        Self { inner, script: Arc::new(script) }
    }

    /// Lets calls with these numbers fail: `3..=3` is the third call only, `3..` every one from it.
    /// Of several rules the first that fits counts.
    #[must_use]
    pub fn fail(self, call: Call, numbers: impl RangeBounds<u64>, fault: Fault) -> Self {
        let numbers = (numbers.start_bound().cloned(), numbers.end_bound().cloned());
        self.change(|script| script.rules.push(Rule { call, numbers, fault }))
    }

    /// What a crash does besides killing the store: nothing unless told otherwise, or for instance
    /// abort the process.
    #[must_use]
    pub fn on_crash(self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.change(|script| script.on_crash = Box::new(hook))
    }

    /// Whether a crash has happened.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.script.dead.load(Ordering::Acquire)
    }

    /// How many calls of a kind there were.
    #[must_use]
    pub fn count(&self, call: Call) -> u64 {
        let counts = self.script.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(call as usize).copied().unwrap_or(0)
    }

    /// Before the first call nobody else holds the script.
    fn change(mut self, change: impl FnOnce(&mut Script)) -> Self {
        if let Some(script) = Arc::get_mut(&mut self.script) {
            change(script);
        }
        self
    }

    fn place(&self, path: &ObjectPath) -> Place {
        Place::object(self.url(), path)
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Script {
    /// Counts a call and gives what is to happen to it.
    fn next(&self, call: Call) -> Option<Fault> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get_mut(call as usize)?;
        *count += 1;
        let fits = |rule: &&Rule| rule.call == call && rule.numbers.contains(count);
        self.rules.iter().find(fits).map(|rule| rule.fault)
    }

    fn crash(&self) {
        self.dead.store(true, Ordering::Release);
        (self.on_crash)();
    }

    /// What stands before a call: an error, or the fault that is left for after it.
    async fn before(&self, call: Call, place: &Place) -> Result<Option<Fault>, StoreError> {
        if self.dead.load(Ordering::Acquire) {
            return Err(error(place, Errno::TIMEDOUT));
        }
        let fault = self.next(call);
        match fault {
            Some(Fault::Full) => return Err(error(place, Errno::NOSPC)),
            Some(Fault::Forbidden) => return Err(error(place, Errno::ACCESS)),
            Some(Fault::Unavailable) => return Err(error(place, Errno::TIMEDOUT)),
            Some(Fault::Io) => return Err(error(place, Errno::IO)),
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::CrashBefore) => {
                self.crash();
                return Err(error(place, Errno::TIMEDOUT));
            }
            Some(Fault::AnswerLost | Fault::CrashAfter | Fault::TruncatedTo(_)) | None => {}
        }
        Ok(fault)
    }

    fn after<T>(
        &self,
        fault: Option<Fault>,
        place: &Place,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match fault {
            Some(Fault::AnswerLost) => Err(error(place, Errno::TIMEDOUT)),
            Some(Fault::CrashAfter) => {
                self.crash();
                Err(error(place, Errno::TIMEDOUT))
            }
            _ => result,
        }
    }
}

fn error(place: &Place, errno: Errno) -> StoreError {
    StoreError::from_io(place.clone(), "pretending to access", io::Error::from(errno))
}

#[async_trait]
impl Store for Faulty {
    fn url(&self) -> &StoreUrl {
        self.inner.url()
    }

    async fn create(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), StoreError> {
        let place = self.place(path);
        let fault = self.script.before(Call::Create, &place).await?;
        self.script.after(fault, &place, self.inner.create(path, bytes).await)
    }

    async fn create_large(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let place = self.place(path);
        let fault = self.script.before(Call::CreateLarge, &place).await?;
        let inner = self.script.after(fault, &place, self.inner.create_large(path).await)?;
        Ok(Box::new(FaultyWriter { inner, place, script: Arc::clone(&self.script) }))
    }

    async fn read_within(&self, path: &ObjectPath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let place = self.place(path);
        let fault = self.script.before(Call::Read, &place).await?;
        let read = self.inner.read_within(path, limit_bytes).await;
        let mut bytes = self.script.after(fault, &place, read)?;
        if let Some(Fault::TruncatedTo(size_bytes)) = fault {
            bytes.truncate(usize::try_from(size_bytes).unwrap_or(usize::MAX));
        }
        Ok(bytes)
    }

    async fn read_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        let place = self.place(path);
        let fault = self.script.before(Call::ReadRange, &place).await?;
        match fault {
            Some(Fault::TruncatedTo(size_bytes)) if range.end > size_bytes => {
                Err(StoreError::RangeBeyondEnd { place, range, size_bytes })
            }
            _ => self.script.after(fault, &place, self.inner.read_range(path, range).await),
        }
    }

    async fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, StoreError> {
        let place = self.place(path);
        let fault = self.script.before(Call::Stat, &place).await?;
        let mut info = self.script.after(fault, &place, self.inner.stat(path).await)?;
        if let Some(Fault::TruncatedTo(size_bytes)) = fault {
            info.size_bytes = info.size_bytes.min(size_bytes);
        }
        Ok(info)
    }

    async fn list(
        &self,
        prefix: &ObjectPrefix,
        start_after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let place = Place::prefix(self.url(), prefix);
        let fault = self.script.before(Call::List, &place).await?;
        self.script.after(fault, &place, self.inner.list(prefix, start_after, limit).await)
    }

    async fn make_durable(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let place = self.place(path);
        let fault = self.script.before(Call::MakeDurable, &place).await?;
        self.script.after(fault, &place, self.inner.make_durable(path).await)
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let place = self.place(path);
        let fault = self.script.before(Call::Delete, &place).await?;
        self.script.after(fault, &place, self.inner.delete(path).await)
    }
}

struct FaultyWriter {
    inner: Box<dyn ObjectWriter>,
    place: Place,
    script: Arc<Script>,
}

#[async_trait]
impl ObjectWriter for FaultyWriter {
    async fn write(&mut self, part: Bytes) -> Result<(), StoreError> {
        let fault = self.script.before(Call::Write, &self.place).await?;
        self.script.after(fault, &self.place, self.inner.write(part).await)
    }

    async fn finish(self: Box<Self>) -> Result<u64, StoreError> {
        let Self { inner, place, script } = *self;
        let fault = script.before(Call::Finish, &place).await?;
        script.after(fault, &place, inner.finish().await)
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tests::temporary_store;

    const BYTES: Bytes = Bytes::from_static(b"0123456789");

    fn path(text: &str) -> ObjectPath {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn only_the_calls_of_the_script_fail() {
        let (_guard, store) = temporary_store().await;
        let store = Faulty::new(Arc::new(store))
            .fail(Call::Create, 2..=2, Fault::Unavailable)
            .fail(Call::Create, 4.., Fault::Full);
        let mut outcomes = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            outcomes.push(match store.create(&path(name), BYTES).await {
                Ok(()) => "stored",
                Err(StoreError::Unavailable { .. }) => "unavailable",
                Err(StoreError::Full { .. }) => "full",
                Err(error) => panic!("{error:?}"),
            });
        }
        assert_eq!(outcomes, ["stored", "unavailable", "stored", "full", "full"]);
        assert_eq!(store.count(Call::Create), 5);
    }

    #[tokio::test]
    async fn a_lost_answer_leaves_the_object_there() {
        let (_guard, store) = temporary_store().await;
        let store = Faulty::new(Arc::new(store)).fail(Call::Create, 1..=1, Fault::AnswerLost);
        assert!(store.create(&path("a"), BYTES).await.unwrap_err().is_transient());
        assert!(store.create(&path("a"), BYTES).await.unwrap_err().is_already_exists());
    }

    #[tokio::test]
    async fn a_truncated_object_is_short_to_every_reader() {
        let (_guard, store) = temporary_store().await;
        let cut = Fault::TruncatedTo(4);
        let store = Faulty::new(Arc::new(store))
            .fail(Call::Read, .., cut)
            .fail(Call::ReadRange, .., cut)
            .fail(Call::Stat, .., cut);
        store.create(&path("a"), BYTES).await.unwrap();
        assert_eq!(store.read(&path("a")).await.unwrap(), "0123");
        assert_eq!(store.stat(&path("a")).await.unwrap().size_bytes, 4);
        assert_eq!(store.read_range(&path("a"), 1..4).await.unwrap(), "123");
        let error = store.read_range(&path("a"), 1..5).await.unwrap_err();
        assert!(matches!(error, StoreError::RangeBeyondEnd { size_bytes: 4, .. }), "{error:?}");
    }

    #[tokio::test]
    async fn nothing_is_done_after_a_crash() {
        let (_guard, disk) = temporary_store().await;
        let disk: Arc<dyn Store> = Arc::new(disk);
        let crashes = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&crashes);
        let store = Faulty::new(Arc::clone(&disk))
            .fail(Call::Finish, 1..=1, Fault::CrashBefore)
            .on_crash(move || *seen.lock().unwrap() += 1);
        let mut writer = store.create_large(&path("large")).await.unwrap();
        writer.write(BYTES).await.unwrap();
        writer.finish().await.unwrap_err();
        assert!(store.is_dead());
        assert_eq!(*crashes.lock().unwrap(), 1);
        assert!(store.create(&path("later"), BYTES).await.unwrap_err().is_transient());
        let page = disk.list(&ObjectPrefix::root(), None, 10).await.unwrap();
        assert_eq!(page.objects, []);
    }

    #[tokio::test]
    async fn a_crash_after_a_call_leaves_its_work() {
        let (_guard, disk) = temporary_store().await;
        let disk: Arc<dyn Store> = Arc::new(disk);
        let store = Faulty::new(Arc::clone(&disk)).fail(Call::Create, 1..=1, Fault::CrashAfter);
        store.create(&path("a"), BYTES).await.unwrap_err();
        assert!(store.is_dead());
        assert_eq!(disk.read(&path("a")).await.unwrap(), BYTES);
    }
}
