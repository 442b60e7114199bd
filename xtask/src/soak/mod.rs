//! `cargo xtask soak`: tests that take long, with evidence of what they saw.

use anyhow::{Result, bail};

mod memory;

const USAGE: &str = "\
usage: cargo xtask soak memory [--size-gb N]… [--relations N] [--limit-mb N] [--dir D]
  memory   backup and restore with no more memory than the limit, page cache included (root)
           --size-gb N     size of a cluster with tables (6); may be repeated
           --relations N   relations of a cluster with empty ones (100000)
           --limit-mb N    the limit (150)
           --dir D         where clusters are kept; those of bench serve here too";

pub fn main(arguments: &[&str]) -> Result<()> {
    let Some((what, rest)) = arguments.split_first() else { bail!("{USAGE}") };
    match *what {
        "memory" => memory::main(rest),
        _ => bail!("soak: nothing called {what}\n{USAGE}"),
    }
}
