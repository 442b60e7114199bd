//! Several destinations on their way to one backup.
//!
//! A backup goes through stages. In some each destination does something of its own, all at once; in
//! others something is done once for all of them. Whoever fails is left behind with the reason, and
//! the others go on, until nobody is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use seawall_core::{BackupId, Code, Error, Key, Progress, Result};
use seawall_store::{Store, TimeLimited};
use tokio::sync::watch;
use tokio::time::timeout;

use super::destination::{Journal, give_up};
use super::request::Destination;

/// How often those who wait see whether they should tell that they live.
pub(super) const PULSE: Duration = Duration::from_secs(10);

/// How long a repository may take to be told that a backup was given up.
pub(crate) const GIVING_UP: Duration = Duration::from_secs(10);

/// The destinations that have not failed, and what each has so far.
pub(super) struct Going<T>(Vec<Member<T>>);

/// A destination that has not failed.
pub(super) struct Member<T> {
    /// Its place among those that were asked for.
    pub place: usize,
    pub destination: Arc<Destination>,
    pub state: T,
}

/// What has a journal that tells the repository that the backup lives.
pub(super) trait Journaled {
    /// The journal.
    fn journal(&mut self) -> &mut Journal;
}

/// Why a destination does not get the backup.
pub(super) struct Failed {
    pub error: Error,
    /// It has records of this attempt, and no later attempt can use them.
    pub fruitless: bool,
}

impl Failed {
    /// A failure before anything was finished.
    pub const fn fruitless(error: Error) -> Self {
        Self { error, fruitless: true }
    }

    /// A failure of whoever has this journal.
    pub const fn with(journal: &Journal, error: Error) -> Self {
        Self { error, fruitless: !journal.is_worth_keeping() }
    }
}

/// A failure before the first record. Those that there may be under its name are another's.
impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, fruitless: false }
    }
}

/// Tells people about destinations: which one it is only where there are several.
#[derive(Clone, Copy)]
pub(super) struct Teller<'p> {
    pub progress: &'p dyn Progress,
    pub several: bool,
}

impl Teller<'_> {
    /// Tells something about a destination.
    pub fn note(&self, destination: &Destination, what: &str) {
        let text = if self.several {
            format!("repository {}: {what}", destination.name)
        } else {
            what.to_owned()
        };
        self.progress.note(&text.into());
    }
}

/// Those who failed, and how that is told.
pub(super) struct LeftBehind<'p> {
    teller: Teller<'p>,
    /// Whether some repository of the cluster is known to fail.
    some_repository_fails: Arc<AtomicBool>,
    failures: Vec<(usize, Error)>,
    /// Those whose records are of no use to a later attempt.
    traces: Vec<Arc<Destination>>,
    /// Those that may have records of use.
    attempts: Vec<Arc<Destination>>,
}

impl<'p> LeftBehind<'p> {
    /// `some_repository_fails` becomes true when a destination is left behind.
    pub const fn new(teller: Teller<'p>, some_repository_fails: Arc<AtomicBool>) -> Self {
        Self {
            teller,
            some_repository_fails,
            failures: Vec::new(),
            traces: Vec::new(),
            attempts: Vec::new(),
        }
    }

    /// Goes on without a destination.
    fn leave<T>(&mut self, member: &Member<T>, failed: Failed) {
        let destination = &member.destination;
        self.some_repository_fails.store(true, Ordering::Relaxed);
        let Failed { error, fruitless } = failed;
        let list = if fruitless { &mut self.traces } else { &mut self.attempts };
        list.push(Arc::clone(destination));
        let error = error.with_pair(Key::Cluster, destination.line.cluster());
        if self.teller.several {
            let name = &destination.name;
            self.teller.note(destination, &format!("it gets no backup: {}", error.chain()));
            self.failures.push((member.place, error.context(format!("repository {name}"))));
        } else {
            self.failures.push((member.place, error));
        }
    }

    /// The error of a backup that nobody has.
    pub fn last_error(&mut self) -> Error {
        let last = self.failures.pop().map(|(_, error)| error);
        last.unwrap_or_else(|| Error::new(Code::Internal, "a backup has no destination"))
    }

    /// What is wrong in one repository may be right in the others. That another backup of the cluster
    /// runs, or that the id is taken, concerns all of them: where it does not show yet it would be a
    /// second backup, or another one under the same id.
    ///
    /// # Errors
    /// [`Code::BackupRunning`], [`Code::ObjectExists`].
    pub fn refuse_second(&mut self) -> Result<()> {
        let is_second =
            |error: &Error| matches!(error.code(), Code::BackupRunning | Code::ObjectExists);
        match self.failures.iter().position(|(_, error)| is_second(error)) {
            Some(at) => Err(self.failures.swap_remove(at).1),
            None => Ok(()),
        }
    }

    /// Why the destination at this place failed, if it did.
    pub fn take(&mut self, place: usize) -> Option<Error> {
        let at = self.failures.iter().position(|(failed, _)| *failed == place)?;
        Some(self.failures.swap_remove(at).1)
    }

    /// Leaves no trace where there is nothing that a later attempt could use, and says elsewhere that
    /// it has ended. If even that fails, the next backup sees an attempt whose process is gone.
    pub async fn clean_up(&self, id: BackupId) {
        let unpin = |destination: &Arc<Destination>| {
            let destination = Arc::clone(destination);
            async move { timeout(GIVING_UP, destination.line.unpin(id.0)).await }
        };
        let give_up = |destination: &Arc<Destination>| {
            let destination = Arc::clone(destination);
            async move { timeout(GIVING_UP, give_up(&destination.line, id)).await }
        };
        join(join_all(self.traces.iter().map(unpin)), join_all(self.attempts.iter().map(give_up)))
            .await;
    }
}

