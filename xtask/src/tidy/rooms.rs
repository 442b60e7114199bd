use super::Source;

/// Where the rooms are.
const ENGINE: &str = "crates/seawall-engine/src/";

/// The rooms of the engine: each may use those before it, and none behind it.
const ROOMS: [&str; 28] = [
    // words and means
    "as_bytes",
    "as_text",
    "config_text",
    "named_twice",
    "pace",
    "host",
    "durable",
    // what is there: of a cluster, in a repository, in a directory
    "line_note",
    "lines",
    "liveness",
    "pinned",
    "events",
    "retention",
    "cluster",
    "stored",
    "restored",
    "whereabouts",
    // the verbs
    "delivery",
    "wal",
    "adopt",
    "verify",
    "prune",
    "backup",
    "restore",
    // all of it together
    "survey",
    "mark",
    "check",
    "job",
];

/// How one room names another.
const NAMED: &str = "crate::";

/// Finds rooms of the engine that use one which is to know them.
pub fn check(sources: &[Source]) -> Vec<String> {
    sources.iter().flat_map(look).collect()
}

fn look(source: &Source) -> Vec<String> {
    let Some(path) = source.path.strip_prefix(ENGINE).filter(|path| *path != "lib.rs") else {
        return Vec::new();
    };
    let room = word(path);
    let Some(own) = place(room) else {
        return vec![format!("{} is in no room: see xtask/src/tidy/rooms.rs", source.path)];
    };
    let lines = source.text.lines().enumerate();
    let code = lines.filter(|(_, line)| !line.trim_start().starts_with("//"));
    code.flat_map(|(number, line)| used(line).map(move |used| (number, used)))
        .filter(|(_, used)| used.is_empty() || place(used).is_some_and(|place| place > own))
        .map(|(number, used)| match used {
            "" => format!("{}:{}: name each room on a line of its own", source.path, number + 1),
            used => format!("{}:{}: {room} may not use {used}", source.path, number + 1),
        })
        .collect()
}

fn place(room: &str) -> Option<usize> {
    ROOMS.iter().position(|known| *known == room)
}

/// What a line says after each `crate::`.
fn used(line: &str) -> impl Iterator<Item = &str> {
    let named = line.match_indices(NAMED);
    let own = named.filter(|(at, _)| !line[..*at].ends_with(is_of_word));
    own.map(|(at, _)| word(&line[at + NAMED.len()..]))
}

fn word(text: &str) -> &str {
    text.split(|next| !is_of_word(next)).next().unwrap_or_default()
}

fn is_of_word(next: char) -> bool {
    next.is_ascii_alphanumeric() || next == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&[Source { path: format!("{ENGINE}{path}"), text: text.to_owned() }])
    }

    #[test]
    fn a_room_uses_only_those_before_it() {
        let text = "use crate::restored::RestoreState;\nuse crate::restore::Target;\n";
        let path = format!("{ENGINE}wal/fetch.rs");
        assert_eq!(found("wal/fetch.rs", text), [format!("{path}:2: wal may not use restore")]);
        assert!(found("restore/run.rs", text).is_empty());
        assert_eq!(found("durable.rs", "let a = crate::host::b(crate::wal::C);").len(), 1);
        assert!(found("durable.rs", "/// As [`crate::wal`].\nuse a_crate::wal::b;").is_empty());
        assert!(found("lib.rs", "use crate::wal;").is_empty());
    }

    #[test]
    fn a_room_nobody_has_placed_is_refused_and_so_are_groups_of_them() {
        assert_eq!(found("shed/mod.rs", "").len(), 1);
        assert_eq!(found("job/mod.rs", "use crate::{wal, restore};").len(), 1);
    }
}
