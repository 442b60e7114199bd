//! `seawall adopt`: a server that goes its own way gets a line of its own.

use std::path::Path;

use seawall_core::{Code, Error, LineId, Result};
use seawall_engine::adopt::{Adoption, adopt, facts_of_lines};
use seawall_engine::cluster::{Server, ServerFacts, prove_own_files};
use seawall_engine::line_note;
use seawall_engine::restored::RestoreState;
use seawall_pgdata::control::ControlFile;
use serde_json::json;

use super::init::settings::{Settings, Steps};
use crate::args::AdoptArgs;
use crate::context::{Context, Opened, Server as Place, Target};
use crate::exit::Outcome;
use crate::render::{Out, Style, confirm, shell_word};
use crate::{postgres, run};

/// The server, as `adopt` needs to know it.
struct Seen {
    control: ControlFile,
    facts: ServerFacts,
    settings: Settings,
    /// What its directory was restored as, for which archiving is refused.
    restored: Option<RestoreState>,
    /// Settings that a restore made for a clone.
    clones_settings: Vec<String>,
}

impl Seen {
    /// Whether it is the same server in the same state, as far as was shown.
    fn is_still(&self, now: &Self) -> bool {
        let shown = |seen: &Self| {
            let (control, facts) = (&seen.control, &seen.facts);
            (control.system_id, control.checkpoint_timeline, facts.data_directory.clone())
        };
        shown(self) == shown(now) && self.restored.is_some() == now.restored.is_some()
    }
}

/// Runs the command.
///
/// # Errors
/// Those of configuration, server and repositories, and [`Code::NotConfirmed`].
pub fn main(config: Option<&Path>, args: &AdoptArgs) -> Result<Outcome> {
    let context = Context::new(config, &args.repository)?;
    let target = context.one_target(args.cluster.cluster.as_ref())?;
    context.become_owner(args.server.data_directory.as_deref())?;
    let server = target.server(&args.server)?;
    let runtime = run::runtime()?;
    let seen = runtime.block_on(look(&server))?;
    let (opened, plan) = runtime.block_on(plan(&target, &seen))?;
    describe(&target, &seen, &opened, &plan);
    let line = plan.first().map(Adoption::line);
    let done =
        plan.iter().all(|one| matches!(one, Adoption::Done { .. })) && seen.restored.is_none();
    if !done {
        if args.dry_run {
            return Ok(Outcome::Done);
        }
        confirm("Adopt?", args.yes)?;
        // What was shown is looked at again: an answer takes its time.
        let seen_now = runtime.block_on(look(&server))?;
        let (opened, plan_now) = runtime.block_on(self::plan(&target, &seen_now))?;
        if !seen.is_still(&seen_now) || plan_now != plan {
            return Err(Error::new(
                Code::NotConfirmed,
                "the server or its lines changed while the question was open",
            )
            .with_hint("Nothing was changed. Run it again to see how they are now."));
        }
        runtime.block_on(async {
            for (opened, adoption) in opened.iter().zip(&plan) {
                adopt(&opened.repository, &target.name, &seen.control, *adoption).await?;
            }
            Ok::<_, Error>(())
        })?;
        // In this order: until there is a line for it, and it knows which, a clone must not archive.
        if let Some(line) = line {
            line_note::write(&seen.facts.data_directory, line)?;
        }
        RestoreState::retire(&seen.facts.data_directory)?;
    }
    tell(args, &context, &target, &seen, line)?;
    Ok(Outcome::Done)
}

async fn look(server: &Place) -> Result<Seen> {
    let mut connection = Server::connect(&server.connection).await?;
    let mut facts = connection.facts().await?;
    if let Some(data_directory) = &server.data_directory {
        facts.data_directory.clone_from(data_directory);
    }
    if facts.in_recovery {
        return Err(Error::new(
            Code::SettingUnsuitable,
            "the server is in recovery: what it writes one day is not decided yet",
        )
        .with_hint("Promote it first; or run this against the primary."));
    }
    let directory = facts.data_directory.clone();
    let control = prove_own_files(&mut connection, &facts, &directory).await?;
    let settings = Settings::ask(&mut connection).await?;
    let restored = RestoreState::read(&directory)?;
    if let Some(state) = &restored {
        refuse_part(state)?;
    }
    let clones_settings = match restored {
        Some(_) => settings_of_clone(&mut connection).await?,
        None => Vec::new(),
    };
    connection.close().await;
    Ok(Seen { control, facts, settings, restored, clones_settings })
}

