//! Commands in hints: what they say to type has to work where it is typed.

use super::shell_quote;

/// The commands that read a repository, and so take the flags that name one.
const COMMANDS: [&str; 11] = [
    "adopt", "backup", "check", "info", "key", "list", "restore", "show", "status", "verify", "wal",
];

/// Flags that say where and with what.
const FLAGS: [&str; 4] = ["--config", "--kit", "--repo", "--key"];

/// A hint whose commands carry `flags`, if they name no place of their own.
pub fn with_flags(hint: &str, flags: &[String]) -> String {
    if flags.is_empty() {
        return hint.to_owned();
    }
    let typed: Vec<String> = flags.iter().map(|flag| shell_quote(flag)).collect();
    let typed = typed.join(" ");
    let parts = hint.split('`').enumerate().map(|(n, part)| {
        let is_code = n % 2 == 1;
        if is_code && takes_flags(part) { format!("{part} {typed}") } else { part.to_owned() }
    });
    parts.collect::<Vec<_>>().join("`")
}

fn takes_flags(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("seawall")
        && words.next().is_some_and(|command| COMMANDS.contains(&command))
        && !words.any(|word| FLAGS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_get_the_flags_and_nothing_else_does() {
        let flags = ["--kit".to_owned(), "/root/my kit".to_owned()];
        for (hint, expected) in [
            ("See `seawall wal list`.", "See `seawall wal list --kit '/root/my kit'`."),
            (
                "`seawall list` or `seawall verify`",
                "`seawall list --kit '/root/my kit'` or `seawall verify --kit '/root/my kit'`",
            ),
            ("`seawall key add FILE --repo URL`", "`seawall key add FILE --repo URL`"),
            (
                "`seawall init main`, `ls -l`, `--latest`",
                "`seawall init main`, `ls -l`, `--latest`",
            ),
            ("seawall list", "seawall list"),
        ] {
            assert_eq!(with_flags(hint, &flags), expected);
            assert_eq!(with_flags(hint, &[]), hint);
        }
    }
}
