//! `cargo xtask tidy`: the rules of the house that no compiler checks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::{capture, cargo};
use crate::paths;

mod codes;
mod commands;
mod edges;
mod fuzz_lock;
mod hazards;
mod map;
mod rooms;
mod sources;

pub fn main(arguments: &[&str]) -> Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("tidy: no option {argument}");
    }
    let root = paths::repository();
    let metadata = ["metadata", "--no-deps", "--format-version", "1", "--locked"];
    let metadata = serde_json::from_str(&capture(cargo()?.args(metadata))?)?;
    let sources = rust_files(root)?;
    let mut findings = edges::check(&metadata)?;
    findings.extend(sources::check(&sources, sources::LONG_FILES));
    findings.extend(rooms::check(&sources));
    findings.extend(map::check(root, &sources)?);
    findings.extend(codes::check(root)?);
    findings.extend(commands::check(&sources));
    let lock = fs::read_to_string(root.join("fuzz/Cargo.lock"))?;
    findings.extend(fuzz_lock::check(&metadata, &lock)?);

    let untested = hazards::untested(&sources);
    eprintln!("tidy: {} of the 70 hazards have no test: {}", untested.len(), untested.join(" "));
    if findings.is_empty() {
        return Ok(());
    }
    bail!("untidy:\n  {}", findings.join("\n  "))
}

/// A Rust source file of the repository.
#[derive(Debug)]
struct Source {
    /// Its path from the root of the repository.
    path: String,
    text: String,
}

/// Every `.rs` file outside build directories, by path.
fn rust_files(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                if !is_skipped(&path) {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(read(root, &path)?);
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(sources)
}

/// What cargo marks a directory with that it builds in, whatever that is called: a room may be called
/// `target`.
const BUILT: &str = "CACHEDIR.TAG";

fn is_skipped(directory: &Path) -> bool {
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned());
    name.is_none_or(|name| name == "node_modules" || name.starts_with('.'))
        || directory.join(BUILT).exists()
}

fn read(root: &Path, path: &Path) -> Result<Source> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let path = path.strip_prefix(root).unwrap_or(path).display().to_string();
    Ok(Source { path, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_directories_and_other_files_are_not_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let built = format!("target/{BUILT}");
        for path in [
            "crates/a/src/lib.rs",
            "crates/a/src/target/mod.rs",
            "crates/a/README.md",
            &built,
            "target/b.rs",
            ".git/c.rs",
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text").unwrap();
        }
        let sources = rust_files(root.path()).unwrap();
        let paths: Vec<&str> = sources.iter().map(|source| source.path.as_str()).collect();
        assert_eq!(paths, ["crates/a/src/lib.rs", "crates/a/src/target/mod.rs"]);
    }
}
