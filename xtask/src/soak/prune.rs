//! `soak prune`: deletions that die at any call to the store.

use super::sweep::Sweep;

/// As CI plays it in 200 rounds.
pub const PRUNE: Sweep = Sweep {
    name: "prune",
    package: "seawall-engine",
    program: "prune",
    test: "crashes::a_prune_that_dies_anywhere_is_gone_on_with_and_loses_nothing",
    proves: "Each round has backups that share what they store, some of which go, with an attempt that stood still and \
             readers that died. A prune dies before or after one of its calls to the store, is gone on with at once or \
             days later, and meanwhile backups are made, held and published late. After each: every backup that is kept \
             reads whole, frame by frame, with its WAL; `verify` finds nothing. In the end nothing is left that nobody \
             needs.",
    counts: "rounds",
    rounds: 5000,
};
