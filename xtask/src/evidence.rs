//! What was seen once and is kept in the repository.

use std::fs;

use anyhow::Result;
use serde_json::Value;

use crate::paths;

/// Prints a report and keeps it, for people and for programs, under `docs/evidence`.
pub fn keep(name: &str, markdown: &str, json: &Value) -> Result<()> {
    let directory = paths::repository().join("docs/evidence");
    fs::create_dir_all(&directory)?;
    print!("{markdown}");
    fs::write(directory.join(format!("{name}.md")), markdown)?;
    let json = serde_json::to_string_pretty(json)? + "\n";
    fs::write(directory.join(format!("{name}.json")), json)?;
    eprintln!("xtask: kept as docs/evidence/{name}.md and .json");
    Ok(())
}
