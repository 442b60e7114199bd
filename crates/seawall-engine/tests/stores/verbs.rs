//! What is done with a store, and what has to hold afterwards.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use seawall_core::{Code, Error, NoProgress};
use seawall_engine::adopt::{Adoption, adopt, facts_of_lines};
use seawall_engine::check::{Candidate, CheckRequest, RepositoryFacts, collect};
use seawall_engine::cluster::read_control;
use seawall_engine::wal::{FetchRequest, PushRequest, WalPlace, fetch, push};
use seawall_repo::Repository;
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_store::{ObjectPath, Store, StoreUrl};
use seawall_testkit::faults::Random;

use crate::site::{Archiver, Copy, Site, key_options, only_line, tree, verify_all};
use crate::weather::Weather;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Backup,
    Restore,
    Verify,
    Push,
    Fetch,
    Check,
    AddKey,
    RotateKey,
    RemoveKey,
    Adopt,
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    Done,
    Refused,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Refused => "an error",
        })
    }
}

impl Verb {
    /// Each in turn; those that take long less often.
    pub fn of_round(round: u64) -> Self {
        const TURNS: [Verb; 15] = [
            Verb::Push,
            Verb::Backup,
            Verb::Fetch,
            Verb::RotateKey,
            Verb::Restore,
            Verb::Verify,
            Verb::Adopt,
            Verb::AddKey,
            Verb::RemoveKey,
            Verb::Check,
            Verb::Push,
            Verb::Backup,
            Verb::Fetch,
            Verb::Restore,
            Verb::Verify,
        ];
        TURNS[(round % TURNS.len() as u64) as usize]
    }
}

/// One round: the verb in that weather, then what holds in fair weather.
pub async fn play(
    site: &Site,
    verb: Verb,
    weather: &Weather,
    random: &mut Random,
) -> Result<Outcome> {
    let copy = site.copy();
    let outcome = match verb {
        Verb::Backup => back_up(site, &copy, weather).await,
        Verb::Restore => restore(site, &copy, weather).await,
        Verb::Verify => verify(&copy, weather, random).await,
        Verb::Push => push_segment(site, &copy, weather).await,
        Verb::Fetch => fetch_segment(site, &copy, weather, random).await,
        Verb::Check => check(site, &copy, weather).await,
        Verb::AddKey => add_key(&copy, weather).await,
        Verb::RotateKey => rotate_key(&copy, weather).await,
        Verb::RemoveKey => remove_key(&copy, weather).await,
        Verb::Adopt => adopt_server(site, &copy, weather).await,
    }?;
    if weather.is_fair() {
        ensure!(matches!(outcome, Outcome::Done), "it failed, and the store was only slow");
    }
    Ok(outcome)
}

/// The repository as it is seen in that weather, if it can be opened.
async fn opened(copy: &Copy, weather: &Weather) -> seawall_core::Result<Repository> {
    let (store, _) = weather.over(Arc::new(copy.store.clone()));
    Repository::open(store, &copy.key).await
}

/// An error is told with a code that is not "this cannot happen".
fn refused(error: &Error) -> Result<Outcome> {
    ensure!(error.code() != Code::Internal, "{}", error.chain());
    Ok(Outcome::Refused)
}

async fn back_up(site: &Site, copy: &Copy, weather: &Weather) -> Result<Outcome> {
    let clean = copy.line().await?;
    let _archiver = Archiver::begin(&site.archive, &clean).await?;
    let run = async || {
        let repository = opened(copy, weather).await?;
        let (cluster, id) = (clean.cluster().clone(), clean.id());
        site.back_up(&repository.line(&cluster, id)?).await
    };
    let outcome = match run().await {
        Ok(report) => {
            let listed = clean.backups().await?;
            ensure!(listed.iter().any(|backup| backup.id == report.id), "it is not listed");
            Outcome::Done
        }
        Err(error) => refused(&error)?,
    };
    copy.is_sound().await.context("after the backup")?;
    copy.bury_attempts().await?;
    let next = site.back_up(&clean).await.context("the next backup")?;
    copy.is_sound().await.context("after the next backup")?;
    let room = site.room("next");
    let restored = site.restore(&clean, &room).await.context("the restore")?;
    ensure!(restored.plan.backup.id == next.id.to_string(), "another backup was restored");
    fs::remove_dir_all(room)?;
    Ok(outcome)
}

