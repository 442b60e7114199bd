//! `soak waldump`: the reader beside `pg_waldump`, over everything a server logs.

use anyhow::Result;

use super::sweep::Sweep;
use crate::setup::wheel;

/// As CI plays it once, in a short story on one major.
const WALDUMP: Sweep = Sweep {
    name: "waldump",
    package: "seawall-pgdata",
    program: "waldump",
    test: "they_agree_on_long_stories_of_every_major",
    proves: "Each round a server of the next major lives through a story and all of its log is read: by its own \
             `pg_waldump`, by the WAL reader, and segment by segment as the archive indexes it. Record for record the \
             same: resource manager, operation, lengths, transaction, LSN, link to the record before, block references \
             and page images; ends of transactions with ids, subtransactions, dropped files and times to the \
             microsecond; restore points, files, databases and tablespaces; where the log ends. The joined indexes of \
             the segments say the same as the log read in one go. Every story holds every kind of index, prepared \
             transactions, more subtransactions than a page of the status log holds, multixacts, rewrites, `CREATE \
             DATABASE` both ways, page images by every method of compression the server was built with (16 and 18: \
             pglz alone) and for verification, a record over 64 MiB, and three records that `kill -9` tore and the server gave up.",
    counts: "records",
    rounds: 9,
};

pub fn main(arguments: &[&str]) -> Result<()> {
    WALDUMP.main_with(arguments, |test| {
        test.env("SEAWALL_CACHE", wheel::install()?);
        Ok(())
    })
}
