//! What of a connection string may be shown: in errors, hints, logs, JSON and on terminals.

use super::Conninfo;

/// A connection string as it may be shown: as it is, or, if it has a password or another secret in
/// it, as keyword/value pairs without. Of one that cannot be read nothing is shown, since nobody
/// knows what in it is a password.
#[must_use]
pub fn masked_conninfo(text: &str) -> String {
    match text.parse::<Conninfo>() {
        Ok(conninfo) if conninfo.has_secret() => conninfo.to_string(),
        Ok(_) => text.to_owned(),
        Err(_) => "(a connection string that cannot be read)".to_owned(),
    }
}

/// A value for a keyword/value connection string, in quotes where it needs them.
#[must_use]
pub fn quote_conninfo_value(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./@:,".contains(&byte);
    if !value.is_empty() && value.bytes().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// An unknown keyword, if it looks like one: short, and nothing but the letters of keywords. Of a
/// string that was not what it was taken for, everything up to the first `=` would be the keyword.
pub(super) fn harmless_keyword(keyword: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b'-';
    let harmless = (1..=30).contains(&keyword.len()) && keyword.bytes().all(plain);
    harmless.then_some(keyword)
}

/// A wrong value, if it cannot be part of a password that went astray: numbers where numbers belong,
/// or a word for a keyword that takes words.
pub(super) fn harmless_value<'a>(keyword: &str, value: &'a str) -> Option<&'a str> {
    let numeric = |byte: u8| byte.is_ascii_digit() || b",.:-+ ".contains(&byte);
    let word = |byte: u8| byte.is_ascii_alphabetic() || b"-_!".contains(&byte);
    let takes_words = !matches!(keyword, "port" | "host" | "hostaddr");
    let harmless = value.bytes().all(numeric) || takes_words && value.bytes().all(word);
    (harmless && value.len() <= 30).then_some(value)
}
