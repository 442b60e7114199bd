//! `soak stores`: stores that fail, are slow or answer too little.

use super::sweep::Sweep;

/// As CI plays it in forty-five rounds.
pub const STORES: Sweep = Sweep {
    name: "stores",
    package: "seawall-engine",
    program: "stores",
    test: "whatever_a_store_does_nothing_is_lost_and_nothing_half_published",
    proves: "Each round does one thing with a repository whose store, once, now and then or from some call on, refuses, \
             is full, breaks, does not answer, does it and does not answer, dies, is slow, or answers with fewer bytes \
             than there are; half of the rounds ask it again. After each: what was acknowledged is there, `verify` \
             finds nothing, every listed backup is whole, every key opens what it should, no segment was said not to \
             exist, nothing that was refused can be started, and the same again succeeds.",
    counts: "rounds",
    rounds: 2000,
};