impl Going<()> {
    /// All of them. Of several, none is waited for for longer than `patience`.
    pub fn all(destinations: &[Destination], patience: Duration) -> Self {
        let waited_for = |destination: &Destination| {
            let limited = |store| Arc::new(TimeLimited::new(store, patience)) as Arc<dyn Store>;
            match destinations {
                [_] => destination.clone(),
                _ => Destination { line: destination.line.through(limited), ..destination.clone() },
            }
        };
        let each = destinations.iter().enumerate().map(|(place, destination)| Member {
            place,
            destination: Arc::new(waited_for(destination)),
            state: (),
        });
        Self(each.collect())
    }
}

impl<T> Going<T> {
    /// Each of them.
    pub fn members_mut(&mut self) -> impl Iterator<Item = &mut Member<T>> {
        self.0.iter_mut()
    }

    /// Each of them.
    pub fn into_members(self) -> Vec<Member<T>> {
        self.0
    }

    /// Lets each do something of its own, all at once. Those who are done tell that they live while
    /// they wait for the others.
    ///
    /// # Errors
    /// The last failure when nobody is left.
    pub async fn each<U: Journaled>(
        self,
        left: &mut LeftBehind<'_>,
        stage: impl AsyncFn(&Arc<Destination>, T) -> Result<U, Failed>,
    ) -> Result<Going<U>> {
        let busy = watch::Sender::new(self.0.len());
        let stage = async |to: &Arc<Destination>, state| {
            let outcome = stage(to, state).await;
            busy.send_modify(|busy| *busy -= 1);
            let mut state = outcome?;
            match live_on(to, state.journal(), busy.subscribe()).await {
                Ok(()) => Ok(state),
                Err(error) => Err(Failed::with(state.journal(), error)),
            }
        };
        self.last(left, stage).await
    }

    /// Lets each do something that ends its part of the backup, all at once.
    ///
    /// # Errors
    /// The last failure when nobody is left.
    pub async fn last<U>(
        self,
        left: &mut LeftBehind<'_>,
        stage: impl AsyncFn(&Arc<Destination>, T) -> Result<U, Failed>,
    ) -> Result<Going<U>> {
        let stage = &stage;
        let ending = self.0.into_iter().map(async |Member { place, destination, state }| {
            let outcome = stage(&destination, state).await;
            (Member { place, destination, state: () }, outcome)
        });
        let mut ending: FuturesUnordered<_> = ending.collect();
        let mut done = Going(Vec::new());
        while let Some((member, outcome)) = ending.next().await {
            match outcome {
                Ok(state) => {
                    let Member { place, destination, .. } = member;
                    done.0.push(Member { place, destination, state });
                }
                // Now, not when all are done: others may wait for what it holds up.
                Err(failed) => left.leave(&member, failed),
            }
        }
        done.0.sort_by_key(|member| member.place);
        done.refuse_nobody(left)
    }

    /// Those who did something with success; `outcomes` are in their order.
    ///
    /// # Errors
    /// The last failure when nobody is left.
    pub fn keep(
        self,
        outcomes: Vec<Result<(), Failed>>,
        left: &mut LeftBehind<'_>,
    ) -> Result<Self> {
        let mut kept = Vec::new();
        for (member, outcome) in self.0.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => kept.push(member),
                Err(failed) => left.leave(&member, failed),
            }
        }
        Self(kept).refuse_nobody(left)
    }

    fn refuse_nobody(self, left: &mut LeftBehind<'_>) -> Result<Self> {
        if self.0.is_empty() { Err(left.last_error()) } else { Ok(self) }
    }
}

impl<T: Journaled> Going<T> {
    /// Does something once for all, and tells each repository meanwhile that the backup lives.
    ///
    /// # Errors
    /// That of the work, which nobody gets over. The last failure when nobody is left.
    pub async fn once<R>(
        &mut self,
        left: &mut LeftBehind<'_>,
        work: impl Future<Output = Result<R>>,
    ) -> Result<R> {
        let busy = watch::Sender::new(1);
        let work = async {
            let done = work.await;
            busy.send_replace(0);
            done
        };
        let living = self.0.iter_mut().map(async |Member { destination, state, .. }| {
            live_on(destination, state.journal(), busy.subscribe()).await
        });
        let (done, lived) = join(work, join_all(living)).await;
        let outcomes = std::mem::take(&mut self.0).into_iter().zip(lived);
        for (mut member, lived) in outcomes {
            match lived {
                Ok(()) => self.0.push(member),
                Err(error) => {
                    let failed = Failed::with(member.state.journal(), error);
                    left.leave(&member, failed);
                }
            }
        }
        match done {
            Ok(_) if self.0.is_empty() => Err(left.last_error()),
            Ok(done) => Ok(done),
            Err(error) => {
                self.give_up(left);
                Err(error)
            }
        }
    }

    /// Nobody gets the backup, for a reason that is not theirs.
    pub fn give_up(&mut self, left: &mut LeftBehind<'_>) {
        for mut member in self.0.drain(..) {
            let is_of_use = member.state.journal().is_worth_keeping();
            let list = if is_of_use { &mut left.attempts } else { &mut left.traces };
            list.push(member.destination);
        }
    }
}

/// Tells a repository that the backup lives, until nobody is busy.
async fn live_on(
    destination: &Destination,
    journal: &mut Journal,
    mut busy: watch::Receiver<usize>,
) -> Result<()> {
    // A record that is being written is written to its end.
    while timeout(PULSE, busy.wait_for(|busy| *busy == 0)).await.is_err() {
        journal.heartbeat(&destination.line).await?;
    }
    Ok(())
}
