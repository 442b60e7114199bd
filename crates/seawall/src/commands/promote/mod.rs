//! `seawall promote DIR`: makes a restored server take writes, or moves one that waits forward.

mod forward;
mod rival;

use std::path::Path;

use jiff::Timestamp;
use seawall_core::{Action, ClusterName, Hint, Result, hint};
use seawall_engine::restore::{self, Archives, DEFAULT_ROLE, Login, PromoteOptions, Promoted};
use seawall_engine::restored::RestoreState;
use seawall_engine::whereabouts::Whereabouts;
use seawall_repo::wal::WalArchive;

use crate::args::PromoteArgs;
use crate::commands::restore::{log_file, login};
use crate::config::{self, Config};
use crate::context::{Context, Place, absolute, open_all};
use crate::exit::Outcome;
use crate::owner::Owner;
use crate::render::{Style, sentence};
use crate::{postgres, run};

/// What a person has to see to who lets a standby take over.
fn old_primary() -> Hint {
    hint![
        "The old primary must not run any more: what is written there from now on is lost to this \
         server, and two primaries in one archive are two pasts. Then take a backup here: ",
        Action::Backup { cluster: None },
        "."
    ]
}

/// What can still be done about what a dead primary did not archive.
const LAST_SEGMENTS: &str = "What the old primary committed and did not archive is left out too; if \
     its disk can be read, copy its pg_wal before you wipe it.";

/// Where nothing was asked, two servers may begin a timeline of the same number.
fn number() -> Hint {
    hint![
        "The number of its timeline may be taken in the archive. Then `wal push` refuses what this \
         server archives, and ",
        Action::Adopt { cluster: None },
        " gives it a line of its own."
    ]
}

/// Runs the command.
///
/// # Errors
/// [`seawall_core::Code::BehindArchive`], [`seawall_core::Code::RestoredServerFailed`],
/// [`seawall_core::Code::WrongUser`], and [`seawall_core::Code::Usage`] if there is no data
/// directory.
pub fn main(config_file: Option<&Path>, args: &PromoteArgs) -> Result<Outcome> {
    let directory = absolute(&args.directory);
    // Files named by flags belong to whoever typed them.
    let context = Context::new(config_file, &args.repository);
    let login_config = match &context {
        Ok(context) => context.config.clone(),
        Err(_) => config::load_if_any(config_file)?.unwrap_or_else(Config::none),
    };
    if let Some(owner) = Owner::of(&directory) {
        owner.become_for_good()?;
    }
    let login = login_of(&login_config, &directory, args.user.as_deref())?;
    let runtime = run::runtime()?;
    let now = Timestamp::now();
    if let Some(target) = forward::target(args, now)? {
        let moved = forward::run(args, login, context?, directory, target, now);
        return runtime.block_on(run::until_interrupted(moved));
    }
    runtime.block_on(run::until_interrupted(rival::ask(&login_config, &directory, args.yes)))?;
    let promoted = runtime.block_on(run::until_interrupted(async {
        let options = PromoteOptions {
            data_directory: &directory,
            login: &login,
            timeout: args.timeout,
            log_file: &log_file(&directory),
            archives: archives(context, &directory).await?,
            without_archive: args.without_archive,
        };
        restore::promote(&options).await
    }))?;
    tell(&directory, promoted);
    Ok(Outcome::Done)
}

/// Which cluster's connection it is, the restored directory tells.
fn login_of(config: &Config, directory: &Path, role: Option<&str>) -> Result<Login> {
    let owner = Owner::current();
    match RestoreState::read(directory)? {
        Some(state) => login(config, state.cluster(), role, &owner),
        None => postgres::login("", role.unwrap_or(DEFAULT_ROLE), &owner),
    }
}

fn tell(directory: &Path, promoted: Promoted) {
    let shown = directory.display();
    match promoted {
        Promoted::Now { notes } => {
            notes.iter().for_each(|text| note(text));
            eprintln!("{shown} takes writes");
        }
        Promoted::Standby { left_out, number_in_doubt } => {
            eprintln!("{shown} takes writes: it was a standby and is a primary now");
            eprintln!("leaves out: {left_out}");
            if number_in_doubt {
                note(&sentence(&number()));
            }
            note(LAST_SEGMENTS);
            note(&sentence(&old_primary()));
        }
        Promoted::Before => eprintln!("{shown} takes writes already; nothing was to be done"),
    }
}

fn note(text: &str) {
    eprintln!("{} {text}", Style::of_stderr().yellow("note:"));
}

/// Where the WAL of the server comes from.
async fn archives(context: Result<Context>, directory: &Path) -> Result<Archives> {
    let state = RestoreState::read(directory)?;
    let mut archives = Archives::default();
    let mut found = match context.and_then(|context| places(&context, state.as_ref())) {
        Ok((places, cluster)) => {
            let opened = open_all(places).await;
            match &state {
                Some(state) => Whereabouts::of_restored(opened, state),
                None => Whereabouts::of_written(opened, cluster.as_ref()).await,
            }
        }
        Err(error) => {
            archives.failure = Some(error);
            return Ok(archives);
        }
    };
    for (name, line) in std::mem::take(&mut found.lines) {
        match WalArchive::open(line).await {
            Ok(archive) => archives.open.push(archive),
            Err(error) => found.failures.push((name, error)),
        }
    }
    archives.failure = found.take_failure();
    Ok(archives)
}

fn places(
    context: &Context,
    state: Option<&RestoreState>,
) -> Result<(Vec<Place>, Option<ClusterName>)> {
    match state.map(RestoreState::cluster) {
        Some(cluster) => Ok((context.target(cluster)?.places, Some(cluster.clone()))),
        None => {
            let target = context.one_target(None)?;
            Ok((target.places, Some(target.name)))
        }
    }
}
