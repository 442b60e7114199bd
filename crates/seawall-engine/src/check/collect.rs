use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use seawall_core::{Action, ClusterName, Error, Progress, Result, Stage, hint};
use seawall_pgwire::Config;
use seawall_repo::Line;
use seawall_store::StoreUrl;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::arrival::{Way, switch};
use super::facts::{Arrival, Facts, RepositoryFacts, Settings, Trouble, WalDirectory};
use crate::backup::survey_cluster;
use crate::cluster::{
    Archiver, MissingRights, Server, ServerFacts, Survey, prove_essentials, prove_own_files,
};
use crate::delivery::SharedServer;
use crate::durable::{Room, room};
use crate::survey::LineSeen;

/// How long WAL is measured to tell its rate.
const RATE_SAMPLE: Duration = Duration::from_secs(1);

/// What to check.
#[derive(Debug)]
pub struct CheckRequest {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Where its server is.
    pub connection: Config,
    /// Where its files are; `None` for where the server says.
    pub data_directory: Option<PathBuf>,
    /// What `archive_command` ought to be.
    pub expected_archive_command: String,
    /// Its repositories.
    pub repositories: Vec<Candidate>,
    /// How long WAL may take to arrive.
    pub patience: Duration,
}

/// A repository to check.
#[derive(Debug)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: StoreUrl,
    /// The cluster's line in it, or why it cannot be used.
    pub line: Result<Line>,
}

/// `archive_command` as it was set: while `archive_mode` is off, its own value is shown as
/// `(disabled)` (`show_archive_command`, xlog.c).
const SETTINGS: &str = "select pg_catalog.current_setting('wal_level') as wal_level, \
     pg_catalog.current_setting('archive_mode') as archive_mode, \
     (select reset_val from pg_catalog.pg_settings \
       where name OPERATOR(pg_catalog.=) 'archive_command') as archive_command, \
     coalesce(pg_catalog.current_setting('archive_library', true), '') as archive_library, \
     (select setting::pg_catalog.int4 from pg_catalog.pg_settings \
       where name OPERATOR(pg_catalog.=) 'archive_timeout') as archive_timeout, \
     pg_catalog.current_setting('full_page_writes') as full_page_writes, \
     pg_catalog.current_setting('fsync') as fsync";

/// Looks at the cluster and its repositories, and sends WAL through the whole path.
///
/// # Errors
/// Those of the server: without it there is nothing to check. What is wrong with a repository is
/// in the facts.
pub async fn collect(request: CheckRequest, progress: &dyn Progress) -> Result<Facts> {
    progress.stage(Stage::WaitingForPostgres, None);
    let mut server = Server::connect(&request.connection).await?;
    let said = server.facts().await?;
    let data_directory =
        request.data_directory.clone().unwrap_or_else(|| said.data_directory.clone());
    let settings = settings(&mut server, &said).await?;
    let mut data_directory_trouble = prove_own_files(&mut server, &said, &data_directory)
        .await
        .err()
        .map(|error| trouble(&error));
    let (files, files_trouble) = if data_directory_trouble.is_none() {
        let essentials = prove_essentials(&mut server, &data_directory).await;
        let (files, trouble_with_files) = files(&said, &data_directory).await;
        (files, essentials.err().map(|error| trouble(&error)).or(trouble_with_files))
    } else {
        (None, None)
    };
    let wal_directory = wal_directory(&data_directory);
    if let (None, Err(error)) = (&data_directory_trouble, &wal_directory) {
        data_directory_trouble = Some(Trouble {
            what: format!("pg_wal in {} cannot be looked at: {error}", data_directory.display()),
            fix: "run this as the owner of the data directory".into(),
        });
    }
    let missing_rights = MissingRights::ask(&mut server).await?;
    let wal_bytes_per_s = if said.in_recovery { None } else { Some(rate(&mut server).await?) };

    let can_switch =
        !said.in_recovery && settings.archive_mode != "off" && missing_rights.may_send_wal();
    progress.stage(Stage::WaitingForWal, None);
    let route = if can_switch { Some(switch(&mut server, &said).await?) } else { None };
    let repositories = {
        let pg_wal = data_directory.join("pg_wal");
        let way = route.map(|route| Way { route, pg_wal, patience: request.patience, progress });
        let asked: SharedServer<'_> = Mutex::new(&mut server);
        let candidates = request.repositories.into_iter();
        let looks = candidates.map(|candidate| look(candidate, &said, way.as_ref(), &asked));
        join_all(looks).await
    };
    let archiver = Archiver::ask(&mut server).await?;
    let timeline = if said.in_recovery { None } else { Some(server.timeline().await?) };
    server.close().await;
    let sees_the_same = data_directory == said.data_directory && data_directory_trouble.is_none();
    let archive_command_lacks =
        lacking(&settings.archive_command).filter(|_| sees_the_same).map(Path::to_owned);
    Ok(Facts {
        cluster: request.cluster.clone(),
        server_version: said.version,
        in_recovery: said.in_recovery,
        timeline,
        data_directory_trouble,
        files,
        files_trouble,
        settings,
        expected_archive_command: request.expected_archive_command,
        archive_command_lacks,
        missing_rights,
        archiver,
        wal_directory: wal_directory.ok(),
        wal_bytes_per_s,
        data_device: device(&data_directory),
        repositories,
    })
}

