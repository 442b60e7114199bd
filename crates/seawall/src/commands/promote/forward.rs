//! `seawall promote DIR --to WHAT`: a clone that waits goes on to a later moment, and waits there.

use std::path::PathBuf;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use seawall_core::{Code, Error, Result};
use seawall_engine::restore::{
    ForwardOptions, Login, Point, Recovered, Target, plan_forward, state_to_move,
};
use seawall_engine::restored::RestoreState;
use seawall_engine::whereabouts::Whereabouts;
use seawall_repo::Line;
use seawall_repo::wal::WalArchive;

use super::{note, places};
use crate::args::PromoteArgs;
use crate::commands::restore::log_file;
use crate::context::{Context, open_all};
use crate::exit::Outcome;
use crate::render::{Out, sentence, shell_quote};

/// How far to move, and the words for it.
///
/// # Errors
/// [`Code::TargetInvalid`]
pub(super) fn target(args: &PromoteArgs, now: Timestamp) -> Result<Option<(Target, String)>> {
    let point = |text: &str| Point::parse(text, &TimeZone::system(), now);
    Ok(match (&args.to, &args.before) {
        (Some(text), _) => Some((Target::To(point(text)?), format!("to {text}"))),
        (None, Some(text)) => Some((Target::Before(point(text)?), format!("before {text}"))),
        (None, None) => None,
    })
}

pub(super) async fn run(
    args: &PromoteArgs,
    login: Login,
    context: Context,
    directory: PathBuf,
    (target, target_text): (Target, String),
    asked_at: Timestamp,
) -> Result<Outcome> {
    let state = state_to_move(&directory)?;
    let line = first_line(&context, &state).await?;
    let wal = WalArchive::open(line.clone()).await?;
    let options = ForwardOptions {
        log_file: log_file(&directory),
        data_directory: directory.clone(),
        login,
        timeout: args.timeout,
        target,
        target_text,
        asked_at,
    };
    let planned = plan_forward(&line, &wal, options).await?;
    eprintln!("{}", sentence(&planned.plan().text()));
    let moved = planned.run().await?;
    moved.notes.iter().for_each(|text| note(text));
    let Recovered::Paused { replayed_to } = moved.recovered else {
        return Err(Error::new(Code::Internal, "a server that was to wait does not"));
    };
    let shown = shell_quote(&directory.display().to_string());
    Out.line(&format!("PostgreSQL waits at {replayed_to} and can be read, where it was before"))?;
    Out.line("if it is what you wanted:")?;
    Out.line(&format!("  seawall promote {shown}"))?;
    Ok(Outcome::Done)
}

/// The line in the first repository that has it.
async fn first_line(context: &Context, state: &RestoreState) -> Result<Line> {
    let (places, _) = places(context, Some(state))?;
    let found = Whereabouts::of_restored(open_all(places).await, state);
    if let Some((_, line)) = found.lines.into_iter().next() {
        return Ok(line);
    }
    let failure = found.failures.into_iter().next().map(|(_, error)| error);
    Err(failure.unwrap_or_else(|| {
        Error::new(Code::NotConfigured, "there is no repository to take WAL from")
            .with_hint("Name one: `--repo URL --key FILE`, or `--kit FILE`.")
    }))
}