async fn restore(site: &Site, copy: &Copy, weather: &Weather) -> Result<Outcome> {
    let room = site.room("restored");
    let run = async || {
        let repository = opened(copy, weather).await?;
        let line = only_line(&repository).await.map_err(|error| match error.downcast() {
            Ok(error) => error,
            Err(other) => Error::new(Code::ObjectMissing, other.to_string()),
        })?;
        site.restore(&line, &room).await
    };
    let before = copy.names().await?;
    let outcome = match run().await {
        Ok(_) => Outcome::Done,
        Err(error) => {
            ensure!(!room.join("global/pg_control").exists(), "half of it can be started");
            site.restore(&copy.line().await?, &room).await.context("the same again")?;
            refused(&error)?
        }
    };
    ensure!(tree(&room)? == site.restored, "something else was restored");
    fs::remove_dir_all(room)?;
    let pins = |names: std::collections::BTreeSet<String>| -> Vec<String> {
        names.into_iter().filter(|name| !name.contains("/pin/")).collect()
    };
    ensure!(pins(copy.names().await?) == pins(before), "a restore changed the repository");
    copy.is_sound().await?;
    Ok(outcome)
}

/// Of a repository that is whole, or has a spoilt object.
async fn verify(copy: &Copy, weather: &Weather, random: &mut Random) -> Result<Outcome> {
    let is_whole = random.below(2) == 0;
    let spoilt = if is_whole { None } else { Some(spoil(copy, random).await?) };
    let run = async || verify_all(&opened(copy, weather).await?).await;
    let outcome = match run().await {
        Ok(report) => {
            let found = !report.findings.is_empty();
            if let Some(name) = &spoilt {
                ensure!(found, "{name} is spoilt, and nothing was found");
            }
            if !weather.lies() && is_whole {
                let damage: Vec<_> =
                    report.findings.iter().filter(|it| it.code == Code::ObjectDamaged).collect();
                ensure!(damage.is_empty(), "nothing is spoilt: {damage:#?}");
            }
            Outcome::Done
        }
        Err(error) => refused(&error)?,
    };
    if is_whole {
        copy.is_sound().await?;
    }
    Ok(outcome)
}

/// Changes one byte of a pack or of WAL.
async fn spoil(copy: &Copy, random: &mut Random) -> Result<String> {
    let names = copy.names().await?;
    let bodies: Vec<&String> =
        names.iter().filter(|name| name.contains("/pack/") || name.contains("/wal/")).collect();
    let name = bodies[random.below(bodies.len() as u64) as usize];
    let path: ObjectPath = name.parse()?;
    let mut bytes = copy.store.read(&path).await?.to_vec();
    let at = random.below(bytes.len() as u64) as usize;
    bytes[at] ^= 1;
    copy.store.delete(&path).await?;
    copy.store.create(&path, bytes.into()).await?;
    Ok(name.clone())
}

async fn push_segment(site: &Site, copy: &Copy, weather: &Weather) -> Result<Outcome> {
    let (name, bytes) = &site.next;
    let path = site.directory.join(name);
    fs::write(&path, bytes)?;
    let clean = copy.line().await?;
    let cluster = clean.cluster().clone();
    let request = |repository: Repository| PushRequest {
        cluster: cluster.clone(),
        path: path.clone(),
        places: vec![WalPlace { name: "main".to_owned(), repository, compression_level: 1 }],
        system_id: None,
        branch: None,
        partial: false,
    };
    let run = async || push(&request(opened(copy, weather).await?)).await;
    let outcome = match run().await {
        Ok(_) => Outcome::Done,
        Err(error) => {
            let outcome = refused(&error)?;
            copy.is_sound().await.context("after a push that failed")?;
            push(&request(clean.repository().clone())).await.context("the same again")?;
            outcome
        }
    };
    ensure!(fetched(site, copy, name).await? == *bytes, "{name} is archived otherwise");
    copy.is_sound().await?;
    Ok(outcome)
}

