/// Text of somebody else's, for people: one line that does nothing to a terminal, a log or a list.
///
/// Line breaks and tabs become spaces. Other control characters, and the invisible ones that turn
/// the direction of reading or end a line, are shown by their number, such as `\u{1b}`.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => shown.push(' '),
            hidden if acts(hidden) => shown.extend(hidden.escape_unicode()),
            plain => shown.push(plain),
        }
    }
    shown
}

/// Whether a character does something rather than be seen: control characters (C0, DEL, C1), marks
/// of direction, separators of lines and paragraphs, and what has no width.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn text_that_would_do_something_is_only_shown() {
        assert_eq!(printable("caf\u{e9} \u{1f980}"), "caf\u{e9} \u{1f980}");
        assert_eq!(printable("a\nb\r\tc"), "a b  c");
        assert_eq!(printable("\u{1b}[2K\u{9b}1A\u{7}\u{7f}"), r"\u{1b}[2K\u{9b}1A\u{7}\u{7f}");
        assert_eq!(printable("a\u{202e}b\u{2028}c"), r"a\u{202e}b\u{2028}c");
    }
}
