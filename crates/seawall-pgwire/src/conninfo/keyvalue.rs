//! Keyword/value strings: `host=db dbname='my db'` (`conninfo_parse`, fe-connect.c).

use std::iter::Peekable;
use std::str::Chars;

use super::{Conninfo, ConninfoError, keywords, shown};

/// Parses a keyword/value string. Of a keyword given twice the last value counts.
pub(super) fn parse(text: &str) -> Result<Conninfo, ConninfoError> {
    let mut conninfo = Conninfo::default();
    let mut chars = text.chars().peekable();
    let mut previous: Option<String> = None;
    loop {
        skip_spaces(&mut chars);
        if chars.peek().is_none() {
            return Ok(conninfo);
        }
        let keyword = keyword(&mut chars)
            .ok_or_else(|| ConninfoError::MissingEquals { after: previous.clone() })?;
        let value = value(&mut chars, &keyword)?;
        conninfo.set(&keyword, value).map_err(|error| hide_secret(error, previous.as_deref()))?;
        previous = Some(keyword);
    }
}

/// The word after an unquoted password with spaces may be a part of it.
fn hide_secret(error: ConninfoError, previous: Option<&str>) -> ConninfoError {
    match error {
        ConninfoError::UnknownKeyword { .. } if previous.is_some_and(keywords::is_secret) => {
            ConninfoError::MissingEquals { after: previous.map(str::to_owned) }
        }
        other => other,
    }
}

/// Whitespace as C's `isspace` has it.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

fn skip_spaces(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|character| is_space(*character)).is_some() {}
}

/// The word up to `=`, which is consumed; `None` if there is no `=`.
fn keyword(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut keyword = String::new();
    while let Some(character) = chars.next_if(|next| *next != '=' && !is_space(*next)) {
        keyword.push(character);
    }
    skip_spaces(chars);
    chars.next_if_eq(&'=').map(|_| keyword)
}

/// Spaces after `=` are skipped even if the value would be empty: `host= port=1` gives the host
/// `port=1`, as libpq has it.
fn value(chars: &mut Peekable<Chars<'_>>, keyword: &str) -> Result<String, ConninfoError> {
    skip_spaces(chars);
    let quoted = chars.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        match chars.next() {
            None if quoted => {
                let keyword = shown::harmless_keyword(keyword).unwrap_or("?").to_owned();
                return Err(ConninfoError::UnterminatedQuote { keyword });
            }
            None => return Ok(value),
            Some('\'') if quoted => return Ok(value),
            Some(character) if !quoted && is_space(character) => return Ok(value),
            Some('\\') => value.extend(chars.next()),
            Some(character) => value.push(character),
        }
    }
}
