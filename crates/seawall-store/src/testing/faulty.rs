//! A store that fails on purpose, as a script says.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::call::{Asked, Call};
use crate::layer::{Answer, Layer, Layered};
use crate::{ObjectPlace, Store, StoreError};

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
    /// A lie: the first so many bytes or names of the answer, or so long a length, as if that were
    /// all.
    Short(u64),
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

/// Says what happens to a call: its kind, what it is about, and the how manieth of all calls it is.
type Choice = Box<dyn Fn(Call, &ObjectPlace, u64) -> Option<Fault> + Send + Sync>;

/// What happens to the calls of a [`Faulty`] store.
pub struct Script {
    rules: Vec<Rule>,
    choice: Choice,
    /// Of each kind, and of all.
    counts: Mutex<([u64; Call::ALL.len()], u64)>,
    dead: AtomicBool,
    on_crash: Box<dyn Fn() + Send + Sync>,
}

/// A store that does to chosen calls what a script says, and passes on the others. Calls are
/// counted from 1 over its life.
///
/// After a crash it is dead: every further call, also of writers it gave out, fails with
/// [`StoreError::Unavailable`]. The store behind it can then be looked at as a new process would.
pub type Faulty = Layered<Script>;

impl Faulty {
    /// A store without faults yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        let script = Script {
            rules: Vec::new(),
            choice: Box::new(|_, _, _| None),
            counts: Mutex::default(),
            dead: AtomicBool::new(false),
            on_crash: Box::new(|| {}),
        };
        Self::over(inner, script)
    }

    /// Lets calls with these numbers fail: `3..=3` is the third call only, `3..` every one from it.
    /// Of several rules the first that fits counts.
    #[must_use]
    pub fn fail(self, call: Call, numbers: impl RangeBounds<u64>, fault: Fault) -> Self {
        let numbers = (numbers.start_bound().cloned(), numbers.end_bound().cloned());
        self.change(|script| script.rules.push(Rule { call, numbers, fault }))
    }

    /// Lets somebody say for each call that no rule fits what happens to it: told its kind,
    /// what it is about, and the how manieth of all calls it is.
    #[must_use]
    pub fn choose(
        self,
        choice: impl Fn(Call, &ObjectPlace, u64) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        self.change(|script| script.choice = Box::new(choice))
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
        self.layer().dead.load(Ordering::Acquire)
    }

    /// How many calls of a kind there were.
    #[must_use]
    pub fn count(&self, call: Call) -> u64 {
        let counts = self.layer().counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0.get(call as usize).copied().unwrap_or(0)
    }

    /// How many calls there were of any kind.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.layer().counts.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Before the first call nobody else holds the script.
    fn change(mut self, change: impl FnOnce(&mut Script)) -> Self {
        if let Some(script) = self.layer_mut() {
            change(script);
        }
        self
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("dead", &self.dead).finish_non_exhaustive()
    }
}

impl Script {
    /// Counts a call and gives what is to happen to it.
    fn next(&self, call: Call, place: &ObjectPlace) -> Option<Fault> {
        let (count, number) = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let (of_kind, all) = &mut *counts;
            let count = of_kind.get_mut(call as usize)?;
            *count += 1;
            *all += 1;
            (*count, *all)
        };
        let fits = |rule: &&Rule| rule.call == call && rule.numbers.contains(&count);
        let ruled = self.rules.iter().find(fits).map(|rule| rule.fault);
        ruled.or_else(|| (self.choice)(call, place, number))
    }

    fn crash(&self) {
        self.dead.store(true, Ordering::Release);
        (self.on_crash)();
    }

    /// What stands before a call: an error, or the fault that is left for after it.
    async fn before(&self, asked: &Asked<'_>) -> Result<Option<Fault>, StoreError> {
        let place = asked.place();
        if self.dead.load(Ordering::Acquire) {
            return Err(error(place, Errno::TIMEDOUT));
        }
        let fault = self.next(asked.call, &place);
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
            Some(Fault::AnswerLost | Fault::CrashAfter | Fault::Short(_)) | None => {}
        }
        Ok(fault)
    }

    fn after<T: Answer>(
        &self,
        fault: Option<Fault>,
        asked: &Asked<'_>,
        answer: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match fault {
            Some(Fault::AnswerLost) => Err(error(asked.place(), Errno::TIMEDOUT)),
            Some(Fault::CrashAfter) => {
                self.crash();
                Err(error(asked.place(), Errno::TIMEDOUT))
            }
            Some(Fault::Short(count)) => answer.map(|answer| answer.cut_to(count)),
            Some(
                Fault::Delay(_)
                | Fault::Full
                | Fault::Forbidden
                | Fault::Unavailable
                | Fault::Io
                | Fault::CrashBefore,
            )
            | None => answer,
        }
    }
}

fn error(place: ObjectPlace, errno: Errno) -> StoreError {
    StoreError::from_io(place, "pretending to access", io::Error::from(errno))
}

impl Layer for Script {
    async fn around_once<T: Answer>(
        &self,
        asked: &Asked<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let fault = self.before(asked).await?;
        self.after(fault, asked, run.await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryStore;
    use crate::{ObjectPath, ObjectPrefix};
    use bytes::Bytes;

    const BYTES: Bytes = Bytes::from_static(b"0123456789");

    fn memory() -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }

    fn path(text: &str) -> ObjectPath {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn only_the_calls_of_the_script_fail() {
        let store = Faulty::new(memory()).fail(Call::Create, 2..=2, Fault::Unavailable).fail(
            Call::Create,
            4..,
            Fault::Full,
        );
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
        let store = Faulty::new(memory()).fail(Call::Create, 1..=1, Fault::AnswerLost);
        assert!(store.create(&path("a"), BYTES).await.unwrap_err().is_transient());
        assert!(store.create(&path("a"), BYTES).await.unwrap_err().is_already_exists());
    }

    #[tokio::test]
    async fn nothing_is_done_after_a_crash() {
        let disk = memory();
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
        let disk = memory();
        let store = Faulty::new(Arc::clone(&disk)).fail(Call::Create, 1..=1, Fault::CrashAfter);
        store.create(&path("a"), BYTES).await.unwrap_err();
        assert!(store.is_dead());
        assert_eq!(disk.read(&path("a")).await.unwrap(), BYTES);
    }

    #[tokio::test]
    async fn a_lie_is_told_as_if_it_were_all() {
        let memory = memory();
        for name in ["a", "b", "c"] {
            memory.create(&path(name), BYTES).await.unwrap();
        }
        let store =
            Faulty::new(memory).choose(|_, _, number| (number != 5).then_some(Fault::Short(1)));
        assert_eq!(store.read(&path("a")).await.unwrap(), "0");
        assert_eq!(store.read_range(&path("a"), 4..9).await.unwrap(), "4");
        let page = store.list(&ObjectPrefix::root(), None, 10).await.unwrap();
        assert_eq!((page.objects.len(), page.next), (1, None));
        assert_eq!(store.list_children(&ObjectPrefix::root()).await.unwrap(), ["a"]);
        assert_eq!(store.read(&path("a")).await.unwrap(), BYTES, "the fifth call");
        assert_eq!(store.stat(&path("a")).await.unwrap().size_bytes, 1);
        let end = store.read_end(&path("a"), 3).await.unwrap();
        assert_eq!((end.bytes, end.size_bytes), (Bytes::from_static(b"7"), 10));
        assert_eq!((store.calls(), store.count(Call::Read)), (7, 2));
    }
}