/// What the repository has of a segment, in fair weather.
async fn fetched(site: &Site, copy: &Copy, name: &str) -> Result<Vec<u8>> {
    let destination = site.directory.join("fetched");
    fetch(&fetch_request(copy.line().await?, name, &destination)).await?;
    let bytes = fs::read(&destination)?;
    fs::remove_file(destination)?;
    Ok(bytes)
}

pub fn fetch_request(
    line: seawall_repo::Line,
    name: &str,
    destination: &std::path::Path,
) -> FetchRequest {
    FetchRequest {
        lines: vec![line],
        name: name.to_owned(),
        destination: destination.to_owned(),
        path: None,
        standby: false,
    }
}

async fn fetch_segment(
    site: &Site,
    copy: &Copy,
    weather: &Weather,
    random: &mut Random,
) -> Result<Outcome> {
    let (name, bytes) = &site.segments[random.below(site.segments.len() as u64) as usize];
    let destination = site.directory.join("wanted");
    let clean = copy.line().await?;
    let standby = random.below(2) == 0;
    let run = async || {
        let repository = opened(copy, weather).await?;
        let line = repository.line(clean.cluster(), clean.id())?;
        fetch(&FetchRequest { standby, ..fetch_request(line, name, &destination) }).await
    };
    match run().await {
        Ok(()) => {
            ensure!(fs::read(&destination)? == *bytes, "{name} was fetched with other bytes");
            fs::remove_file(destination)?;
            Ok(Outcome::Done)
        }
        Err(error) => {
            ensure!(!destination.exists(), "{name} was refused and left behind");
            ensure!(error.code() != Code::WalPastEnd, "it is archived: {}", error.chain());
            refused(&error)
        }
    }
}

async fn check(site: &Site, copy: &Copy, weather: &Weather) -> Result<Outcome> {
    let before = copy.names().await?;
    let (store, _) = weather.over(Arc::new(copy.store.clone()));
    let facts = checked(site, copy, store).await?;
    ensure!(copy.names().await? == before, "a check changed the repository");
    if facts.trouble.is_none() {
        ensure!(facts.has_backup, "there is a backup, and the check saw none");
    }
    Ok(if facts.trouble.is_none() { Outcome::Done } else { Outcome::Refused })
}

/// What a check says of the repository, seen through a store.
pub async fn checked(site: &Site, copy: &Copy, store: Arc<dyn Store>) -> Result<RepositoryFacts> {
    let clean = copy.line().await?;
    let line = async {
        let repository = Repository::open(store, &copy.key).await?;
        repository.line(clean.cluster(), clean.id())
    };
    let request = CheckRequest {
        cluster: clean.cluster().clone(),
        connection: site.connection.clone(),
        data_directory: None,
        expected_archive_command: String::new(),
        repositories: vec![Candidate {
            name: "main".to_owned(),
            url: StoreUrl::Memory,
            line: line.await,
        }],
        // Nobody pushes into the copy.
        patience: Duration::from_millis(100),
    };
    let facts = collect(request, &NoProgress).await?;
    facts.repositories.into_iter().next().context("nothing is said of the repository")
}

fn new_key() -> Result<Unlock> {
    Ok(Unlock::KeyFile(KeyFile::generate()?))
}

/// The whole repository is read with a key.
async fn opens(copy: &Copy, key: &Unlock) -> Result<()> {
    Copy { store: copy.store.clone(), key: key.clone() }.is_sound().await
}

