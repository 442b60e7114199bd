//! The lock of the fuzz crate, which is a workspace of its own and is not built with the others.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

/// Finds our crates that depend on something else by now than `lock`, the text of `fuzz/Cargo.lock`,
/// says: `cargo xtask fuzz` would refuse to begin. `metadata` is what `cargo metadata --no-deps` prints.
pub fn check(metadata: &Value, lock: &str) -> Result<Vec<String>> {
    let packages = metadata.get("packages").and_then(Value::as_array).context("no packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = package.get("name").and_then(Value::as_str).context("no name")?;
        let Some(locked) = locked(lock, name) else { continue };
        let dependencies = package.get("dependencies").and_then(Value::as_array);
        let needed: BTreeSet<&str> = dependencies
            .context("no dependencies")?
            .iter()
            .filter(|it| it.get("kind").and_then(Value::as_str) != Some("dev"))
            .filter(|it| it.get("optional") != Some(&Value::Bool(true)))
            .filter_map(|it| it.get("name").and_then(Value::as_str))
            .collect();
        if needed != locked {
            findings.push(format!(
                "fuzz/Cargo.lock has other dependencies of {name}: `cargo update --workspace` in fuzz"
            ));
        }
    }
    Ok(findings)
}

/// What a package depends on; `None` if the lock does not have it.
fn locked<'l>(lock: &'l str, name: &str) -> Option<BTreeSet<&'l str>> {
    let head = format!("\nname = \"{name}\"\n");
    let package = lock.split("[[package]]").find(|package| package.starts_with(&head))?;
    let (_, list) = package.split_once("dependencies = [").unwrap_or_default();
    let quoted = list.lines().filter_map(|line| line.trim().strip_prefix('"'));
    // A name that is there in several versions stands with its own.
    Some(quoted.filter_map(|line| line.split(['"', ' ']).next()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"ours\"\nversion = \"0.1.0\"\ndependencies = [\n \"bytes\",\n \"hex 0.4.3\",\n]\n\n[[package]]\nname = \"bytes\"\nversion = \"1.0.0\"\n";

    fn findings(names: &[&str]) -> Vec<String> {
        let normal =
            names.iter().map(|name| json!({"name": name, "kind": null, "optional": false}));
        let tests = json!({"name": "tempfile", "kind": "dev", "optional": false});
        let dependencies: Vec<_> = normal.chain([tests]).collect();
        let packages = json!({"packages": [
            {"name": "ours", "dependencies": dependencies},
            {"name": "not-fuzzed", "dependencies": []},
        ]});
        check(&packages, LOCK).unwrap()
    }

    #[test]
    fn a_dependency_that_the_lock_does_not_have_is_found_and_one_it_has_too_many() {
        assert_eq!(findings(&["bytes", "hex"]), [""; 0]);
        assert_eq!(findings(&["bytes"]).len(), 1);
        assert_eq!(findings(&["bytes", "hex", "zeroize"]).len(), 1);
    }
}
