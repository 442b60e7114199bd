//! Full backups, into one repository or several.
//!
//! ```text
//!        once for all                      for each destination
//!        look at the cluster             → its line, pin, attempts that died
//!        start in PostgreSQL             → WAL up to the start, what can be taken over
//!        read and judge every block      → packs, maps, manifest, journal
//!        pg_control, stop in PostgreSQL  → WAL up to the stop, commit
//! ```
//! One half reads ([`source`]), the other packs ([`packing`]); what a repository has of the backup is
//! in [`destination`]. A destination that fails is left behind, and the others go on ([`going`]).
//!
//! A backup that dies leaves packs, maps and a journal. The next one takes what that attempt
//! finished and WAL proves unchanged, and does not read it again, but for a destination that lacks it.

mod config_files;
mod copying;
mod destination;
mod going;
mod look;
mod packing;
mod report;
mod request;
mod session;
mod source;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use seawall_core::{Action, BackupId, Code, Error, Hint, Key, Progress, Result, Stage, hint};
use seawall_repo::wal::{LsnRange, WalArchive};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::cluster::{ScanOptions, Server, Survey};
use crate::delivery::{ByArchiver, HandOver, SharedServer, WalDelivery, WalNeeded, WalRoom};
use crate::liveness::Running;
use crate::pace::Pace;
use copying::copy;
use destination::{
    Collected, Collector, Entered, Published, Ready, Totals, Whole, enter, prepare, publish,
    refuse_other_cluster, refuse_used_id,
};
use going::{Failed, Going, LeftBehind, Teller};
use look::Seen;
use packing::DestinationsPacking;
use session::{Begun, Ended};
use source::{FilesSource, PageRule, Reading, ReplayLimit, Source as _};

pub use destination::LedOn;
pub(crate) use destination::give_up;
pub(crate) use going::GIVING_UP;
pub(crate) use look::survey_cluster;
pub use report::{BackupReport, DestinationReport, Kept};
pub use request::{BackupRequest, Destination, ParentChoice};
pub(crate) use source::{OpenFile, Piece};

/// What to do about a backup that was given up.
fn again() -> Hint {
    let backup = Action::Backup { cluster: None };
    hint!["Run ", backup, " again; files already copied are not read again."]
}

/// Makes a full backup of a cluster: one backup, read once, in every destination. One that fails is
/// left behind, and told of in the report.
///
/// # Errors
/// When no destination has the backup. Those of the server, among them `BackupAborted`;
/// `DatabaseFilesLost`; `ClusterUnreadable` for the cluster's files; `WalNotArrived`; and those of
/// the repositories: then that of the last one to fail. What was copied until then is kept for the
/// next attempt.
pub async fn run(
    destinations: &[Destination],
    request: &BackupRequest,
    progress: &dyn Progress,
) -> Result<BackupReport> {
    let (started, id) = (Timestamp::now(), request.id);
    let _running = Running::begin(id)?;
    let teller = Teller { progress, several: destinations.len() > 1 };
    let some_repository_fails = &Arc::new(AtomicBool::new(request.other_repository_is_away));
    let mut left = LeftBehind::new(teller, Arc::clone(some_repository_fails));
    let backup = Backup { request, destinations, id, started, teller, some_repository_fails };
    let made = backup.make(&mut left).await;
    left.clean_up(id).await;
    made.map_err(|error| match destinations.first() {
        Some(Destination { line, .. }) => error.with_pair(Key::Cluster, line.cluster()),
        None => error,
    })
}

/// A backup that is being made.
#[derive(Clone, Copy)]
struct Backup<'b> {
    request: &'b BackupRequest,
    destinations: &'b [Destination],
    id: BackupId,
    started: Timestamp,
    teller: Teller<'b>,
    /// Whether some repository is known to fail, to which WAL goes.
    some_repository_fails: &'b Arc<AtomicBool>,
}

