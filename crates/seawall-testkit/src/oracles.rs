//! PostgreSQL's own judgement of a cluster.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{Output, Owner, PgBin, PgConnection, process};

const LIMIT: Duration = Duration::from_secs(600);

/// `pg_checksums --check` on a cluster that is shut down; returns how many blocks it read.
///
/// # Errors
/// A block's checksum is wrong, the cluster runs or has no checksums.
pub fn pg_checksums(bin: &PgBin, data_directory: &Path) -> Result<u64> {
    let mut command = Owner::of_servers()?.command(bin.program("pg_checksums")?);
    let output = process::run(command.args(["--check", "-D"]).arg(data_directory), None, LIMIT)?
        .success()?;
    let count = output.stdout.lines().find_map(|line| line.strip_prefix("Blocks scanned:"));
    let blocks = count.context("pg_checksums did not say how many blocks")?.trim().parse()?;
    ensure!(blocks > 0, "pg_checksums read no block");
    Ok(blocks)
}

/// `pg_verifybackup` on a restored directory that holds a `backup_manifest` and was never
/// started. WAL is not parsed: the manifest speaks for files.
///
/// # Errors
/// A file is missing, surplus or altered.
pub fn pg_verifybackup(bin: &PgBin, data_directory: &Path) -> Result<Output> {
    let mut command = Owner::of_servers()?.command(bin.client("pg_verifybackup")?);
    process::run(command.arg("--no-parse-wal").arg(data_directory), None, LIMIT)?.success()
}

/// What [`amcheck`] went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Databases.
    pub databases: usize,
    /// B-tree indexes, each with its heap.
    pub indexes: usize,
    /// Heaps, TOAST among them; none before PostgreSQL 14, which has no `verify_heapam`.
    pub heaps: usize,
}

/// Runs `amcheck` over every B-tree index and heap of every database of a server that takes
/// writes; installs the extension where it is missing.
///
/// # Errors
/// The first index that is broken or disagrees with its heap; all complaints of the first heap
/// that has any.
pub fn amcheck(connection: &PgConnection) -> Result<Checked> {
    let mut checked = Checked::default();
    let databases = connection.psql("SELECT datname FROM pg_database WHERE datallowconn")?;
    for database in databases.lines() {
        let check = |sql: &str| connection.psql_in(database, sql).context(database.to_owned());
        check("CREATE EXTENSION IF NOT EXISTS amcheck")?;
        let indexes = check(CHECK_INDEXES)?;
        checked.databases += 1;
        checked.indexes += indexes.lines().count();
        if connection.bin().major() >= 14 {
            let complaints = check(HEAP_COMPLAINTS)?;
            if !complaints.is_empty() {
                bail!("verify_heapam in {database}: {complaints}");
            }
            checked.heaps += check(COUNT_HEAPS)?.parse::<usize>()?;
        }
    }
    ensure!(checked.indexes > 0, "amcheck found no index to check");
    Ok(checked)
}

/// With every heap tuple looked up in the index and every index tuple looked up from the root.
const CHECK_INDEXES: &str = "SELECT bt_index_parent_check(c.oid::regclass, true, true), c.oid \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam \
     WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' \
     AND i.indisready AND i.indisvalid";

const HEAP_COMPLAINTS: &str = "SELECT c.oid::regclass, v.blkno, v.offnum, v.attnum, v.msg \
     FROM pg_class c JOIN pg_am a ON a.oid = c.relam, \
     LATERAL verify_heapam(relation => c.oid::regclass, on_error_stop => false, \
     check_toast => true) v \
     WHERE a.amname = 'heap' AND c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'";

const COUNT_HEAPS: &str = "SELECT count(*) FROM pg_class c JOIN pg_am a ON a.oid = c.relam \
     WHERE a.amname = 'heap' AND c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'";

/// Everything in a cluster, as `pg_dumpall` writes it, in a form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    lines: Vec<String>,
}

impl Dump {
    /// Dumps roles and every database with its data.
    ///
    /// # Errors
    /// `pg_dumpall` fails.
    pub fn take(connection: &PgConnection) -> Result<Self> {
        Self::take_with(connection, &[])
    }

    /// As [`Dump::take`], without a word of tablespaces: a restore may put them elsewhere.
    ///
    /// # Errors
    /// `pg_dumpall` fails.
    pub fn take_without_tablespaces(connection: &PgConnection) -> Result<Self> {
        Self::take_with(connection, &["--no-tablespaces"])
    }

    fn take_with(connection: &PgConnection, options: &[&str]) -> Result<Self> {
        let mut command = connection.client("pg_dumpall")?;
        command.args(options);
        let output = process::run(&mut command, None, LIMIT)?.success()?;
        let dump = Self::normalised(&output.stdout);
        ensure!(!dump.lines.is_empty(), "pg_dumpall wrote nothing");
        Ok(dump)
    }

    /// Drops comments, blank lines and the random token of `\restrict`, and sorts the rows of
    /// each `COPY` block: neither the program's version nor the order of a heap is content.
    fn normalised(text: &str) -> Self {
        let mut lines: Vec<String> = Vec::new();
        let mut source = text.lines();
        while let Some(line) = source.next() {
            let noise = line.is_empty() || line.starts_with("--");
            if noise || line.starts_with("\\restrict") || line.starts_with("\\unrestrict") {
                continue;
            }
            lines.push(line.to_owned());
            if line.starts_with("COPY ") && line.ends_with(" FROM stdin;") {
                let mut rows: Vec<String> =
                    source.by_ref().take_while(|row| *row != "\\.").map(str::to_owned).collect();
                rows.sort_unstable();
                lines.append(&mut rows);
            }
        }
        Self { lines }
    }

    /// How many lines count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nothing was dumped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Proves that two dumps say the same.
    ///
    /// # Errors
    /// The first lines that differ.
    pub fn same_as(&self, other: &Self) -> Result<()> {
        let pairs = self.lines.iter().zip(&other.lines);
        let differing: Vec<String> = pairs
            .filter(|(ours, theirs)| ours != theirs)
            .map(|(ours, theirs)| format!("- {ours}\n+ {theirs}"))
            .take(10)
            .collect();
        let (ours, theirs) = (self.len(), other.len());
        if differing.is_empty() && ours == theirs {
            return Ok(());
        }
        bail!("dumps differ ({ours} and {theirs} lines):\n{}", differing.join("\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_ignores_what_is_not_content() {
        let one = "-- by 15.1\n\\restrict abc\nCOPY public.t (a) FROM stdin;\n2\n1\n\\.\n\nSET x;";
        let two = "-- by 15.2\n\\restrict xyz\nCOPY public.t (a) FROM stdin;\n1\n2\n\\.\nSET x;";
        assert!(Dump::normalised(one).same_as(&Dump::normalised(two)).is_ok());
    }

    #[test]
    fn a_dump_that_lacks_a_row_differs() {
        let one = Dump::normalised("COPY public.t (a) FROM stdin;\n1\n2\n\\.\n");
        let two = Dump::normalised("COPY public.t (a) FROM stdin;\n1\n\\.\n");
        assert!(one.same_as(&two).is_err());
        assert!(two.same_as(&one).is_err());
    }
}
