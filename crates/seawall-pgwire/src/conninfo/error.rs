use std::path::PathBuf;

use super::keywords;

/// What is wrong with a connection string or a file it refers to.
///
/// No variant holds a password: text that may be part of one is left out, and that is all text in
/// a place where it makes no sense. A mistyped port of `postgresql://u:secret#host:5432` is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConninfoError {
    /// A word of a keyword/value string is not followed by `=`.
    #[error("missing \"=\" {}in the connection string", following(.after.as_deref()))]
    MissingEquals {
        /// The keyword whose value precedes the word.
        after: Option<String>,
    },
    /// A quoted value has no closing quote.
    #[error("the quoted value of \"{keyword}\" does not end")]
    UnterminatedQuote {
        /// Whose value it is.
        keyword: String,
    },
    /// libpq has no such keyword.
    #[error("unknown connection keyword{}", keyword_shown(.keyword.as_deref()))]
    UnknownKeyword {
        /// As it was written; `None` if it does not look like a keyword.
        keyword: Option<String>,
    },
    /// It looks like a URI, and not like PostgreSQL's.
    #[error(
        "a connection URI begins with postgresql:// or postgres://, and this one with another scheme"
    )]
    UnknownScheme,
    /// The URI is not well-formed.
    #[error("invalid connection URI: {problem}")]
    InvalidUri {
        /// What is wrong with it.
        problem: String,
    },
    /// The value is none the keyword takes.
    #[error("invalid value{} for \"{keyword}\": expected {expected}", value_shown(.value.as_deref()))]
    InvalidValue {
        /// The keyword.
        keyword: &'static str,
        /// As it was written; `None` if it may be a part of something else.
        value: Option<String>,
        /// What would have been right.
        expected: String,
    },
    /// libpq knows it, Seawall does not do it.
    #[error("connection keyword \"{keyword}\" is supported only as {}", quoted(.supported))]
    Unsupported {
        /// The keyword.
        keyword: &'static str,
        /// The values that are supported; an empty one means leaving the keyword out.
        supported: &'static [&'static str],
    },
    /// Lists that must have the same length do not.
    #[error("{values} values of \"{keyword}\" do not match {hosts} hosts")]
    CountMismatch {
        /// `port` or `hostaddr`.
        keyword: &'static str,
        /// How many values it has.
        values: usize,
        /// How many hosts there are.
        hosts: usize,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// The service is in none of the service files.
    #[error("definition of service \"{service}\" not found in {}", list(.searched))]
    ServiceNotFound {
        /// The service.
        service: String,
        /// The files read or missing.
        searched: Vec<PathBuf>,
    },
    /// A line of the service file cannot be understood.
    #[error("line {line} of service file \"{}\": {problem}", .path.display())]
    ServiceFile {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A file the connection needs cannot be read.
    #[error("cannot read \"{}\": {problem}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        problem: String,
    },
    /// Neither the string nor the environment names a user, and the operating system has none.
    #[error("no user name: the operating system has none for this process")]
    NoUser,
}

fn following(keyword: Option<&str>) -> String {
    keyword.map(|keyword| format!("after the value of \"{keyword}\" ")).unwrap_or_default()
}

fn keyword_shown(keyword: Option<&str>) -> String {
    let Some(keyword) = keyword else { return String::new() };
    let meant = keywords::suggest(keyword).map(|name| format!(" (\"{name}\"?)"));
    format!(" \"{keyword}\"{}", meant.unwrap_or_default())
}

fn value_shown(value: Option<&str>) -> String {
    value.map(|value| format!(" \"{value}\"")).unwrap_or_default()
}

fn quoted(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
    quoted.join(" or ")
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "any service file (there is none)".to_owned();
    }
    let shown: Vec<String> = paths.iter().map(|path| format!("\"{}\"", path.display())).collect();
    shown.join(", ")
}

impl ConninfoError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::MissingEquals { .. } => {
                "Write keyword=value pairs, with single quotes around values that contain spaces, \
                 or a URI such as postgresql://user@host:5432/dbname."
            }
            Self::UnknownKeyword { .. } => {
                "The keywords are libpq's: host, port, dbname, user, sslmode and so on."
            }
            Self::InvalidUri { .. } | Self::UnknownScheme => {
                "Write postgresql://USER@HOST:PORT/DBNAME?keyword=value; @, :, / and % within a \
                 part are written %40, %3A, %2F and %25."
            }
            Self::ServiceNotFound { .. } => {
                "Define it as a section [NAME] in ~/.pg_service.conf, or name the file with \
                 PGSERVICEFILE."
            }
            Self::NoUser => "Add user=NAME to the connection string.",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
