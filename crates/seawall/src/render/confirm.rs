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
    let answer = typed(&format!("{question} [y/N] "))?;
    let Some(answer) = answer else {
        return Err(refused(&format!("\"{question}\" needs an answer, and there is no terminal")));
    };
    match answer.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(refused(&format!("\"{question}\" was not answered with yes"))),
    }
}

/// What is typed in answer; `None` where there is no terminal to ask on.
///
/// # Errors
/// [`Code::NotConfirmed`]
pub fn typed(question: &str) -> Result<Option<String>> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(None);
    }
    eprint!("{question}");
    io::stderr().flush().ok();
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .code(Code::NotConfirmed, || "cannot read the answer".to_owned())?;
    Ok(Some(answer.trim().to_owned()))
}
