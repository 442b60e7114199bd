use super::Source;

/// No file grows longer than this.
const MOST_LINES: usize = 800;

/// Files that were longer when the rule came, each with the lines it had. Entries go; none comes.
pub const LONG_FILES: &[(&str, usize)] = &[];

/// Where `unsafe` stands: each was reviewed, with its reasons beside it.
const UNSAFE_FILES: [&str; 3] = [
    "crates/seawall-pgdata/src/checksum.rs",
    "crates/seawall-store/src/direct/page_cache.rs",
    "crates/seawall/src/heap.rs",
];

/// How it is seen: by itself, and by the lint that must be lifted for it. In pieces, or this file
/// would have them too.
const UNSAFE: [&str; 2] = [concat!("unsafe", " {"), concat!("unsafe", "_code")];

/// What was meant to be dealt with before anyone else saw it. In pieces, or this file would have
/// them too.
const LEFTOVERS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("dbg", "!("), concat!("todo", "!(")];

/// Finds files that are too long, things left behind in them, and unreviewed `unsafe`.
pub fn check(sources: &[Source], long_files: &[(&str, usize)]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let allowed = long_files.iter().find(|(path, _)| *path == source.path);
        let most = allowed.map_or(MOST_LINES, |(_, lines)| *lines);
        let lines = source.text.lines().count();
        if lines > most {
            findings.push(format!("{} has {lines} lines; {most} are allowed", source.path));
        }
        if allowed.is_some() && lines <= MOST_LINES {
            findings.push(format!("{} is short enough now: take it off the list", source.path));
        }
        let is_unsafe = UNSAFE.iter().any(|word| source.text.contains(word));
        if is_unsafe && !UNSAFE_FILES.contains(&source.path.as_str()) {
            findings.push(format!("{} has unsafe code that nobody reviewed", source.path));
        }
        for (number, line) in source.text.lines().enumerate() {
            for word in LEFTOVERS.iter().filter(|word| line.contains(*word)) {
                findings.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    let gone = |path: &str| !sources.iter().any(|source| source.path == path);
    let unneeded = long_files.iter().filter(|(path, _)| gone(path));
    findings.extend(unneeded.map(|(path, _)| format!("{path} is gone: take it off the list")));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_long_file_is_refused_and_a_listed_one_may_not_grow() {
        let long = [source("a.rs", &"\n".repeat(801))];
        assert_eq!(check(&long, &[]), ["a.rs has 801 lines; 800 are allowed"]);
        assert!(check(&long, &[("a.rs", 801)]).is_empty());
        assert_eq!(check(&long, &[("a.rs", 800)]).len(), 1);
    }

    #[test]
    fn the_list_only_shrinks() {
        let short = [source("a.rs", &"\n".repeat(800))];
        assert!(check(&short, &[]).is_empty());
        assert_eq!(
            check(&short, &[("a.rs", 900), ("b.rs", 900)]),
            [
                "a.rs is short enough now: take it off the list",
                "b.rs is gone: take it off the list"
            ]
        );
    }

    #[test]
    fn leftovers_are_found_by_line() {
        for word in LEFTOVERS {
            let left = [source("a.rs", &format!("fine\n// {word}: later\n"))];
            assert_eq!(check(&left, &[]), [format!("a.rs:2: {word}")]);
        }
    }

    #[test]
    fn unsafe_stands_only_where_it_was_reviewed() {
        for text in UNSAFE {
            assert!(check(&[source(UNSAFE_FILES[0], text)], &[]).is_empty());
            let found = check(&[source("a.rs", text)], &[]);
            assert_eq!(found, ["a.rs has unsafe code that nobody reviewed"]);
        }
    }
}
