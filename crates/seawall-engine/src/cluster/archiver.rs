use seawall_core::{Result, WalFileName, WalSegment, WalSegmentSize};

use super::Server;

/// What the server says of its archiver, and what it is told to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Archiver {
    /// How often it succeeded.
    pub archived_count: u64,
    /// What it archived last.
    pub last_archived: Option<String>,
    /// Seconds since then.
    pub archived_s_ago: Option<f64>,
    /// How often it failed.
    pub failed_count: u64,
    /// What it failed on last.
    pub last_failed: Option<String>,
    /// Seconds since then.
    pub failed_s_ago: Option<f64>,
    /// The file it failed on, if it has archived none since.
    pub failing_on: Option<String>,
    /// `archive_command`; empty if there is none.
    pub command: String,
    /// `archive_library`, since 15; empty if there is none.
    pub library: String,
}

/// What `archive_command` shows while `archive_mode` is off.
const DISABLED: &str = "(disabled)";

const SQL: &str = "select archived_count, last_archived_wal, failed_count, last_failed_wal, \
     pg_catalog.date_part('epoch', \
       pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) last_archived_time) as archived_s_ago, \
     pg_catalog.date_part('epoch', \
       pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) last_failed_time) as failed_s_ago, \
     case when last_failed_time OPERATOR(pg_catalog.>) \
            coalesce(last_archived_time, '-infinity'::pg_catalog.timestamptz) \
          then coalesce(last_failed_wal, '?') end as failing_on, \
     pg_catalog.current_setting('archive_command') as command, \
     coalesce(pg_catalog.current_setting('archive_library', true), '') as library \
     from pg_catalog.pg_stat_archiver";

impl Archiver {
    /// Asks the server.
    ///
    /// # Errors
    /// Those of the query.
    pub async fn ask(server: &mut Server) -> Result<Self> {
        let row = server.connection().query_one(SQL).await?;
        let command: String = row.get("command")?;
        Ok(Self {
            archived_count: row.get("archived_count")?,
            last_archived: row.get("last_archived_wal")?,
            archived_s_ago: row.get("archived_s_ago")?,
            failed_count: row.get("failed_count")?,
            last_failed: row.get("last_failed_wal")?,
            failed_s_ago: row.get("failed_s_ago")?,
            failing_on: row.get("failing_on")?,
            command: if command == DISABLED { String::new() } else { command },
            library: row.get("library")?,
        })
    }

    /// Whether nothing is set that could archive.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.command.is_empty() && self.library.is_empty()
    }

    /// The segment it archived last, if that was one.
    #[must_use]
    pub fn last_segment(&self, size: WalSegmentSize) -> Option<WalSegment> {
        match WalFileName::parse(self.last_archived.as_deref()?, size) {
            Some(WalFileName::Segment(segment)) => Some(segment),
            _ => None,
        }
    }
}

/// Whether an `archive_command` is `wal push` for this cluster, whatever its path and flags. One that
/// takes segments that are not whole (`--partial`) is none.
#[must_use]
pub fn is_push_of(command: &str, cluster: &str) -> bool {
    let words: Vec<&str> = command.split_whitespace().collect();
    let pushes = words.windows(2).any(|pair| pair == ["wal", "push"]);
    let named = words.windows(2).any(|pair| pair == ["--cluster", cluster])
        || words.contains(&format!("--cluster={cluster}").as_str());
    let names_none = !words.iter().any(|word| word.starts_with("--cluster"));
    let takes_anything = words.contains(&"--partial");
    pushes && (named || names_none) && command.contains("%p") && !takes_anything
}
