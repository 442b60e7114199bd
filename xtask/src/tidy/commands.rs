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

/// Finds texts of libraries that name a command: what helps is a value there, an `Action`, and the
/// binary says how it is typed.
pub fn check(sources: &[Source]) -> Vec<String> {
    let libraries = sources.iter().filter(|source| is_library(&source.path));
    libraries.flat_map(named).collect()
}

fn is_library(path: &str) -> bool {
    let is_test = path.contains("/tests/") || path.ends_with("tests.rs");
    !is_test && LIBRARIES.iter().any(|library| path.starts_with(library))
}

fn named(source: &Source) -> impl Iterator<Item = String> {
    let lines = source.text.lines().enumerate();
    let lines = lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    let lines = lines.filter(|(_, line)| !line.trim_start().starts_with("//") && names(line));
    lines.map(|(number, _)| {
        format!("{}:{}: names a command; it has to be an Action", source.path, number + 1)
    })
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
