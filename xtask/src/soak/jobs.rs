//! `soak jobs`: jobs that are cancelled or killed at any moment.

use super::sweep::Sweep;

/// As CI plays it in ten rounds.
pub const JOBS: Sweep = Sweep {
    name: "jobs",
    package: "seawall",
    program: "job_ends",
    test: "a_job_that_is_ended_at_any_moment_leaves_nothing_behind",
    proves: "Each round ends a backup, a restore with a server, or a verification after a random time: by closing its \
             standard input, by a word, by SIGTERM or by SIGKILL. As soon as the process has ended no session is left \
             in PostgreSQL and, but for SIGKILL, no unfinished file; a server that was started is told of; the next \
             backup succeeds. At the end everything is verified and restored.",
    counts: "rounds",
    rounds: 300,
};
