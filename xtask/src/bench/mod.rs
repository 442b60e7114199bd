//! `cargo xtask bench`: Seawall beside pgBackRest, on the same data, on the same machine, in turn.

use anyhow::{Result, bail};

use crate::command::{cargo, run};

pub mod contestant;
pub mod dataset;
mod floors;
mod full_restore;
pub mod machine;
mod measure;
pub mod options;
mod pgbackrest;
mod report;
pub mod seawall;
mod seawall_build;

const USAGE: &str = "\
usage: cargo xtask bench full-restore [--size-gb N] [--runs N] [--dir D] [--cold]
       cargo xtask bench micro        hot paths alone: pages, WAL, hashes, frames, maps
  --size-gb N   size of the cluster, built once and kept (2; 6 for the numbers that count)
  --runs N      backups and restores by each tool (5)
  --dir D       where cluster, repositories and restored clusters go
  --cold        drop the page cache before every run (root; the whole machine feels it)";

pub fn main(arguments: &[&str]) -> Result<()> {
    let Some((what, rest)) = arguments.split_first() else { bail!("{USAGE}") };
    match *what {
        "full-restore" => full_restore::run(&options::Options::parse(rest)?),
        "micro" if rest.is_empty() => micro(),
        _ => bail!("bench: no benchmark {what}\n{USAGE}"),
    }
}

/// Runs the benchmarks of single functions, which stand beside them (`crates/*/benches`).
fn micro() -> Result<()> {
    let packages = ["-p", "seawall-pgdata", "-p", "seawall-repo"];
    run(cargo()?.args(["bench", "--quiet"]).args(packages).args(["--bench", "hot_paths"]))
}
