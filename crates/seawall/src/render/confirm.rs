use std::io::{self, BufRead, IsTerminal, Write};

use seawall_core::{Code, Error, Result, ResultExt};

/// Asks whether what was shown shall be done, unless that was said beforehand.
///
/// # Errors
/// [`Code::NotConfirmed`]
pub fn confirm(question: &str, beforehand: bool) -> Result<()> {
    if beforehand {
        return Ok(());
    }
    let refused = |what: &str| {
        Error::new(Code::NotConfirmed, what).with_hint("`--yes` goes on without asking.")
    };
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(refused(&format!("\"{question}\" needs an answer, and there is no terminal")));
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush().ok();
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .code(Code::NotConfirmed, || "cannot read the answer".to_owned())?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(refused(&format!("\"{question}\" was not answered with yes"))),
    }
}
