//! `seawall init`: from nothing to a protected cluster, and again without harm.

mod config_text;
mod parts;
mod plan;
pub mod settings;

use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Result};
use seawall_engine::adopt::make_first_line;
use seawall_engine::cluster::{MissingRights, Server, ServerFacts, least_role, prove_own_files};
use seawall_engine::line_note::branch_of;
use seawall_pgdata::control::ControlFile;
use seawall_pgwire::masked_conninfo;

use crate::args::InitArgs;
use crate::config::{self, Config, ConnectionSource};
use crate::context::{absolute, is_it_mounted};
use crate::exit::Outcome;
use crate::owner::Owner;
use crate::render::{Out, Style, shell_quote};
use crate::{postgres, run};

use parts::{make_directory, make_key, make_kit, make_repository, repository_exists};
use plan::{Connection, Plan, Wish};
use settings::{Settings, Steps};

/// The server, as `init` needs to know it.
struct Seen {
    facts: ServerFacts,
    control: ControlFile,
    data_directory: PathBuf,
    settings: Settings,
    missing_rights: MissingRights,
    is_superuser: bool,
    repository_exists: bool,
    connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// Those of the configuration, the server, the key and the repository; nothing that was there is
/// changed.
pub fn main(config_path: Option<&Path>, args: &InitArgs) -> Result<Outcome> {
    let path = absolute(config_path.unwrap_or(Path::new(config::DEFAULT_PATH)));
    let there = path.exists();
    let config = if there { config::load(Some(&path))? } else { Config::none() };
    let data_directory = args.data_directory.as_deref().map(absolute);
    let wish = Wish {
        cluster: &args.cluster,
        repo: &args.repo,
        connection: wished_connection(args)?,
        data_directory: data_directory.as_deref(),
    };
    let plan = Plan::new(wish, &config, &path)?;
    prove_text(&path)?;
    prove_text(&postgres::own_path()?)?;
    if let config::SecretSource::File(key) = &plan.key {
        prove_text(key)?;
    }
    let owner = owner(args, &plan)?;
    let runtime = run::runtime()?;

    let seen = {
        let _acting = owner.act_as()?;
        runtime.block_on(look(&plan, &owner))?
    };
    let owner = confirm_owner(owner, &seen.data_directory)?;
    refuse_second_name(&plan, &seen, &config, &owner)?;
    refuse_vanished(&plan, &seen, args)?;
    let told = Told { style: Style::of_stderr() };
    eprintln!("{}", told.style.bold(&describe(&plan, &seen)));

    make_directory(path.parent().unwrap_or(Path::new("/")), 0o755, &owner)?;
    if let Some(directory) = plan.url.as_directory() {
        make_directory(directory, 0o700, &owner)?;
    }
    let (key, new_key) = make_key(&plan, args.key.as_deref(), seen.repository_exists, &owner)?;
    told.part("key", &shown_key(&plan), new_key);
    {
        let _acting = owner.act_as()?;
        runtime.block_on(async {
            let branch = branch_of(&seen.data_directory, seen.control.system_id)?;
            let (repository, new) = make_repository(&plan.url, &key).await?;
            told.part("repository", &plan.url.to_string(), new);
            let new = make_first_line(&repository, &plan.cluster, &seen.control, branch).await?;
            told.part("line", &format!("{} in the repository", seen.facts.system_id), new);
            Ok::<_, Error>(())
        })?;
    }
    let sections = sections(&plan, &seen);
    if !sections.is_empty() {
        config_text::add_sections(&path, &sections, &owner)?;
    }
    told.part("configuration", &path.display().to_string(), !sections.is_empty());
    if let Some(kit) = &args.kit {
        let new = make_kit(kit, &plan, key)?;
        told.part("recovery kit", &kit.display().to_string(), new);
    }
    next(&plan, &seen, args, &owner)?;
    Ok(Outcome::Done)
}

/// A password on the command line is seen by every user of the machine, and one in the configuration
/// by whoever can read that; it is not copied from one into the other.
fn wished_connection(args: &InitArgs) -> Result<Option<ConnectionSource>> {
    if let Some(file) = &args.connection_file {
        return Ok(Some(ConnectionSource::File(absolute(file))));
    }
    let given = args.connection.clone().map(ConnectionSource::Text);
    if given.as_ref().is_none_or(|given| !given.has_secret()) {
        return Ok(given);
    }
    let what = "--connection has a password in it, and the configuration is no place for one";
    Err(Error::new(Code::Usage, what).with_hint(
        "Leave it out of the string and put a line HOST:PORT:DATABASE:USER:PASSWORD into ~/.pgpass \
         of the user PostgreSQL runs as, with mode 0600. Or write the whole string into a file of \
         that user's with mode 0600, and give `--connection-file FILE` instead.",
    ))
}

/// The user the files will belong to, as far as it can be known without asking the server.
fn owner(args: &InitArgs, plan: &Plan) -> Result<Owner> {
    if let Some(name) = &args.owner {
        return Owner::named(name);
    }
    if let Some(owner) = plan.data_directory.as_deref().and_then(Owner::of) {
        return Ok(owner);
    }
    let current = Owner::current();
    if !current.is_root() {
        return Ok(current);
    }
    let connection = plan.connection.as_ref().map_or("", |connection| connection.text.as_str());
    let config = postgres::resolve(connection, &current)?;
    postgres::socket_file(&config)
        .and_then(|socket| Owner::of(&socket))
        .or_else(Owner::packaged)
        .filter(|owner| !owner.is_root())
        .ok_or_else(|| {
            Error::new(Code::WrongUser, "cannot tell which user PostgreSQL runs as")
                .with_hint("Say so: `seawall init … --owner USER`.")
        })
}

/// Only the owner of the data directory can read it, and must be able to read the key.
fn confirm_owner(owner: Owner, data_directory: &Path) -> Result<Owner> {
    match Owner::of(data_directory) {
        Some(actual) if actual != owner => Err(Error::new(
            Code::WrongUser,
            format!(
                "the data directory {} belongs to {}, not to {}",
                data_directory.display(),
                actual.name(),
                owner.name()
            ),
        )
        .with_hint(format!("Leave out --owner, or give `--owner {}`.", actual.name()))),
        _ => Ok(owner),
    }
}

/// One server under two names would be two lines of backups, and `archive_command` feeds only one.
fn refuse_second_name(plan: &Plan, seen: &Seen, config: &Config, owner: &Owner) -> Result<()> {
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let server = |connection: &str| match postgres::resolve(connection, owner) {
        Ok(config) => config.hosts().first().map(ToString::to_string),
        Err(error) => {
            tracing::warn!("whether it is the same server cannot be told: {}", error.chain());
            None
        }
    };
    for (name, other) in config.clusters.iter().filter(|(name, _)| **name != plan.cluster) {
        let directory = other.data_directory.as_deref();
        let same_files = directory.is_some_and(|path| place(path) == place(&seen.data_directory));
        // One that cannot be read is told apart by its files.
        let other = other.connection.as_ref().and_then(|other| other.read(&plan.config_path).ok());
        let same_server = other.is_some_and(|connection| {
            server(&connection).is_some_and(|one| server(&seen.connection.text) == Some(one))
        });
        if same_files || same_server {
            let what = if same_files { "data directory" } else { "connection" };
            return Err(Error::new(
                Code::ConfigInvalid,
                format!("this {what} is configured already, as cluster {name}"),
            )
            .with_hint(format!(
                "Use that name: `seawall init {name} …`. If [cluster.{name}] is of another server, correct it in {} first.",
                plan.config_path.display()
            )));
        }
    }
    Ok(())
}

/// A repository that was there and is not now is away, as far as anybody can tell: a new one in its
/// place would take the WAL that the old one goes on lacking.
fn refuse_vanished(plan: &Plan, seen: &Seen, args: &InitArgs) -> Result<()> {
    if seen.repository_exists || args.new_repository {
        return Ok(());
    }
    let known = if plan.repository_configured {
        format!("{} names it", plan.config_path.display())
    } else if let Some(key) = &args.key {
        format!("{} is the key of one that exists", key.display())
    } else if let Some(kit) = args.kit.as_deref().filter(|kit| kit.exists()) {
        format!("{} is the recovery kit of one", kit.display())
    } else {
        return Ok(());
    };
    let what = format!("there is no repository at {}, and {known}", plan.url);
    Err(Error::new(Code::NoRepository, what).with_hint(format!(
        "{} If it is gone for good, or shall be made now, run this again with --new-repository.",
        is_it_mounted(&plan.url)
    )))
}

async fn look(plan: &Plan, owner: &Owner) -> Result<Seen> {
    let given = plan.connection.as_ref();
    let text = given.map_or("", |given| given.text.as_str());
    let config = postgres::resolve(text, owner)?;
    let connection = match given {
        Some(given) => given.clone(),
        None => {
            let text = postgres::spelled_out(&config).ok_or_else(|| {
                Error::new(Code::Usage, "the environment names a server elsewhere (PGHOST)")
                    .with_hint("Say where the server is: `--connection 'host=… user=…'`.")
            })?;
            Connection { source: ConnectionSource::Text(text.clone()), text }
        }
    };
    let mut server = Server::connect(&config).await?;
    let facts = server.facts().await?;
    let settings = Settings::ask(&mut server).await?;
    let missing_rights = MissingRights::ask(&mut server).await?;
    let is_superuser = server.connection().parameter("is_superuser") == Some("on");
    let data_directory =
        plan.data_directory.clone().unwrap_or_else(|| facts.data_directory.clone());
    let control = prove_own_files(&mut server, &facts, &data_directory).await?;
    server.close().await;
    let repository_exists = repository_exists(&plan.url).await?;
    Ok(Seen {
        facts,
        control,
        data_directory,
        settings,
        missing_rights,
        is_superuser,
        repository_exists,
        connection,
    })
}

fn describe(plan: &Plan, seen: &Seen) -> String {
    format!(
        "cluster {}: PostgreSQL {} in {}",
        plan.cluster,
        seen.facts.version,
        seen.data_directory.display()
    )
}

fn shown_key(plan: &Plan) -> String {
    match &plan.key {
        config::SecretSource::File(path) => path.display().to_string(),
        config::SecretSource::Env(name) => format!("from the variable {name}"),
        config::SecretSource::Command(command) => format!("from the command {command}"),
    }
}

/// The configuration is text, and so is the SQL that sets `archive_command`.
fn prove_text(path: &Path) -> Result<()> {
    if path.to_str().is_some() {
        return Ok(());
    }
    let what = format!(
        "{} is not UTF-8: neither the configuration nor archive_command can name it",
        path.display()
    );
    Err(Error::new(Code::Usage, what).with_hint("Choose a place whose path is UTF-8 text."))
}

/// The sections the configuration lacks.
fn sections(plan: &Plan, seen: &Seen) -> Vec<String> {
    let mut sections = Vec::new();
    if !plan.cluster_configured {
        sections.push(config_text::cluster_section(
            &plan.cluster,
            &seen.connection.source,
            &seen.data_directory,
            &plan.repository,
        ));
    }
    if let (false, config::SecretSource::File(key)) = (plan.repository_configured, &plan.key) {
        sections.push(config_text::repository_section(&plan.repository, &plan.url, key));
    }
    sections
}

/// Tells what is there, and what has just been made.
struct Told {
    style: Style,
}

impl Told {
    fn part(&self, name: &str, what: &str, new: bool) {
        let state = if new { self.style.green("new") } else { self.style.dim("there") };
        eprintln!("  {name:<14}{what} ({state})");
    }
}

/// The SQL goes to standard output, so that it can be piped into psql.
fn next(plan: &Plan, seen: &Seen, args: &InitArgs, owner: &Owner) -> Result<()> {
    let program = postgres::own_path()?;
    let command = postgres::archive_command(&program, &plan.config_path, plan.cluster.as_str());
    let Steps { mut statements, restart } = seen.settings.missing(&command);
    let grants = seen.missing_rights.grants().into_iter();
    statements.extend(grants.map(|sql| (sql, "what Seawall asks and calls".to_owned())));
    let style = Style::of_stderr();
    if statements.is_empty() {
        eprintln!("\nThe server archives with Seawall already.");
    } else {
        let sudo = owner.sudo(&Owner::current());
        let psql = format!("{sudo}psql {}", shell_quote(&masked_conninfo(&seen.connection.text)));
        if seen.is_superuser {
            eprintln!("\n{} {psql}", style.bold("Run this SQL as a superuser, with:"));
        } else {
            let database = &seen.missing_rights.database;
            let what = format!("Run this SQL as a superuser, in database {database}:");
            eprintln!("\n{}", style.bold(&what));
        }
        for (sql, why) in statements {
            Out.line(&format!("{sql}; -- {why}"))?;
        }
    }
    let mut then = Vec::new();
    if restart {
        then.push("restart PostgreSQL".to_owned());
    }
    let config = shell_quote(&plan.config_path.display().to_string());
    let flag = if plan.config_path == Path::new(config::DEFAULT_PATH) {
        String::new()
    } else {
        format!(" --config {config}")
    };
    then.push(format!("seawall{flag} check {}", plan.cluster));
    then.push(format!("seawall{flag} backup {}", plan.cluster));
    eprintln!("{}", style.bold("Then:"));
    for step in then {
        eprintln!("  {step}");
    }
    if seen.is_superuser && !plan.cluster_configured {
        tell_of_least_role(plan, seen, style);
    }
    if args.no_kit {
        let key = shown_key(plan);
        let note = match &args.key {
            Some(given) => format!(
                "no recovery kit was written; the key ({key}) and {} open the backups alike: keep one where the database is not",
                given.display()
            ),
            None => format!(
                "without a recovery kit, the key ({key}) is all that opens the backups: keep a copy elsewhere"
            ),
        };
        eprintln!("{} {note}", style.yellow("note:"));
    } else if let Some(kit) = &args.kit {
        eprintln!(
            "{} move {} to where the database is not; without a key nobody can read the backups",
            style.yellow("note:"),
            kit.display()
        );
    }
    Ok(())
}

/// A superuser will do, and is more than it takes.
fn tell_of_least_role(plan: &Plan, seen: &Seen, style: Style) {
    eprintln!(
        "{} Seawall logs in as a superuser and needs none. A role that may do what it does and nothing else, made in database {}:",
        style.yellow("note:"),
        seen.missing_rights.database
    );
    for sql in least_role("seawall", seen.facts.major) {
        eprintln!("  {sql};");
    }
    eprintln!("  then `user=seawall` in `connection` of {}", plan.config_path.display());
}
