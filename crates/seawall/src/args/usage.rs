use clap::error::{ContextValue, ErrorKind};
use seawall_core::Code;

use crate::masking::masked;
use crate::render::Style;

/// What clap ends an error with.
const MORE: &str = "For more information, try '--help'.";

/// Gives an error of the command line the form of every other: its code and a hint, below what
/// clap says. Help and version, which are no errors, stay as they are.
pub fn with_code(error: clap::Error) -> clap::Error {
    let kind: ErrorKind = error.kind();
    let text = without_secrets(&error, error.render().to_string());
    let Some(said) = text.strip_prefix("error: ").filter(|_| error.use_stderr()) else {
        return error;
    };
    let said = said.trim_end();
    let (said, hint) = said.strip_suffix(MORE).map_or((said, ""), |said| (said.trim_end(), MORE));
    let (style, code) = (Style::of_stderr(), Code::Usage);
    let between = if said.contains('\n') { "\n\n" } else { "\n" };
    let mut text = format!("{said}{between}  {} {code}\n", style.bold("code:"));
    if !hint.is_empty() {
        text.push_str(&format!("  {} {hint}\n", style.bold("hint:")));
    }
    clap::Error::raw(kind, text)
}

/// An argument that clap repeats may be a password that went astray.
fn without_secrets(error: &clap::Error, text: String) -> String {
    error.context().fold(text, |text, (_, value)| match value {
        ContextValue::String(repeated) if !repeated.is_empty() => {
            text.replace(repeated.as_str(), &masked(repeated))
        }
        _ => text,
    })
}
