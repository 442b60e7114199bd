//! The repository's own tasks; `cargo xtask` lists them.

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};

mod bench;
mod command;
mod demo;
mod evidence;
mod fuzz;
mod paths;
mod seawall_build;
mod setup;
mod soak;
mod test;
mod tidy;

const USAGE: &str = "\
usage: cargo xtask TASK

  setup [--tests] [--bench]    install what the demo needs
                               --tests: what tests need, PostgreSQL 12 to 18 among it; --bench: pgBackRest
  test [-- ARGS]               everything a change must pass; ARGS go to cargo nextest run
  demo [ARGS]                  build seawall and run seawall demo
  tidy                         the rules no compiler checks
  bench WHAT                   measure beside pgBackRest; evidence goes to docs/evidence
  soak WHAT                    long tests; evidence goes to docs/evidence
  fuzz [SECONDS] [TARGET]      feed damaged input to every parser (20 s each)";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let Some((task, rest)) = arguments.split_first() else { bail!("{USAGE}") };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match task.as_str() {
        "setup" => setup::main(&rest),
        "test" => test::main(&rest),
        "demo" => demo::main(&rest),
        "tidy" => tidy::main(&rest),
        "bench" => bench::main(&rest),
        "soak" => soak::main(&rest),
        "fuzz" => fuzz::main(&rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("no task {task}\n{USAGE}"),
    }
}