/// What a backup would read, and what keeps it from that.
async fn files(said: &ServerFacts, data_directory: &Path) -> (Option<Survey>, Option<Trouble>) {
    match survey_cluster(said, data_directory).await {
        Ok(survey) => {
            let refused = survey.unreadable.refuse().err().map(|error| trouble(&error));
            (Some(survey), refused)
        }
        Err(error) => (None, Some(trouble(&error))),
    }
}

async fn settings(server: &mut Server, said: &ServerFacts) -> Result<Settings> {
    let row = server.connection().query_one(SETTINGS).await?;
    Ok(Settings {
        wal_level: row.get("wal_level")?,
        archive_mode: row.get("archive_mode")?,
        archive_command: row.get::<Option<String>>("archive_command")?.unwrap_or_default(),
        archive_library: row.get("archive_library")?,
        archive_timeout_s: row.get("archive_timeout")?,
        full_page_writes: row.get("full_page_writes")?,
        fsync: row.get("fsync")?,
        pending_restart: said.pending_restart.clone(),
    })
}

/// Bytes of WAL a second.
async fn rate(server: &mut Server) -> Result<f64> {
    let (before, began) = (server.insert_lsn().await?, Instant::now());
    sleep(RATE_SAMPLE).await;
    let after = server.insert_lsn().await?;
    Ok(after.bytes_since(before) as f64 / began.elapsed().as_secs_f64())
}

async fn look(
    candidate: Candidate,
    server: &ServerFacts,
    way: Option<&Way<'_>>,
    asked: &SharedServer<'_>,
) -> RepositoryFacts {
    let directory = candidate.url.as_directory();
    let mut facts = RepositoryFacts {
        device: directory.and_then(device),
        free_bytes: directory.and_then(|it| room(it).ok()).map(|room| room.free_bytes),
        name: candidate.name,
        trouble: None,
        arrival: None,
        has_backup: false,
        newest_backup_bytes: None,
        newest_timeline: None,
        foreign_wal: Vec::new(),
        obstacle: None,
    };
    let line = match candidate.line {
        Ok(line) => line,
        Err(error) => {
            facts.trouble = Some(trouble(&error));
            return facts;
        }
    };
    if line.id().system_id != server.system_id {
        facts.trouble = Some(Trouble {
            what: format!(
                "its cluster {} is {}, and the server is {}",
                line.cluster(),
                line.id().system_id,
                server.system_id
            ),
            fix: hint![
                "after pg_upgrade or initdb: ",
                Action::Adopt { cluster: Some(line.cluster().clone()) }
            ],
        });
        return facts;
    }
    if let Some(way) = way {
        let arrival = way.wait_and_compare(line.clone(), asked).await;
        facts.arrival = Some(arrival.unwrap_or_else(|error| Arrival::Unreadable(trouble(&error))));
    }
    if let Err(error) = look_at_backups(&line, &mut facts).await {
        facts.trouble = Some(trouble(&error));
    }
    facts
}

/// Whether there is a backup that can be restored, what keeps archived WAL from being of use to the
/// newest one, and how large and of which timeline the newest of it all is. That there is none is said
/// only where every backup could be read.
async fn look_at_backups(line: &Line, facts: &mut RepositoryFacts) -> Result<()> {
    let seen = LineSeen::look(line, &facts.name).await?;
    facts.newest_backup_bytes = seen.newest_backup().and_then(|newest| newest.stored_bytes);
    facts.newest_timeline = seen.newest_timeline;
    facts.has_backup = seen.reach.is_some();
    facts.foreign_wal = seen.foreign_wal;
    facts.obstacle = seen.reach.and_then(|reach| reach.obstacle);
    Ok(())
}

/// The first path an `archive_command` names that leads nowhere: its program, or its configuration.
/// One that a shell has more to do with than to split it is not judged.
fn lacking(command: &str) -> Option<&Path> {
    if command.contains(['\'', '"', '\\', '$', '`', ';', '&', '|', '<', '>', '(', '*', '?', '[']) {
        return None;
    }
    let words: Vec<&str> = command.split_whitespace().collect();
    let configuration = words.windows(2).find(|pair| pair[0] == "--config").map(|pair| pair[1]);
    let named = words.first().copied().into_iter().chain(configuration).map(Path::new);
    let mut absent = named
        .filter(|path| path.is_absolute())
        .filter(|path| matches!(path.try_exists(), Ok(false)));
    absent.next()
}

fn trouble(error: &Error) -> Trouble {
    let by_code = || format!("it is {}: {}", error.code(), error.code().title()).into();
    let fix = error.hint().cloned().unwrap_or_else(by_code);
    Trouble { what: error.chain(), fix }
}

/// What is in `pg_wal`, and how much room its disk has.
fn wal_directory(data_directory: &Path) -> io::Result<WalDirectory> {
    let directory = data_directory.join("pg_wal");
    let mut used_bytes = 0;
    for entry in fs::read_dir(&directory)? {
        used_bytes += match entry?.metadata() {
            Ok(file) => file.len(),
            // Files come and go while they are counted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    let mut waiting_segments = 0;
    for entry in fs::read_dir(directory.join("archive_status"))? {
        waiting_segments += u64::from(entry?.path().extension().is_some_and(|ext| ext == "ready"));
    }
    let Room { free_bytes, disk_bytes } = room(&directory)?;
    Ok(WalDirectory { used_bytes, waiting_segments, free_bytes, disk_bytes })
}

fn device(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|file| file.dev())
}
