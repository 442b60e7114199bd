use std::collections::BTreeSet;

use super::Source;

/// The hazards known to destroy backups are numbered E1 to E70; a test against one is named for
/// it, `e28_…`.
const HAZARDS: std::ops::RangeInclusive<u8> = 1..=70;

/// The hazards that no test is named for.
pub fn untested(sources: &[Source]) -> Vec<String> {
    // Not among this rule's own examples.
    let others = sources.iter().filter(|source| !source.path.starts_with("xtask/"));
    let lines = others.flat_map(|source| source.text.lines());
    let tested: BTreeSet<u8> = lines.filter_map(hazard).collect();
    HAZARDS.filter(|number| !tested.contains(number)).map(|number| format!("E{number}")).collect()
}

fn hazard(line: &str) -> Option<u8> {
    let (_, name) = line.split_once("fn e")?;
    let (number, _) = name.split_once('_')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_named_for_a_hazard_counts() {
        let text = "fn e28_a_file_shrinks() {}\n    async fn e03_same_name() {}\nfn every_70() {}";
        let source = |path: &str| Source { path: path.to_owned(), text: text.to_owned() };
        assert_eq!(untested(&[source("xtask/src/a.rs")]).len(), 70);
        let untested = untested(&[source("crates/a/tests/a.rs")]);
        assert_eq!(untested.len(), 68);
        for tested in ["E28", "E3"] {
            assert!(!untested.iter().any(|hazard| hazard == tested), "{tested}");
        }
        assert!(untested.iter().any(|hazard| hazard == "E70"));
    }
}