impl Backup<'_> {
    async fn make(self, left: &mut LeftBehind<'_>) -> Result<BackupReport> {
        let Self { request, id, teller, .. } = self;
        let progress = teller.progress;
        let seen = look::look(request).await?;
        let prove = async |to: &Arc<Destination>, ()| {
            refuse_used_id(&to.line, id).await?;
            Ok(refuse_other_cluster(&to.line, &seen)?)
        };
        let going = Going::all(self.destinations, request.store_timeout);
        let going = going.last(left, prove).await?;
        left.refuse_second()?;
        let delivery: &dyn WalDelivery = &self.delivery(&seen);
        let survey = seen.refuse_unfit(delivery).await?;

        let enter = async |to: &Arc<Destination>, ()| enter(to, id).await;
        let mut going = going.each(left, enter).await?;
        left.refuse_second().inspect_err(|_| going.give_up(left))?;
        progress.stage(Stage::WaitingForPostgres, None);
        let mut begun = going.once(left, session::begin(request, &seen, id)).await?;
        let going = self.prepare(going, left, (&seen, delivery), &mut begun).await?;

        let begin = async |to: &Arc<Destination>, ready| {
            Collector::begin(to, ready).await.map_err(Failed::fruitless)
        };
        let mut going = going.each(left, begin).await?;
        let packing = going.members_mut().filter_map(|member| member.state.packing()).collect();
        let packing = DestinationsPacking::new(packing);
        let reading = going.once(left, self.begin_reading(&seen, &survey, &begun, packing)).await?;
        progress.stage(Stage::Copying, None);
        let copied = copy(going, reading, &mut begun.session, left, progress).await;
        let (going, read_bytes) = copied?;
        let finish = async |_: &Arc<Destination>, collector: Collector| collector.finish().await;
        let mut going = going.each(left, finish).await?;

        let (ended, mut server) = going.once(left, begun.end(&seen)).await?;
        progress.stage(Stage::WaitingForWal, None);
        let (started, seen, ended) = (self.started, &seen, &ended);
        let whole = Whole { id, started, request, delivery, seen, ended };
        let published = {
            let server: SharedServer<'_> = Mutex::new(&mut server);
            let publish = async |to: &Arc<Destination>, collected: Collected| {
                let fruitless = !collected.journal.is_worth_keeping();
                let published = publish(to, whole, collected, &server, progress).await;
                published.map_err(|error| Failed { error, fruitless })
            };
            going.last(left, publish).await?
        };
        server.close().await;
        self.report(ended, read_bytes, survey, published, left)
    }

    /// The way in which the cluster's WAL comes into the repositories.
    fn delivery(self, seen: &Seen) -> ByArchiver {
        let room = WalRoom::new(self.request.memory_bytes);
        let fails = Arc::clone(self.some_repository_fails);
        let hand_over = HandOver::new(&seen.data_directory, self.teller.several, room, fails);
        ByArchiver { patience: self.request.wal_timeout, hand_over: Some(hand_over) }
    }

    /// Proves that WAL comes into each repository: if it does not, now is the time to find out, not
    /// after hours of copying. Then looks what need not be read for it.
    async fn prepare(
        self,
        mut going: Going<Entered>,
        left: &mut LeftBehind<'_>,
        (seen, delivery): (&Seen, &dyn WalDelivery),
        begun: &mut Begun,
    ) -> Result<Going<Ready>> {
        let progress = self.teller.progress;
        let start = begun.start();
        progress.stage(Stage::WaitingForWal, None);
        let to = going.once(left, delivery.hasten(begun.session.server())).await?;
        let range = LsnRange { start: start.lsn, end: to };
        let server: SharedServer<'_> = Mutex::new(begun.session.server());
        let prepare = async |to: &Arc<Destination>, mut entered: Entered| {
            entered.journal.started(start.lsn, start.timeline);
            let proof = async {
                let archive = WalArchive::open(to.line.clone()).await?;
                let ancestry = archive.ancestry(start.timeline).await?;
                let needed = WalNeeded { archive: &archive, ancestry: &ancestry, range };
                delivery.prove(needed, &server, progress).await
            };
            entered.journal.keep_alive(&to.line, proof).await.map_err(Failed::fruitless)?;
            let note = |what: &str| self.teller.note(to, what);
            prepare(to, seen, start, entered, self.request.parent, &note)
                .await
                .map_err(Failed::fruitless)
        };
        going.each(left, prepare).await
    }

    /// Begins to read the cluster's files.
    async fn begin_reading(
        self,
        seen: &Seen,
        survey: &Survey,
        begun: &Begun,
        packing: DestinationsPacking,
    ) -> Result<Reading> {
        let request = self.request;
        let (runtime, mut server) =
            (Handle::current(), Server::connect(&request.connection).await?);
        let start = begun.session.start_lsn;
        let limit = ReplayLimit::new(start, move || runtime.block_on(server.insert_lsn()));
        let rule = PageRule { data_checksums: seen.facts.data_checksums, start, limit };
        let source = FilesSource {
            scan: ScanOptions {
                root: seen.data_directory.clone(),
                major: seen.facts.major,
                tablespaces: begun.tablespaces.clone(),
                links: survey.rules.clone(),
            },
            relation_segment_blocks: seen.control.relseg_size,
            rule: Arc::new(rule),
            pace: Arc::new(Pace::new(&request.crew)),
            jobs: request.jobs,
        };
        source.start(packing)
    }

    fn report(
        self,
        ended: &Ended,
        read_bytes: u64,
        links: Survey,
        published: Going<Published>,
        left: &mut LeftBehind<'_>,
    ) -> Result<BackupReport> {
        let mut published = published.into_members();
        let nobody = || Error::new(Code::Internal, "a backup that nobody has was published");
        let last = published.iter().map(|member| member.state.finished).max();
        let finished = last.ok_or_else(nobody)?;
        // What is wrong with the server is told as who has the most of it stored or met.
        let most = |of: fn(&Totals) -> u64| {
            let each = published.iter().map(|member| &member.state.totals);
            each.max_by_key(|totals| of(totals)).cloned().ok_or_else(nobody)
        };
        let totals = most(|totals| totals.page_error_count)?;
        let incidents = most(|totals| totals.incidents.count())?.incidents;
        let mut outcome = |(place, destination): (usize, &Destination)| {
            let at = published.iter().position(|member| member.place == place);
            let outcome = match at {
                Some(at) => Ok(published.swap_remove(at).state.into()),
                None => Err(left.take(place).unwrap_or_else(nobody)),
            };
            DestinationReport { name: destination.name.clone(), outcome }
        };
        Ok(BackupReport {
            id: self.id,
            start_lsn: ended.start_lsn,
            stop_lsn: ended.stopped.stop_lsn,
            timeline: ended.timeline,
            started: self.started,
            finished,
            cluster_bytes: totals.cluster_bytes,
            read_bytes,
            files: totals.files,
            page_errors: totals.page_errors,
            page_error_count: totals.page_error_count,
            left_out: totals.left_out,
            incidents,
            links,
            destinations: self.destinations.iter().enumerate().map(&mut outcome).collect(),
        })
    }
}

impl From<Published> for Kept {
    fn from(published: Published) -> Self {
        let Published { finished, resumed, led_on, totals } = published;
        let Totals { stored_bytes, reused_files, unchanged_files, .. } = totals;
        Self { finished, stored_bytes, reused_files, resumed, unchanged_files, led_on }
    }
}
