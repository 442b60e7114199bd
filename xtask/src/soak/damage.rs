//! `soak damage`: every kind of object spoilt in every way.

use super::sweep::Sweep;

/// As CI plays it in 72 rounds.
pub const DAMAGE: Sweep = Sweep {
    name: "damage",
    package: "seawall",
    program: "damage",
    test: "damage_anywhere_is_found_and_never_restored",
    proves: "Each round spoils one object of a whole repository. `verify` names it and exits 4; a restore either is \
             refused before it writes anything or gives exactly what the whole repository gives; `wal fetch` never \
             takes damage for the end of the archive. Exempt by docs/format.md, 10: pins that go, and what only an \
             attempt that died had written.",
    counts: "rounds",
    rounds: 1000,
};
