use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use seawall_core::{
    ClusterName, Code, Error, Lsn, Result, SystemId, TimelineId, WalSegment, WalSegmentSize,
};
use seawall_pgwire::Config;

use crate::cluster::{Archiver, Server, segment_size_of};
use crate::lines::adopt_it;

/// How long a server may take to answer: a monitor waits for it.
const ANSWER: Duration = Duration::from_secs(10);

/// How long all hosts together may take of it to give a session.
const SESSION: Duration = Duration::from_secs(7);

/// So many servers are asked at once.
const SERVERS_AT_ONCE: usize = 16;

/// What a running server says of its archiving.
#[derive(Debug, Clone, PartialEq)]
pub struct Archiving {
    /// What `initdb` gave the cluster.
    pub system_id: SystemId,
    /// The server's version, such as `15.18`.
    pub version: String,
    /// Where the log ends.
    pub insert_lsn: Lsn,
    /// The timeline the server writes; `None` while it recovers.
    pub timeline: Option<TimelineId>,
    /// The file the archiver fails on, if its last try failed.
    pub failing_on: Option<String>,
    /// Whether it archives what it writes or, as a standby, what it receives. Another standby says
    /// nothing of what its primary archives.
    pub own_archiver: bool,
    /// Whether nothing is set that archives.
    pub idle: bool,
    /// Whether `archive_mode` was changed, which takes effect with the restart.
    pub waits_for_restart: bool,
    /// Since the archiver last succeeded.
    pub archived_s_ago: Option<f64>,
    /// The segment it succeeded with, if it was one.
    pub last_archived: Option<WalSegment>,
    /// `archive_timeout`; 0 is never.
    pub timeout_s: u32,
    /// The size of its WAL segments.
    pub segment_size: WalSegmentSize,
}

impl Archiving {
    /// Whether it is a primary of the cluster.
    #[must_use]
    pub fn is_primary_of(&self, cluster: SystemId) -> bool {
        self.system_id == cluster && self.timeline.is_some()
    }
}

const SQL: &str = "select pg_catalog.split_part(\
       pg_catalog.current_setting('server_version'), ' ', 1) as version, \
     (select system_identifier from pg_catalog.pg_control_system()) as system_id, \
     (select pending_restart from pg_catalog.pg_settings \
       where name OPERATOR(pg_catalog.=) 'archive_mode') as waits_for_restart, \
     case when not pg_catalog.pg_is_in_recovery() then pg_catalog.pg_current_wal_insert_lsn() \
          when pg_catalog.pg_last_wal_receive_lsn() OPERATOR(pg_catalog.>) \
            pg_catalog.pg_last_wal_replay_lsn() then pg_catalog.pg_last_wal_receive_lsn() \
          else pg_catalog.pg_last_wal_replay_lsn() end as insert_lsn, \
     case when not pg_catalog.pg_is_in_recovery() \
          then pg_catalog.substr(pg_catalog.pg_walfile_name(\
            pg_catalog.pg_current_wal_insert_lsn()), 1, 8) end as timeline, \
     not pg_catalog.pg_is_in_recovery() or pg_catalog.current_setting('archive_mode') \
       OPERATOR(pg_catalog.=) 'always'::pg_catalog.text as own_archiver, \
     pg_catalog.current_setting('archive_mode') OPERATOR(pg_catalog.=) 'off'::pg_catalog.text \
       as is_off, \
     (select setting::pg_catalog.int4 from pg_catalog.pg_settings \
       where name OPERATOR(pg_catalog.=) 'archive_timeout') as timeout_s, \
     pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')) as segment_bytes";

impl Archiving {
    /// Asks a server.
    ///
    /// # Errors
    /// Those of the connection and the query; [`Code::ConnectFailed`] if it does not answer in time.
    pub async fn ask(connection: &Config) -> Result<Self> {
        let ask = async {
            let connection = connection.clone().with_time_to_connect(SESSION);
            let mut server = Server::connect(&connection).await?;
            let row = match server.connection().query_one(SQL).await {
                Ok(row) => row,
                Err(error) => return Err(server.explain(error).await),
            };
            let archiver = Archiver::ask(&mut server).await?;
            server.close().await;
            let system_id: i64 = row.get("system_id")?;
            let timeline: Option<String> = row.get("timeline")?;
            let number = |hex: String| {
                u32::from_str_radix(&hex, 16).map(TimelineId).map_err(|error| {
                    Error::new(Code::QueryFailed, format!("\"{hex}\" is no timeline"))
                        .with_source(error)
                })
            };
            let segment_size = segment_size_of(row.get("segment_bytes")?)?;
            let is_off: bool = row.get("is_off")?;
            Ok(Self {
                last_archived: archiver.last_segment(segment_size),
                idle: is_off || archiver.is_idle(),
                archived_s_ago: archiver.archived_s_ago,
                failing_on: archiver.failing_on,
                system_id: SystemId(system_id.cast_unsigned()),
                version: row.get("version")?,
                insert_lsn: row.get("insert_lsn")?,
                timeline: timeline.map(number).transpose()?,
                own_archiver: row.get("own_archiver")?,
                waits_for_restart: row.get("waits_for_restart")?,
                timeout_s: row.get("timeout_s")?,
                segment_size,
            })
        };
        tokio::time::timeout(ANSWER, ask).await.unwrap_or_else(|_| {
            let what = format!("the server gave no answer within {} s", ANSWER.as_secs());
            Err(Error::new(Code::ConnectFailed, what))
        })
    }

    /// Refuses what another cluster's server says; `stored` is whose backups and WAL there are.
    ///
    /// # Errors
    /// [`Code::ClusterMismatch`]
    pub fn of_cluster(self, name: &ClusterName, stored: Option<SystemId>) -> Result<Self> {
        match stored {
            Some(stored) if stored != self.system_id => Err(Error::new(
                Code::ClusterMismatch,
                format!(
                    "the server is cluster {}, and {name} in the repository is cluster {stored}",
                    self.system_id
                ),
            )
            .with_hint(adopt_it(name))),
            _ => Ok(self),
        }
    }
}

/// Asks several servers at once; the answers are in the order of the connections. One that is not
/// known how to reach stays the error it is.
pub async fn ask_all(connections: Vec<Result<Config>>) -> Vec<Result<Archiving>> {
    let answers = connections.into_iter().map(async |connection| match connection {
        Ok(connection) => Archiving::ask(&connection).await,
        Err(error) => Err(error),
    });
    stream::iter(answers).buffered(SERVERS_AT_ONCE).collect().await
}

#[cfg(test)]
impl Archiving {
    /// A server that archived the last two hours ago, since nothing happened.
    pub(super) fn quiet() -> Self {
        Self {
            system_id: SystemId(7),
            version: "15.18".to_owned(),
            insert_lsn: Lsn(0x300_0100),
            timeline: Some(TimelineId(1)),
            failing_on: None,
            own_archiver: true,
            idle: false,
            waits_for_restart: false,
            archived_s_ago: Some(7200.0),
            last_archived: None,
            timeout_s: 60,
            segment_size: WalSegmentSize::DEFAULT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_cluster_s_server_says_is_of_no_use() {
        let (name, quiet) = ("main".parse().unwrap(), Archiving::quiet);
        assert!(quiet().of_cluster(&name, Some(SystemId(7))).is_ok());
        assert!(quiet().of_cluster(&name, None).is_ok(), "nothing is stored to compare with");
        let error = quiet().of_cluster(&name, Some(SystemId(8))).unwrap_err();
        assert_eq!(error.code(), Code::ClusterMismatch);
    }
}
