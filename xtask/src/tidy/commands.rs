use super::Source;

/// The crates whose texts reach people by other ways than a command line too.
const LIBRARIES: [&str; 6] = [
    "crates/seawall-core/src/",
    "crates/seawall-pgdata/src/",
    "crates/seawall-pgwire/src/",
    "crates/seawall-store/src/",
    "crates/seawall-repo/src/",
    "crates/seawall-engine/src/",
];

/// The program, as it is typed before a verb.
const TYPED: &str = "seawall ";

/// The binary, whose texts people read.
const BINARY: &str = "crates/seawall/src/";

/// Pages that whoever installed the binary has no copy of.
const PAGES: [&str; 2] = ["docs/errors/", "docs/guide/"];

/// Finds texts of libraries that name a command: what helps is a value there, an `Action`, and the
/// binary says how it is typed. And texts that send people to a file of the source.
pub fn check(sources: &[Source]) -> Vec<String> {
    let is_test = |path: &str| path.contains("/tests/") || path.ends_with("tests.rs");
    let sources = || sources.iter().filter(move |source| !is_test(&source.path));
    let libraries = sources().filter(|source| is_library(&source.path));
    let commands =
        libraries.flat_map(|source| said(source, names, "names a command; it has to be an Action"));
    let all = sources().filter(|it| is_library(&it.path) || it.path.starts_with(BINARY));
    let is_page = |line: &str| PAGES.iter().any(|page| line.contains(page));
    let pages = all.flat_map(|source| {
        said(source, is_page, "names a file of the source; say what to do, or the code")
    });
    commands.chain(pages).collect()
}

fn is_library(path: &str) -> bool {
    LIBRARIES.iter().any(|library| path.starts_with(library))
}

/// The lines that people are shown and that are `bad`.
fn said(
    source: &Source,
    bad: impl Fn(&str) -> bool,
    what: &'static str,
) -> impl Iterator<Item = String> {
    let lines = source.text.lines().enumerate();
    let lines = lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    let lines = lines.filter(move |(_, line)| !line.trim_start().starts_with("//") && bad(line));
    lines.map(move |(number, _)| format!("{}:{}: {what}", source.path, number + 1))
}

fn names(line: &str) -> bool {
    let mut after = line.match_indices(TYPED).map(|(at, _)| &line[at + TYPED.len()..]);
    after.any(|rest| rest.starts_with(|next: char| next.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&[Source { path: path.to_owned(), text: text.to_owned() }])
    }

    #[test]
    fn libraries_name_no_commands() {
        let text = "fine\nlet hint = \"Run `seawall verify`.\";\n";
        let path = "crates/seawall-repo/src/a.rs";
        let said = ["crates/seawall-repo/src/a.rs:2: names a command; it has to be an Action"];
        assert_eq!(found(path, text), said);
        let page = "let hint = \"See docs/errors/SW0001.md.\";\n";
        assert_eq!(found("crates/seawall/src/a.rs", page).len(), 1);
        assert!(found("crates/seawall/src/a.rs", "/// docs/errors/SW0001.md").is_empty());
        for path in ["crates/seawall/src/a.rs", "crates/seawall-repo/src/a/tests.rs"] {
            assert!(found(path, text).is_empty(), "{path}");
        }
        let tests = format!("#[cfg(test)]\nmod tests {{\n{text}}}\n");
        for text in [&tests, "/// For `seawall verify`.", "format!(\"seawall {id}\")", "seawall-x"]
        {
            assert!(found(path, text).is_empty(), "{text}");
        }
    }
}
