//! `seawall hold`, `release`, `annotate` and `delete`: what people say of one backup.

use std::path::Path;

use seawall_core::{Action, BackupId, ClusterName, Code, Error, Result, hint};
use seawall_engine::mark::{LastGood, Mark, Marked, look_before_delete, mark};
use seawall_engine::named_twice::named_twice;
use seawall_engine::survey::{Candidate, Choices, CopyAt, find_backup};
use seawall_repo::Repository;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::tell_passed_over;
use crate::args::{AnnotateArgs, BackupWordArgs, DeleteArgs, HoldArgs};
use crate::context::{Context, open_all};
use crate::exit::Outcome;
use crate::render::{self, Out, confirm, typed};
use crate::run;

/// Runs `hold`.
///
/// # Errors
/// [`Code::NoSuchBackup`], and those of configuration and repositories.
pub fn hold(config: Option<&Path>, args: &HoldArgs) -> Result<Outcome> {
    let said = Mark::Hold { until: args.until, reason: args.reason.clone() };
    Meant::find(config, &args.backup)?.say(&said, &args.backup)
}

/// Runs `release`.
///
/// # Errors
/// As [`hold`].
pub fn release(config: Option<&Path>, args: &BackupWordArgs) -> Result<Outcome> {
    Meant::find(config, args)?.say(&Mark::Release, args)
}

/// Runs `annotate`.
///
/// # Errors
/// As [`hold`].
pub fn annotate(config: Option<&Path>, args: &AnnotateArgs) -> Result<Outcome> {
    let said = Mark::Annotate(args.notes.iter().cloned().collect());
    Meant::find(config, &args.backup)?.say(&said, &args.backup)
}

/// Runs `delete`.
///
/// # Errors
/// [`Code::BackupKept`], [`Code::NotConfirmed`], and as [`hold`].
pub fn delete(config: Option<&Path>, args: &DeleteArgs) -> Result<Outcome> {
    let meant = Meant::find(config, &args.backup)?;
    let id = meant.backup.id;
    let is_named = agree(&meant.backup, meant.last_good()?.as_ref(), args)?;
    // An answer takes its time, and another one may have gone meanwhile.
    if meant.last_good()?.is_some() && !is_named {
        let what = format!("backup {id} became the last good one while the question was open");
        return Err(Error::new(Code::BackupKept, what).with_hint("Nothing was changed."));
    }
    meant.say(&Mark::Delete, &args.backup)
}

/// Asks. Whether the backup was named in full.
fn agree(
    backup: &Candidate<Vec<CopyAt>>,
    last: Option<&LastGood>,
    args: &DeleteArgs,
) -> Result<bool> {
    let (id, cluster) = (backup.id, &backup.cluster);
    let is_it = |text: &str| text == id.to_string() || text == id.0.to_string();
    match &args.confirm {
        Some(text) if is_it(text) => return Ok(true),
        Some(text) => {
            let what = format!("--confirm names {text}, and the backup is {id}");
            return Err(Error::new(Code::NotConfirmed, what)
                .with_hint("Nothing was changed. Name the same backup twice."));
        }
        None => {}
    }
    let Some(last) = last else {
        confirm(&format!("Delete backup {id} of cluster {cluster}?"), args.yes)?;
        return Ok(false);
    };
    let what = format!(
        "backup {id} is {} of cluster {cluster} in repository {}",
        last.why, last.repository
    );
    if typed(&format!("{what}. Type its id to delete it: "))?.is_some_and(|text| is_it(&text)) {
        return Ok(true);
    }
    Err(Error::new(Code::BackupKept, format!("{what}, so it is not deleted")).with_hint(hint![
        "Take another one first: ",
        Action::Backup { cluster: Some(cluster.clone()) },
        format!(". Or name it, if it is to go all the same: `--confirm {id}`.")
    ]))
}

/// The backup that is meant, wherever it is.
struct Meant {
    backup: Candidate<Vec<CopyAt>>,
    /// Repositories that did not answer: they may have it too.
    away: Vec<(String, Error)>,
    runtime: Runtime,
}

