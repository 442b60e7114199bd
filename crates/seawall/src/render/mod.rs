//! What people see: data on standard output, everything else on standard error.

mod confirm;
mod error;
mod out;
mod progress;
mod style;
mod table;
mod time;

pub use confirm::confirm;
pub use error::{render_error, report};
pub use out::Out;
pub use progress::Display;
pub use style::Style;
pub use table::{Align, table};
pub use time::{age, duration, utc, zones};

/// `text` as one word of a POSIX shell.
pub fn shell_quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::shell_quote;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(shell_quote("/usr/bin/seawall"), "/usr/bin/seawall");
        assert_eq!(shell_quote("a b"), "'a b'");
        assert_eq!(shell_quote("it's"), "'it'\\''s'");
        assert_eq!(shell_quote(""), "''");
        assert_eq!(shell_quote("$HOME"), "'$HOME'");
    }
}
