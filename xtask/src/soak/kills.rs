//! `soak kills`: `kill -9` before any call that makes something durable.

use super::sweep::Sweep;

/// As CI plays it in twenty rounds.
pub const KILLS: Sweep = Sweep {
    name: "kills",
    package: "seawall",
    program: "kills",
    test: "a_kill_at_any_moment_loses_nothing_and_leaves_nothing_half_done",
    proves: "Each round kills a backup, a push, a restore or PostgreSQL, most of them exactly before a call that makes \
             something durable or visible, under load. After each: `verify` finds nothing, every listed backup is \
             complete, the next run succeeds. Every 25 rounds the last backup is restored to the end of the archive: \
             `pg_verifybackup`, every acknowledged commit, amcheck, `pg_checksums`.",
    counts: "rounds",
    rounds: 500,
};
