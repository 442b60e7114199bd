//! `cargo xtask fuzz`: every fuzz target of `fuzz/` for a while, from seeds made of golden files.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{capture, cargo, step};
use crate::paths;
use crate::setup::tools;

/// What libFuzzer's instrumentation and sanitizers need.
const TOOLCHAIN: &str = "nightly";

pub fn main(arguments: &[&str]) -> Result<()> {
    let (seconds, chosen) = match arguments {
        [] => ("20", None),
        [seconds] => (*seconds, None),
        [seconds, target] => (*seconds, Some(*target)),
        _ => bail!("usage: cargo xtask fuzz [SECONDS] [TARGET]"),
    };
    let seconds: u32 = seconds.parse().with_context(|| format!("{seconds}: not seconds"))?;
    tools::build("cargo-fuzz", "0.13.2")?;
    step("seeds", fuzz_cargo()?.args(["run", "--quiet", "--locked", "--example", "seeds"]))?;
    let targets = capture(fuzz_cargo()?.args(["fuzz", "list", "--fuzz-dir", "."]))?;
    let targets: Vec<&str> =
        targets.lines().filter(|target| chosen.is_none_or(|chosen| chosen == *target)).collect();
    if targets.is_empty() {
        bail!("no fuzz target {}", chosen.unwrap_or_default());
    }
    let mut crashed = Vec::new();
    for target in targets {
        eprint!("xtask: fuzz {target}, {seconds} s: ");
        match fuzz(target, seconds)? {
            Ok(runs) => eprintln!("{runs} runs"),
            Err(output) => {
                eprintln!("failed\n{output}");
                crashed.push(target);
            }
        }
    }
    if crashed.is_empty() {
        return Ok(());
    }
    bail!("crashes in {}: see fuzz/artifacts", crashed.join(", "))
}

/// Runs one target; how many runs there were, or what it said before it failed.
fn fuzz(target: &str, seconds: u32) -> Result<Result<String, String>> {
    let mut command = fuzz_cargo()?;
    command.args(["fuzz", "run", "--fuzz-dir", ".", target, "--"]);
    command.arg(format!("-max_total_time={seconds}"));
    command.args(["-max_len=70000", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]);
    let output = command.output().context("cannot run cargo fuzz")?;
    // libFuzzer says everything on standard error.
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<&str> = said.lines().collect();
        let end = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
        return Ok(Err(end.join("\n")));
    }
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    Ok(Ok(runs.unwrap_or_default().trim().to_owned()))
}

/// Cargo for the fuzz crate, which is a workspace of its own.
fn fuzz_cargo() -> Result<Command> {
    let mut command = cargo()?;
    command.current_dir(paths::repository().join("fuzz"));
    command.env("RUSTUP_TOOLCHAIN", TOOLCHAIN);
    Ok(command)
}
