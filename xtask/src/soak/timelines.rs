//! `soak timelines`: every form of target, on every major, anywhere on three timelines.

use super::sweep::Sweep;

/// As CI plays it once on every major, with one restore for each form of target.
pub const TIMELINES: Sweep = Sweep {
    name: "timelines",
    package: "seawall",
    program: "timelines",
    test: "any_moment_of_any_story_is_met_on_every_major",
    proves: "Each round tells another story to the next major: plain transactions, subtransactions, prepared ones that \
             wait across a fork, rollbacks and DDL, on three timelines of which each begins with a restore in the \
             middle of the one before. 60 targets: time, commit time, LSN, transaction and subtransaction, restore \
             point, end of the archive, end of a backup; with and without the point itself; before the forks, between \
             them, after them, and on what an old timeline wrote behind its fork. After each restore the rows, the \
             prepared transactions and the new timeline's number are exactly those of that moment, and the plan named \
             exactly the last commit that is there and the first that is not.",
    counts: "rounds",
    rounds: 14,
};
