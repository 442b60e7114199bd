use std::time::Duration;

use seawall_core::{Error, Lsn, TimelineId};
use seawall_engine::cluster::Server;
use seawall_pgwire::Config;

/// How long a server may take to answer: a monitor waits for it.
const ANSWER: Duration = Duration::from_secs(10);

/// How long all hosts together may take of it to give a session.
const SESSION: Duration = Duration::from_secs(7);

/// What a running server says of its archiving.
#[derive(Debug, Clone, PartialEq)]
pub struct Archiving {
    /// The server's version, such as `15.18`.
    pub version: String,
    /// Where the log ends.
    pub insert_lsn: Lsn,
    /// The timeline the server writes; `None` while it recovers.
    pub timeline: Option<TimelineId>,
    /// The file the archiver fails on, if its last try failed.
    pub failing_on: Option<String>,
    /// Whether nothing is set that archives.
    pub idle: bool,
    /// Since the archiver last succeeded.
    pub archived_s_ago: Option<f64>,
    /// `archive_timeout`; 0 is never.
    pub timeout_s: u32,
    /// Bytes of a WAL segment.
    pub segment_bytes: u64,
}

const SQL: &str = "select split_part(current_setting('server_version'), ' ', 1) as version, \
     case when pg_is_in_recovery() then pg_last_wal_replay_lsn() \
          else pg_current_wal_insert_lsn() end as insert_lsn, \
     case when not pg_is_in_recovery() \
          then substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) end as timeline, \
     case when last_failed_time > coalesce(last_archived_time, '-infinity') \
          then coalesce(last_failed_wal, '?') end as failing_on, \
     current_setting('archive_mode') = 'off' \
       or (coalesce(current_setting('archive_library', true), '') = '' \
           and current_setting('archive_command') in ('', '(disabled)')) as idle, \
     extract(epoch from clock_timestamp() - last_archived_time)::float8 as archived_s_ago, \
     (select setting::int from pg_settings where name = 'archive_timeout') as timeout_s, \
     pg_size_bytes(current_setting('wal_segment_size')) as segment_bytes \
     from pg_stat_archiver";

impl Archiving {
    /// Asks a server.
    ///
    /// # Errors
    /// Why there is no answer, in a line.
    pub async fn ask(connection: &Config) -> Result<Self, String> {
        let ask = async {
            let connection = connection.clone().with_time_to_connect(SESSION);
            let mut server = Server::connect(&connection).await?;
            let row = server.connection().query_one(SQL).await?;
            server.close().await;
            Ok::<_, Error>(Self {
                version: row.get("version")?,
                insert_lsn: row.get("insert_lsn")?,
                timeline: row
                    .get::<Option<String>>("timeline")?
                    .and_then(|number| u32::from_str_radix(&number, 16).ok().map(TimelineId)),
                failing_on: row.get("failing_on")?,
                idle: row.get("idle")?,
                archived_s_ago: row.get("archived_s_ago")?,
                timeout_s: row.get("timeout_s")?,
                segment_bytes: row.get("segment_bytes")?,
            })
        };
        match tokio::time::timeout(ANSWER, ask).await {
            Ok(answer) => answer.map_err(|error| error.chain()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// The time in which commits may have happened that are in no repository, where the log is
    /// archived up to `archived`; `None` if nothing was ever archived.
    ///
    /// A quiet server writes WAL of its own that nobody would miss, and does not switch for it. So
    /// less than a segment counts only as long as `archive_timeout` lets commits wait.
    pub fn at_risk_s(&self, archived: Lsn) -> Option<f64> {
        let behind = self.insert_lsn.bytes_since(archived);
        if archived.is_valid() && behind == 0 {
            return Some(0.0);
        }
        let since = self.archived_s_ago?;
        let waits = self.timeout_s > 0 && self.failing_on.is_none() && behind < self.segment_bytes;
        Some(if waits { since.min(f64::from(self.timeout_s)) } else { since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Archiving {
        Archiving {
            version: "15.18".to_owned(),
            insert_lsn: Lsn(0x300_0100),
            timeline: Some(TimelineId(1)),
            failing_on: None,
            idle: false,
            archived_s_ago: Some(7200.0),
            timeout_s: 60,
            segment_bytes: 16 << 20,
        }
    }

    #[test]
    fn a_quiet_server_is_not_at_risk_for_hours() {
        assert_eq!(quiet().at_risk_s(Lsn(0x300_0000)), Some(60.0));
        assert_eq!(quiet().at_risk_s(Lsn(0x300_0100)), Some(0.0));
    }

    #[test]
    fn a_server_whose_wal_does_not_go_anywhere_is() {
        let never = Archiving { timeout_s: 0, ..quiet() };
        let failing =
            Archiving { failing_on: Some("000000010000000000000003".to_owned()), ..quiet() };
        let far = Archiving { insert_lsn: Lsn(0x900_0000), ..quiet() };
        for archiving in [never, failing, far] {
            assert_eq!(archiving.at_risk_s(Lsn(0x300_0000)), Some(7200.0), "{archiving:?}");
        }
        let unheard_of = Archiving { archived_s_ago: None, ..quiet() };
        assert_eq!(unheard_of.at_risk_s(Lsn::INVALID), None);
    }
}