/// A clone that was restored without some databases is a means to look at the others.
fn refuse_part(state: &RestoreState) -> Result<()> {
    let missing: Vec<&str> =
        state.plan.left_out_databases.iter().map(|one| one.name.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("the server was restored without the content of {}", missing.join(", "));
    Err(Error::new(Code::UnsupportedCluster, what).with_hint(
        "Dump what you need from it (pg_dump) and load it into another server; or restore all databases.",
    ))
}

/// What a restore sets for a clone.
const OF_A_CLONE: [(&str, &str); 3] = [
    ("max_logical_replication_workers", "0"),
    ("stats_temp_directory", "pg_stat_tmp"),
    ("synchronous_standby_names", ""),
];

/// Settings that are as a restore makes them for a clone.
async fn settings_of_clone(server: &mut Server) -> Result<Vec<String>> {
    let sql = "select name, setting from pg_catalog.pg_settings \
         where source OPERATOR(pg_catalog.=) 'configuration file' order by name";
    let mut settings = Vec::new();
    for row in server.connection().query_rows(sql).await? {
        let (name, value): (String, Option<String>) = (row.get("name")?, row.get("setting")?);
        if OF_A_CLONE.contains(&(name.as_str(), value.as_deref().unwrap_or_default())) {
            settings.push(name);
        }
    }
    Ok(settings)
}

/// All repositories are opened before anything is made in one.
async fn plan(target: &Target, seen: &Seen) -> Result<(Vec<Opened>, Vec<Adoption>)> {
    let (mut opened, mut lines) = (Vec::new(), Vec::new());
    for place in &target.places {
        let repository = place.clone().open().await?;
        lines.push(facts_of_lines(&repository.repository, &target.name).await?);
        opened.push(repository);
    }
    let plan = Adoption::plan(&target.name, &lines, seen.control.system_id)?;
    Ok((opened, plan))
}

fn describe(target: &Target, seen: &Seen, opened: &[Opened], plan: &[Adoption]) {
    let cluster = &target.name;
    eprintln!(
        "cluster {cluster}: PostgreSQL {} in {}, timeline {}",
        seen.facts.version,
        seen.facts.data_directory.display(),
        seen.control.checkpoint_timeline
    );
    for (opened, adoption) in opened.iter().zip(plan) {
        let name = &opened.place.name;
        match adoption {
            Adoption::Done { line } => eprintln!("  {name}: line {line} is its own already"),
            Adoption::New { line, before } => {
                eprintln!("  {name}: gets line {line}; line {before} stays restorable");
            }
        }
    }
    if plan.iter().any(|one| matches!(one, Adoption::New { .. })) {
        eprintln!(
            "{} if another server still runs as {cluster}, stop it: it goes on in its own line, and restores follow the new one",
            Style::of_stderr().yellow("warning:")
        );
    }
}

fn tell(
    args: &AdoptArgs,
    context: &Context,
    target: &Target,
    seen: &Seen,
    line: Option<LineId>,
) -> Result<()> {
    let cluster = target.name.as_str();
    if args.output.json {
        let line = line.map(|line| line.to_string());
        return Out.json(&json!({"cluster": cluster, "line": line}));
    }
    let quoted: Vec<String> = context.again.iter().map(|word| shell_word(word)).collect();
    if let Some(path) = &context.config.path {
        let command = postgres::archive_command(&postgres::own_path()?, path, cluster);
        let Steps { mut statements, restart } = seen.settings.missing(&command);
        for name in &seen.clones_settings {
            let why = "made for a clone; SET it instead if production had another value";
            statements.insert(0, (format!("ALTER SYSTEM RESET {name}"), why.to_owned()));
        }
        if !statements.is_empty() {
            eprintln!("Run this SQL as a superuser:");
        }
        for (sql, why) in statements {
            Out.line(&format!("{sql}; -- {why}"))?;
        }
        if restart {
            eprintln!("Then restart PostgreSQL.");
        }
    }
    eprintln!("No backup leads into the new line yet. Take one:");
    eprintln!("  seawall backup {cluster} {}", quoted.join(" "));
    Ok(())
}
