//! Where a measurement was made.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use crate::command::capture;
use crate::paths;

/// What there is to say of the machine and the file system of a directory, before anything is
/// measured: the load is that of others.
pub fn describe(directory: &Path) -> Result<Value> {
    let cores = std::thread::available_parallelism()?.get();
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory_kib = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let memory_kib: u64 = memory_kib.trim_end_matches("kB").trim().parse().unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut mount = Command::new("findmnt");
    mount.args(["--noheadings", "--output", "FSTYPE,OPTIONS", "--target"]).arg(directory);
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(json!({
        "load_average": load.split(' ').next(),
        "cores": cores,
        "processor": cpu,
        "memory_gib": (memory_kib as f64 / f64::from(1 << 20)).round(),
        "kernel": kernel.trim(),
        "file_system": capture(&mut mount)?.split_whitespace().collect::<Vec<_>>().join(" "),
    }))
}

/// One line of what [`describe`] found.
pub fn in_words(machine: &Value) -> String {
    let text = |key: &str| machine.get(key).map(ToString::to_string).unwrap_or_default();
    let [cores, processor, memory, kernel, file_system, load] =
        ["cores", "processor", "memory_gib", "kernel", "file_system", "load_average"].map(text);
    format!("{cores} cores ({processor}), {memory} GiB, Linux {kernel}, {file_system}; load average before {load}")
        .replace('"', "")
}

/// The commit that is measured, with a mark if the tree has other changes.
pub fn revision() -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(paths::repository()).args(["describe", "--always", "--dirty", "--abbrev=12"]);
    Ok(capture(&mut git)?.trim().to_owned())
}

/// Today, in UTC.
pub fn today() -> Result<String> {
    Ok(capture(Command::new("date").args(["-u", "+%F"]))?.trim().to_owned())
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
