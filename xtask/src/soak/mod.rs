//! `cargo xtask soak`: tests that take long, with evidence of what they saw.

use anyhow::{Result, bail};

mod damage;
mod jobs;
mod kills;
mod memory;
mod prune;
mod stores;
mod sweep;
mod timelines;
mod trees;
mod waldump;

const USAGE: &str = "\
usage: cargo xtask soak memory [--size-gb N]… [--relations N] [--limit-mb N] [--dir D]
  memory   backup and restore with no more memory than the limit, page cache included (root)
           --size-gb N     size of a cluster with tables (6); may be repeated
           --relations N   relations of a cluster with empty ones (100000)
           --limit-mb N    the limit (150)
           --dir D         where clusters are kept; those of bench serve here too
       cargo xtask soak kills|jobs|damage|prune|stores|timelines|trees|waldump [--rounds N] [--seed N]
  kills    kill -9 of backup, push, restore and PostgreSQL before any call that makes something
           durable (500 rounds)
  jobs     backups, restores and verifications that are cancelled or killed at any moment (300
           rounds)
  damage   every kind of object of a repository spoilt in every way (1000 rounds)
  prune    deletions that die at any call to the store (5000 rounds)
  stores   every verb on a store that fails, is slow or answers too little (2000 rounds)
  timelines
           every form of target on every installed major, across three timelines (14 rounds)
  trees    files of any name, size and kind in a data directory, changed while a backup reads them
           (2000 rounds)
  waldump  pg_waldump and the reader over all that 15, 16 and 18 log, record by record (9 rounds);
           installs 16 and 18 with client programs";

pub fn main(arguments: &[&str]) -> Result<()> {
    let Some((what, rest)) = arguments.split_first() else { bail!("{USAGE}") };
    match *what {
        "memory" => memory::main(rest),
        "kills" => kills::KILLS.main(rest),
        "jobs" => jobs::JOBS.main(rest),
        "damage" => damage::DAMAGE.main(rest),
        "prune" => prune::PRUNE.main(rest),
        "stores" => stores::STORES.main(rest),
        "timelines" => timelines::TIMELINES.main(rest),
        "trees" => trees::TREES.main(rest),
        "waldump" => waldump::main(rest),
        _ => bail!("soak: nothing called {what}\n{USAGE}"),
    }
}
