//! From the command line to the exit status.

use std::ffi::OsString;
use std::future::pending;
use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use seawall_core::{Code, Error, Result, ResultExt};
use seawall_engine::job::Cancel;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command, RepositoryArgs};
use crate::commands;
use crate::exit::{Caller, Outcome};
use crate::render;

/// The environment variable that says how much is logged, in the words of `tracing`'s `EnvFilter`.
const LOG_VARIABLE: &str = "SEAWALL_LOG";

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let caller = Caller::of(&arguments);
    panic::set_hook(Box::new(|panic| report_defect(&panic.to_string())));
    let standby = arguments.iter().any(|argument| argument == "--standby");
    let status = panic::catch_unwind(AssertUnwindSafe(|| status(caller, arguments)))
        .unwrap_or_else(|_| caller.defect_status());
    if caller == Caller::RestoreCommand && status > 1 {
        commands::wal::keep_server_recovering(standby);
    }
    ExitCode::from(status)
}

fn status(caller: Caller, arguments: Vec<OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to be told that the terminal is gone.
            error.print().ok();
            return if error.use_stderr() { caller.usage_status() } else { 0 };
        }
    };
    log_to_stderr();
    // What was understood is certain; the words alone were a guess.
    let caller = Caller::of_command(&cli.command);
    let none = RepositoryArgs::default();
    let repository = cli.command.repository().unwrap_or(&none);
    render::keep_flags(repository.again(cli.config.as_deref()));
    match dispatch(&cli) {
        Ok(outcome) => outcome.status(),
        Err(error) => {
            let status = caller.status_of(&error);
            // The ordinary end of recovery must not look like a failure in PostgreSQL's log.
            if caller == Caller::RestoreCommand && status == 1 {
                eprintln!("seawall: {}", error.chain());
            } else {
                render::report(&error);
            }
            status
        }
    }
}

fn dispatch(cli: &Cli) -> Result<Outcome> {
    let config = cli.config.as_deref();
    match &cli.command {
        Command::Init(args) => commands::init::main(config, args),
        Command::Check(args) => commands::check::main(config, args),
        Command::Status(args) => commands::status::main(config, args),
        Command::Backup(args) => commands::backup::main(config, args),
        Command::Info(args) => commands::info::main(config, args),
        Command::List(args) => commands::list::main(config, args),
        Command::Show(args) => commands::show::main(config, args),
        Command::Hold(args) => commands::mark::hold(config, args),
        Command::Release(args) => commands::mark::release(config, args),
        Command::Annotate(args) => commands::mark::annotate(config, args),
        Command::Delete(args) => commands::mark::delete(config, args),
        Command::Prune(args) => commands::prune::main(config, args),
        Command::Restore(args) => commands::restore::main(config, args),
        Command::Adopt(args) => commands::adopt::main(config, args),
        Command::Promote(args) => commands::promote::main(config, args),
        Command::Discard(args) => commands::discard::main(args),
        Command::Wal(command) => commands::wal::main(config, command),
        Command::Verify(args) => commands::verify::main(config, args),
        Command::Key(command) => commands::key::main(config, command),
        Command::Job(args) => commands::job::main(config, args),
        Command::Demo(args) => commands::demo::main(args),
        Command::Completions { shell } => commands::papers::completions(*shell),
        Command::Man { directory } => commands::papers::man(directory),
    }
}

/// A runtime for one command that asks and answers. It is made after the process has become the
/// user it works as.
///
/// # Errors
/// [`Code::Internal`] if the system gives no threads.
pub fn runtime() -> Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().code(Code::Internal, || "cannot start threads".to_owned())
}

/// Tells the job to end when the user or the system ends the program.
///
/// # Errors
/// [`Code::Internal`] if the system gives no thread.
pub fn cancel_by_signals(cancel: &Cancel) -> Result<()> {
    let (runtime, cancel) = (runtime()?, cancel.clone());
    let listen = move || {
        runtime.block_on(async {
            // Without ears for signals, a signal ends the program at once.
            if let Err(error) = until_interrupted(pending::<Result<()>>()).await {
                cancel.cancel(error.message());
            }
        });
    };
    let thread = thread::Builder::new().name("signals".to_owned()).spawn(listen);
    thread.map(drop).code(Code::Internal, || "cannot start a thread".to_owned())
}

/// Waits for `work`, or for the user or the system to end the program.
///
/// # Errors
/// Those of the work, and [`Code::Interrupted`].
pub async fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen =
        |kind| signal(kind).code(Code::Internal, || "cannot listen for signals".to_owned());
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => Err(interrupted("SIGINT")),
        _ = terminate.recv() => Err(interrupted("SIGTERM")),
    }
}

fn interrupted(signal: &str) -> Error {
    Error::new(Code::Interrupted, format!("interrupted by {signal}"))
        .with_hint("Nothing is half done that counts: run the same command again to go on.")
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(render::Style::of_stderr() != render::Style::PLAIN)
        .with_target(false)
        .without_time()
        .init();
}

fn report_defect(what: &str) {
    let error = Error::new(Code::Internal, format!("Seawall has a defect: {}", what.replace('\n', ": ")))
        .with_hint("Please report it with the command and what is printed here; nothing half written counts as a backup.");
    let text = render::render_error(&error, render::Style::of_stderr());
    std::io::stderr().write_all(text.as_bytes()).ok();
}
