use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Source;

/// The page that says where things are.
const MAP: &str = "ARCHITECTURE.md";

/// Finds paths that the map of the house names and that lead nowhere.
pub fn check(root: &Path, sources: &[Source]) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join(MAP)).with_context(|| format!("read {MAP}"))?;
    let is_there = |path: &str| root.join(path).exists() || sources.iter().any(|it| it.is_at(path));
    let lost = paths(&text).into_iter().filter(|path| !is_there(path));
    Ok(lost.map(|path| format!("{MAP}: there is no {path}")).collect())
}

impl Source {
    /// Whether it is meant by the end of its path, or is in the directory that is: crates are called
    /// by their short names.
    fn is_at(&self, end: &str) -> bool {
        let found = self.path.match_indices(end);
        found.into_iter().any(|(at, _)| {
            let (before, after) = (&self.path[..at], &self.path[at + end.len()..]);
            before.ends_with(['/', '-']) && (after.is_empty() || after.starts_with('/'))
        })
    }
}

/// What stands in code quotes and looks like a path: `a/{b,c}.rs` is two.
fn paths(text: &str) -> Vec<String> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let expanded = quoted.filter(|word| !word.contains(' ')).flat_map(expanded);
    expanded.filter(|path| path.contains('/') || path.ends_with(".rs")).collect()
}

fn expanded(path: &str) -> Vec<String> {
    let braces = path.split_once('{').and_then(|(before, rest)| {
        let (inner, after) = rest.split_once('}')?;
        Some((before, inner, after))
    });
    match braces {
        None => vec![path.to_owned()],
        Some((before, inner, after)) => {
            inner.split(',').flat_map(|one| expanded(&format!("{before}{one}{after}"))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_code_quotes() {
        let text = "A `Word`, `a/{b,c}.rs` and\n`cargo run a/b`; `d.rs` | `docs/e`";
        assert_eq!(paths(text), ["a/b.rs", "a/c.rs", "d.rs", "docs/e"]);
    }

    #[test]
    fn a_path_is_the_end_of_one_that_is_there() {
        let path = "crates/seawall-engine/src/wal/fetch.rs".to_owned();
        let source = Source { path, text: String::new() };
        for end in ["engine/src/wal/fetch.rs", "engine/src/wal", "wal/fetch.rs", "fetch.rs"] {
            assert!(source.is_at(end), "{end}");
        }
        for end in ["engine/src/wal/fetch", "al/fetch.rs", "restore/fetch.rs"] {
            assert!(!source.is_at(end), "{end}");
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_is_told() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(MAP), "`docs` `docs/a.md` `wal/push.rs`").unwrap();
        fs::create_dir(root.path().join("docs")).unwrap();
        let found = check(root.path(), &[]).unwrap();
        let lost = ["docs/a.md", "wal/push.rs"].map(|path| format!("{MAP}: there is no {path}"));
        assert_eq!(found, lost);
    }
}
