//! What replay demands of a server (`CheckRequiredParameterValues`, xlogrecovery.c, 15–18; xlog.c
//! before).

use seawall_pgdata::control::ControlFile;
use seawall_pgdata::wal::ParameterChange;

use super::Configuration;
use crate::restored::{PlannedSetting, RequiredParameters};

/// A setting's name, what is demanded, and PostgreSQL's default (12–18).
pub(in crate::restore) type Demand = (&'static str, u32, u32);

impl RequiredParameters {
    /// What the cluster had when its `pg_control` was copied.
    pub(in crate::restore) const fn of_control(control: &ControlFile) -> Self {
        Self {
            max_connections: control.max_connections,
            max_worker_processes: control.max_worker_processes,
            max_wal_senders: control.max_wal_senders,
            max_prepared_transactions: control.max_prepared_xacts,
            max_locks_per_transaction: control.max_locks_per_xact,
        }
    }

    /// The same, and what a record says the server has from there on.
    pub(in crate::restore) fn raise(&mut self, change: &ParameterChange) {
        for (has, record) in [
            (&mut self.max_connections, change.max_connections),
            (&mut self.max_worker_processes, change.max_worker_processes),
            (&mut self.max_wal_senders, change.max_wal_senders),
            (&mut self.max_prepared_transactions, change.max_prepared_transactions),
            (&mut self.max_locks_per_transaction, change.max_locks_per_transaction),
        ] {
            *has = record.max(*has);
        }
    }

    /// All five.
    pub(in crate::restore) const fn demands(&self) -> [Demand; 5] {
        [
            ("max_connections", self.max_connections, 100),
            ("max_worker_processes", self.max_worker_processes, 8),
            ("max_wal_senders", self.max_wal_senders, 10),
            ("max_prepared_transactions", self.max_prepared_transactions, 0),
            ("max_locks_per_transaction", self.max_locks_per_transaction, 64),
        ]
    }

    /// The settings of which the backup's configuration has less, or which cannot be read.
    pub(in crate::restore) fn missing_in(
        &self,
        configuration: &Configuration,
    ) -> Vec<PlannedSetting> {
        let demands = self.demands().into_iter();
        demands.filter_map(|demand| raised(demand, configuration)).collect()
    }
}

fn raised((name, demanded, default): Demand, there: &Configuration) -> Option<PlannedSetting> {
    let was = there.text(name);
    let has = match was {
        None => Some(default),
        Some(text) => text.parse::<u32>().ok(),
    };
    if has.is_some_and(|has| has >= demanded) {
        return None;
    }
    let was = was.map_or_else(|| format!("{default}, its default"), str::to_owned);
    Some(PlannedSetting {
        name: name.to_owned(),
        value: demanded.to_string(),
        was: Some(was),
        why: "the server that wrote the log had as many, and replay stops where there are fewer"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::configuration;
    use super::*;

    fn required() -> RequiredParameters {
        let mut required = RequiredParameters {
            max_connections: 30,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
        };
        let change = |connections, prepared| ParameterChange {
            max_connections: connections,
            max_worker_processes: 2,
            max_wal_senders: 3,
            max_prepared_transactions: prepared,
            max_locks_per_transaction: 10,
            wal_level: seawall_pgdata::wal::WalLevel::Replica,
            wal_log_hints: false,
            track_commit_timestamp: false,
        };
        required.raise(&change(77, 0));
        required.raise(&change(40, 5));
        required
    }

    fn names(there: &Configuration) -> Vec<(String, String)> {
        let missing = required().missing_in(there);
        missing.into_iter().map(|it| (it.name, it.value)).collect()
    }

    #[test]
    fn the_highest_that_the_log_ever_had_counts_for_each() {
        let there = configuration(&[("max_connections", "30")]);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            names(&there),
            [pair("max_connections", "77"), pair("max_prepared_transactions", "5")]
        );
    }

    #[test]
    fn what_the_configuration_has_more_of_stays_and_what_cannot_be_read_does_not() {
        let more = [("max_connections", "200"), ("max_prepared_transactions", "64")];
        assert_eq!(names(&configuration(&more)), []);
        // PostgreSQL takes it for 200; the demand is what is certain.
        let odd = [("max_connections", "0xC8"), ("max_prepared_transactions", "64")];
        assert_eq!(names(&configuration(&odd)).len(), 1);
    }
}
