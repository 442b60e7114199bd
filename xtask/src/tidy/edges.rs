use anyhow::{Context, Result};
use serde_json::Value;

/// Each crate, and those of ours it may use.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("seawall-core", &[]),
    ("seawall-pgdata", &["seawall-core"]),
    ("seawall-pgwire", &["seawall-core", "seawall-pgdata"]),
    ("seawall-store", &["seawall-core"]),
    ("seawall-repo", &["seawall-core", "seawall-pgdata", "seawall-store"]),
    (
        "seawall-engine",
        &["seawall-core", "seawall-pgdata", "seawall-pgwire", "seawall-store", "seawall-repo"],
    ),
    (
        "seawall",
        &[
            "seawall-core",
            "seawall-pgdata",
            "seawall-pgwire",
            "seawall-store",
            "seawall-repo",
            "seawall-engine",
        ],
    ),
    ("seawall-testkit", &["seawall-core"]),
    ("xtask", &["seawall-testkit"]),
];

/// The one crate that any other may use, and only in its tests.
const TESTKIT: &str = "seawall-testkit";

/// Crates that know bytes and formats and leave running things to others.
const WITHOUT_TOKIO: [&str; 3] = ["seawall-core", "seawall-pgdata", "seawall-repo"];

/// Finds crates that use a crate they should not know. `metadata` is what
/// `cargo metadata --no-deps` prints.
pub fn check(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata.get("packages").and_then(Value::as_array).context("no packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = text(package, "name").context("a package has no name")?;
        let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name) else {
            findings.push(format!("{name} is in no place of the house: see xtask/src/tidy"));
            continue;
        };
        let dependencies = package.get("dependencies").and_then(Value::as_array);
        for dependency in dependencies.context("a package has no dependencies")? {
            let used = text(dependency, "name").context("a dependency has no name")?;
            let for_tests = text(dependency, "kind") == Some("dev");
            let ours = dependency.get("path").is_some_and(Value::is_string);
            let fine = allowed.contains(&used) || (for_tests && used == TESTKIT);
            if ours && !fine {
                findings.push(format!("{name} may not use {used}"));
            }
            if used == "tokio" && !for_tests && WITHOUT_TOKIO.contains(&name) {
                findings.push(format!("{name} may not use {used}"));
            }
        }
    }
    Ok(findings)
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn findings(name: &str, dependencies: &Value) -> Vec<String> {
        check(&json!({"packages": [{"name": name, "dependencies": dependencies}]})).unwrap()
    }

    #[test]
    fn a_crate_may_use_those_below_it() {
        let below = json!([{"name": "seawall-store", "kind": null, "path": "/x"}]);
        assert!(findings("seawall-repo", &below).is_empty());
        let above = json!([{"name": "seawall-engine", "kind": null, "path": "/x"}]);
        assert_eq!(findings("seawall-repo", &above), ["seawall-repo may not use seawall-engine"]);
    }

    #[test]
    fn the_test_kit_is_for_tests() {
        let in_tests = json!([{"name": TESTKIT, "kind": "dev", "path": "/x"}]);
        assert!(findings("seawall-engine", &in_tests).is_empty());
        let shipped = json!([{"name": TESTKIT, "kind": null, "path": "/x"}]);
        assert_eq!(findings("seawall-engine", &shipped).len(), 1);
        let built_with = json!([{"name": TESTKIT, "kind": "build", "path": "/x"}]);
        assert_eq!(findings("seawall-engine", &built_with).len(), 1);
    }

    #[test]
    fn formats_do_not_run_tasks() {
        let tokio = json!([{"name": "tokio", "kind": null}]);
        assert_eq!(findings("seawall-pgdata", &tokio), ["seawall-pgdata may not use tokio"]);
        assert!(findings("seawall-engine", &tokio).is_empty());
        let in_tests = json!([{"name": "tokio", "kind": "dev"}]);
        assert!(findings("seawall-repo", &in_tests).is_empty());
    }

    #[test]
    fn a_crate_nobody_has_placed_is_refused() {
        assert_eq!(findings("seawall-shed", &json!([])).len(), 1);
    }
}