impl Meant {
    fn find(config: Option<&Path>, args: &BackupWordArgs) -> Result<Self> {
        let context = Context::new(config, &args.repository)?;
        let places = match &args.cluster {
            Some(name) => context.target(name)?.places,
            None => context.places(),
        };
        context.become_owner(None)?;
        let runtime = run::runtime()?;
        let (mut opened, mut away) = (Vec::<(String, Repository)>::new(), Vec::new());
        for (name, result) in runtime.block_on(open_all(places)) {
            match result {
                Ok(repository) => {
                    let before = opened.iter().map(|(name, it)| (name.as_str(), it));
                    match named_twice(before, &name, &repository) {
                        Some(error) => render::warn(&error),
                        None => opened.push((name, repository)),
                    }
                }
                Err(error) => away.push((name, error)),
            }
        }
        let choices = runtime.block_on(Choices::look(&opened, args.cluster.as_ref()));
        away.extend(choices.failures);
        let found = match find_backup(&args.backup, choices.backups) {
            Ok(found) => found,
            // Away is not absent.
            Err(error) => match away.pop() {
                Some((_, last)) if error.code() == Code::NoSuchBackup => {
                    away.iter().for_each(|(_, error)| render::report(error));
                    return Err(last);
                }
                _ => return Err(error),
            },
        };
        tell_passed_over(&found, None);
        Ok(Self { backup: found.backup, away, runtime })
    }

    fn last_good(&self) -> Result<Option<LastGood>> {
        self.runtime.block_on(look_before_delete(&self.backup.what, self.backup.id))
    }

    /// Says it of every copy, and what came of that.
    fn say(self, said: &Mark, args: &BackupWordArgs) -> Result<Outcome> {
        let Self { backup: Candidate { cluster, id, what: copies, .. }, away, runtime } = self;
        let marked = runtime.block_on(mark(&copies, id, said));
        let missed =
            away.into_iter().map(|(repository, error)| Marked { repository, outcome: Err(error) });
        let all: Vec<Marked> = marked.into_iter().chain(missed).collect();
        tell(&cluster, id, said, &all, args.output.json)?;
        let is_done = all.iter().any(|one| one.outcome.is_ok());
        let failures = all.into_iter().filter_map(|one| {
            let context = format!("repository {}", one.repository);
            one.outcome.err().map(|error| error.context(context))
        });
        let mut failures: Vec<Error> = failures.collect();
        let Some(last) = failures.pop() else { return Ok(Outcome::Done) };
        failures.iter().for_each(render::report);
        if !is_done {
            return Err(last);
        }
        render::report(&last);
        Ok(Outcome::Findings)
    }
}

fn tell(
    cluster: &ClusterName,
    id: BackupId,
    said: &Mark,
    all: &[Marked],
    as_json: bool,
) -> Result<()> {
    if as_json {
        let repositories = all
            .iter()
            .map(|one| json!({ "name": one.repository, "error": one.outcome.as_ref().err() }));
        return Out.json(&json!({
            "cluster": cluster,
            "id": id.to_string(),
            "ulid": id.0.to_string(),
            "repositories": repositories.collect::<Vec<Value>>(),
        }));
    }
    let done: Vec<&str> =
        all.iter().filter(|one| one.outcome.is_ok()).map(|one| one.repository.as_str()).collect();
    if done.is_empty() {
        return Ok(());
    }
    let what = match said {
        Mark::Hold { until: Some(until), .. } => {
            format!("is held until {}", render::zones(*until, None))
        }
        Mark::Hold { until: None, .. } => "is held".to_owned(),
        Mark::Release => "is not held any more".to_owned(),
        Mark::Annotate(_) => "is annotated".to_owned(),
        Mark::Delete => "is to be deleted".to_owned(),
    };
    Out.line(&format!("backup {id} of cluster {cluster} {what} in {}", done.join(", ")))
}
