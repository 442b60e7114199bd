use std::io::Write;

use seawall_core::{Error, printable};

use super::{Style, sentence};

/// An error as a person reads it: what failed and why, its code, what to do.
pub fn render_error(error: &Error, style: Style) -> String {
    let code = error.code();
    let mut text = format!("{} {}\n", style.red("error:"), plain(&error.chain()));
    text.push_str(&format!("  {} {code}\n", style.bold("code:")));
    if let Some(hint) = error.hint() {
        text.push_str(&format!("  {} {}\n", style.bold("hint:"), plain(&sentence(hint))));
    }
    text
}

/// Names of files are in errors too, and may do something to a terminal. Lines are kept: the end of
/// a server's log has several.
fn plain(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Tells an error that stops nothing on standard error.
pub fn warn(error: &Error) {
    let text = render_error(error, Style::of_stderr());
    let text = text.replacen("error:", "warning:", 1);
    std::io::stderr().write_all(text.as_bytes()).ok();
}

/// Tells the error on standard error.
pub fn report(error: &Error) {
    let text = render_error(error, Style::of_stderr());
    // Nobody is left to be told that standard error cannot be written.
    std::io::stderr().write_all(text.as_bytes()).ok();
}

#[cfg(test)]
mod tests {
    use seawall_core::Code;

    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let error = Error::new(Code::StoreFull, "no room to write pack")
            .with_source(std::io::Error::other("disk full"))
            .with_hint("Free space.");
        assert_eq!(
            render_error(&error, Style::PLAIN),
            "error: no room to write pack: disk full\n  code: SW0203\n  hint: Free space.\n"
        );
    }
}
