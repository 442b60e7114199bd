//! The configuration that is in a backup: what a restored server would be told by it, and which of
//! that it must not have as it was.

mod backed_up;
mod inherited;
mod missing;
mod required;
mod server_host;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use backed_up::read as read_configuration;
pub(super) use inherited::{Purpose, changed, warnings};
pub(super) use server_host::ServerHost;

/// Where PostgreSQL listens unless it is told otherwise.
const DEFAULT_PORT: u16 = 5432;

/// The settings of a backup's configuration files, as the server that is started on them reads
/// them: the last line that sets one counts. The command line it ran with is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Configuration {
    values: BTreeMap<String, String>,
    /// Files that settings name and that the restore brings, as they are named.
    files: BTreeSet<String>,
}

impl Configuration {
    /// What a setting is set to; `None` where its default counts, or its line cannot be read.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// As [`Configuration::value`], with nothing for an empty value.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// Whether a setting is on that is off by default.
    pub fn is_on(&self, name: &str) -> bool {
        // `parse_bool` takes any beginning of these words, and 1.
        let value = self.text(name).unwrap_or_default().to_ascii_lowercase();
        let is_short_for = |word: &str| !value.is_empty() && word.starts_with(&value);
        is_short_for("true") || is_short_for("yes") || value == "on" || value == "1"
    }

    /// The items of a list, with their quotes removed.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let items = self.text(name).into_iter().flat_map(|value| value.split(','));
        items.map(|item| item.trim().trim_matches('"')).filter(|item| !item.is_empty()).collect()
    }

    /// The port the server will listen on if nothing else is said.
    pub fn port(&self) -> u16 {
        self.text("port").and_then(|port| port.parse().ok()).unwrap_or(DEFAULT_PORT)
    }
}

#[cfg(test)]
pub(super) fn configuration(lines: &[(&str, &str)]) -> Configuration {
    let values = lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Configuration { values: values.collect(), files: BTreeSet::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_postgres_reads_them() {
        let there = configuration(&[
            ("ssl", "Yes"),
            ("hot_standby", "off"),
            ("fsync", "o"),
            ("shared_preload_libraries", "auto_explain, \"pg cron\",,"),
            ("port", "5499"),
            ("log_directory", ""),
        ]);
        assert!(there.is_on("ssl") && !there.is_on("hot_standby") && !there.is_on("wal_log_hints"));
        assert!(!there.is_on("fsync"), "it may mean either");
        assert_eq!(there.list("shared_preload_libraries"), ["auto_explain", "pg cron"]);
        assert_eq!((there.port(), configuration(&[]).port()), (5499, 5432));
        assert_eq!((there.value("log_directory"), there.text("log_directory")), (Some(""), None));
    }
}
