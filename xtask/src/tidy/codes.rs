use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Where error codes are defined: lines such as `NoRepository = 301, NotFound;`.
const DEFINITIONS: &str = "crates/seawall-core/src/code.rs";

/// Where each has its page, `SW0301.md`.
const PAGES: &str = "docs/errors";

/// Finds error codes without a page, and pages of no code.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join(DEFINITIONS)).context(DEFINITIONS)?;
    let codes: BTreeSet<String> = text.lines().filter_map(code).collect();
    if codes.is_empty() {
        bail!("no error codes in {DEFINITIONS}: has its form changed?");
    }
    let pages = pages(&root.join(PAGES))?;
    let unexplained = codes.difference(&pages).map(|code| format!("{PAGES}/{code}.md is missing"));
    let stray = pages.difference(&codes).map(|page| format!("{PAGES}/{page}.md is of no code"));
    Ok(unexplained.chain(stray).collect())
}

fn code(line: &str) -> Option<String> {
    let (name, rest) = line.trim().strip_suffix(';')?.split_once(" = ")?;
    let (number, class) = rest.split_once(", ")?;
    let words = [name, class].iter().all(|word| word.chars().all(|c| c.is_ascii_alphabetic()));
    let number: u16 = number.parse().ok()?;
    words.then(|| format!("SW{number:04}"))
}

fn pages(directory: &Path) -> Result<BTreeSet<String>> {
    if !directory.exists() {
        return Ok(BTreeSet::new());
    }
    let mut pages = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(page) = name.strip_suffix(".md").filter(|page| *page != "README") {
            pages.insert(page.to_owned());
        }
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(definitions: &str, pages: &[&str]) -> Result<Vec<String>> {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(DEFINITIONS);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, definitions).unwrap();
        fs::create_dir_all(root.path().join(PAGES)).unwrap();
        for page in pages {
            fs::write(root.path().join(PAGES).join(page), "# Page").unwrap();
        }
        check(root.path())
    }

    const TWO: &str = "codes! {\n    /// One.\n    One = 1, Failed;\n    Two = 302, Usage;\n}\n";

    #[test]
    fn every_code_has_its_page() {
        assert!(tree(TWO, &["SW0001.md", "SW0302.md", "README.md"]).unwrap().is_empty());
        let missing = tree(TWO, &["SW0001.md"]).unwrap();
        assert_eq!(missing, ["docs/errors/SW0302.md is missing"]);
    }

    #[test]
    fn a_page_of_no_code_is_stray() {
        let stray = tree(TWO, &["SW0001.md", "SW0302.md", "SW0303.md"]).unwrap();
        assert_eq!(stray, ["docs/errors/SW0303.md is of no code"]);
    }

    #[test]
    fn finding_no_codes_is_not_success() {
        assert!(tree("enum Code {}", &[]).is_err());
    }
}
