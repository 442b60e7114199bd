//! `cargo xtask bench`: Seawall beside pgBackRest, on the same data, on the same machine, in turn.

use anyhow::{Result, bail};

use self::options::Options;
use crate::command::{cargo, run};

pub mod contestant;
pub mod dataset;
mod delta_restore;
mod floors;
mod full_restore;
mod impact;
mod incremental;
pub mod machine;
mod measure;
pub mod options;
mod pgbackrest;
mod report;
pub mod seawall;
mod turn;
mod variants;

const USAGE: &str = "\
usage: cargo xtask bench full-restore [--size-gb N] [--jobs N] [--runs N] [--dir D] [--cold]
                                      backups and restores beside pgBackRest
       cargo xtask bench delta-restore [--size-gb N] [--jobs N] [--runs N] [--dir D] [--cold]
                                      restores onto what is there, 50 MB of it differing
       cargo xtask bench incremental [--size-gb N] [--jobs N] [--runs N] [--dir D] [--cold]
                                      backups after nothing, 500 and 50 000 transactions
       cargo xtask bench scaling [--runs N] [--dir D] [--cold]
                                      2, 6 and 20 GB, 100 000 files, one worker and two
       cargo xtask bench choices [--size-gb N] [--runs N] [--dir D] [--cold]
                                      compression, pack size, workers and memory
       cargo xtask bench impact [--size-gb N] [--runs N] [--dir D]
                                      pgbench during backups, beside pgBackRest
       cargo xtask bench micro        hot paths alone: pages, WAL, hashes, frames, maps
  --size-gb N   size of the cluster, built once and kept (2; 6 for the numbers that count)
  --jobs N      workers of each tool (2)
  --runs N      how often each is measured (5)
  --dir D       where clusters, repositories and restored clusters go
  --cold        drop the page cache before every run (root; the whole machine feels it)";

pub fn main(arguments: &[&str]) -> Result<()> {
    let Some((what, rest)) = arguments.split_first() else { bail!("{USAGE}") };
    let options = |knows: &[&str]| Options::parse(rest, knows);
    match *what {
        "full-restore" => {
            full_restore::run(&options(&["--size-gb", "--jobs", "--runs", "--dir", "--cold"])?)
        }
        "delta-restore" => {
            delta_restore::run(&options(&["--size-gb", "--jobs", "--runs", "--dir", "--cold"])?)
        }
        "incremental" => {
            incremental::run(&options(&["--size-gb", "--jobs", "--runs", "--dir", "--cold"])?)
        }
        "scaling" => variants::scaling(&options(&["--runs", "--dir", "--cold"])?),
        "choices" => variants::choices(&options(&["--size-gb", "--runs", "--dir", "--cold"])?),
        "impact" => impact::run(&options(&["--size-gb", "--runs", "--dir"])?),
        "micro" if rest.is_empty() => micro(),
        _ => bail!("bench: no benchmark {what}\n{USAGE}"),
    }
}

/// Runs the benchmarks of single functions, which stand beside them (`crates/*/benches`).
fn micro() -> Result<()> {
    let packages = ["-p", "seawall-pgdata", "-p", "seawall-repo"];
    run(cargo()?.args(["bench", "--quiet"]).args(packages).args(["--bench", "hot_paths"]))
}