async fn add_key(copy: &Copy, weather: &Weather) -> Result<Outcome> {
    let another = new_key()?;
    let run = async || opened(copy, weather).await?.add_key(&key_options(&another)).await;
    let outcome = match run().await {
        Ok(_) => Outcome::Done,
        Err(error) => {
            let outcome = refused(&error)?;
            opens(copy, &copy.key).await?;
            let repository = copy.line().await?.repository().clone();
            repository.add_key(&key_options(&another)).await.context("the same again")?;
            outcome
        }
    };
    opens(copy, &copy.key).await?;
    opens(copy, &another).await?;
    Ok(outcome)
}

async fn rotate_key(copy: &Copy, weather: &Weather) -> Result<Outcome> {
    let another = new_key()?;
    copy.line().await?.repository().add_key(&key_options(&another)).await?;
    let both = || [key_options(&copy.key), key_options(&another)];
    let run = async || opened(copy, weather).await?.rotate(&both()).await;
    let outcome = match run().await {
        Ok(rotated) => {
            ensure!(rotated.keyring().current_epoch() == 2, "another epoch");
            Outcome::Done
        }
        Err(error) => refused(&error)?,
    };
    opens(copy, &copy.key).await?;
    opens(copy, &another).await?;
    if matches!(outcome, Outcome::Refused) {
        let repository = copy.line().await?.repository().clone();
        repository.rotate(&both()).await.context("the same again")?;
        opens(copy, &copy.key).await?;
        opens(copy, &another).await?;
    }
    Ok(outcome)
}

async fn remove_key(copy: &Copy, weather: &Weather) -> Result<Outcome> {
    let going = new_key()?;
    let clean = copy.line().await?.repository().clone();
    let slots = clean.add_key(&key_options(&going)).await?;
    let [slot] = slots[..] else { bail!("{slots:?}") };
    let run = async || opened(copy, weather).await?.remove_key(1, slot).await;
    let outcome = match run().await {
        Ok(()) => Outcome::Done,
        Err(error) => {
            ensure!(error.code() != Code::LastKey, "there is another: {}", error.chain());
            let outcome = refused(&error)?;
            opens(copy, &copy.key).await?;
            clean.remove_key(1, slot).await.context("the same again")?;
            outcome
        }
    };
    opens(copy, &copy.key).await?;
    let store: Arc<dyn Store> = Arc::new(copy.store.clone());
    let refused = Repository::open(store, &going).await.err().map(|error| error.code());
    ensure!(refused == Some(Code::WrongKey), "the key that is gone: {refused:?}");
    Ok(outcome)
}

async fn adopt_server(site: &Site, copy: &Copy, weather: &Weather) -> Result<Outcome> {
    let old = copy.line().await?;
    let control = read_control(site.pg.data_directory())?;
    let cluster = old.cluster();
    let give_a_line = async |repository: &Repository| {
        let lines = facts_of_lines(repository, cluster).await?;
        let plan = Adoption::plan(cluster, &[lines], control.system_id)?;
        let [adoption] = plan[..] else {
            return Err(Error::new(Code::Internal, "one repository, one adoption"));
        };
        adopt(repository, cluster, &control, adoption).await
    };
    let run = async || give_a_line(&opened(copy, weather).await?).await;
    let (line, outcome) = match run().await {
        Ok(line) => (line.id(), Outcome::Done),
        Err(error) => {
            let outcome = refused(&error)?;
            copy.is_sound().await?;
            (give_a_line(old.repository()).await.context("the same again")?.id(), outcome)
        }
    };
    ensure!(line.branch.0 == 1, "not the next line: {line}");
    let lines = old.repository().lines().await?;
    ensure!(lines.len() == 2 && lines.iter().any(|(_, id)| *id == line), "{lines:?}");
    ensure!(old.backups().await?.len() == 1, "the old line lost its backup");
    copy.is_sound().await?;
    Ok(outcome)
}
