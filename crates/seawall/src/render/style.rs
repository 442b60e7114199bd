use std::io::IsTerminal;

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// No colour.
    pub const PLAIN: Self = Self { colour: false };

    /// For standard error: colour on a terminal, unless `NO_COLOR` is set (no-color.org).
    pub fn of_stderr() -> Self {
        Self { colour: std::io::stderr().is_terminal() && wanted() }
    }

    /// For standard output.
    pub fn of_stdout() -> Self {
        Self { colour: std::io::stdout().is_terminal() && wanted() }
    }

    /// Bold.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// For what is of less weight.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// For failures.
    pub fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// For success.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// For warnings.
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
