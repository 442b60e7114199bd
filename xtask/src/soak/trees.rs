//! `soak trees`: whatever lies in a data directory, and whatever becomes of it while it is read.

use super::sweep::Sweep;

/// As CI plays it in fifty rounds.
pub const TREES: Sweep = Sweep {
    name: "trees",
    package: "seawall-engine",
    program: "trees",
    test: "what_a_backup_calls_complete_restores",
    proves: "Each round grows a tree of files in the data directory of a running cluster: up to some thousand files of \
             0 bytes to some MB, names of any bytes and up to the longest, links of every kind, modes, sparse files; \
             and somebody replaces, rewrites, cuts, adds to and removes some of them while a backup reads them. The \
             backup restores, every file is byte for byte one of the versions it had, what nobody touched is as it \
             was in kind, content and mode, and what the backup does not have, it names.",
    counts: "times",
    rounds: 2000,
};
