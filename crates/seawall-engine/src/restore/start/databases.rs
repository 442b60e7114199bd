//! A restored server of selected databases: what it is asked and told once it has recovered.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use seawall_core::{Action, Oid, Result, hint};
use seawall_pgwire::Connection;

use super::{Login, Recovered, failed};
use crate::cluster::PostmasterFile;
use crate::durable::local;
use crate::restore::plan::{FIRST_NORMAL_OID, quoted};
use crate::restored::{NamedDatabase, RestorePlan};

const DATABASES: &str =
    "SELECT oid, datname, datistemplate, datallowconn FROM pg_catalog.pg_database ORDER BY oid";

/// What a connection to a database without content ends with (`load_relmap_file`, relmapper.c).
const EMPTY: &str = "pg_filenode.map";

/// A database of the restored server.
#[derive(Debug, Clone)]
struct FoundDatabase {
    oid: Oid,
    name: String,
    is_template: bool,
    /// A connection showed that it has no content.
    is_empty: bool,
}

/// What a server has done at the end of a stretch of replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It waits, and will replay on.
    Waits,
    /// It takes writes.
    TakesWrites,
    /// It shut down.
    ShutDown,
}

impl From<Recovered> for Ended {
    fn from(recovered: Recovered) -> Self {
        match recovered {
            Recovered::Promoted { .. } => Self::TakesWrites,
            Recovered::Paused { .. } | Recovered::Following { .. } => Self::Waits,
            Recovered::ShutDown { .. } => Self::ShutDown,
        }
    }
}

/// A stretch of replay that is over.
#[derive(Debug, Clone, Copy)]
pub struct Stretch<'s> {
    /// The restored data directory.
    pub data_directory: &'s Path,
    /// How its server is logged in to: a superuser.
    pub login: &'s Login,
    /// Where the server logs, and how long that was before.
    pub log: (&'s Path, u64),
    /// What was planned.
    pub plan: &'s RestorePlan,
    /// The databases that have their content, as they were when the backup began, as far as known.
    pub kept: &'s [NamedDatabase],
    /// How it ended.
    pub ended: Ended,
}

/// Proves that recovery passed over no page but those of databases left out, makes a server that
/// takes writes insist on all pages again, and returns what a person should know of its databases.
///
/// # Errors
/// [`Code::RestoredServerFailed`], those of the log and of the connection.
pub async fn look_at_databases(stretch: &Stretch<'_>) -> Result<Vec<String>> {
    let left_out = &stretch.plan.left_out_databases;
    if left_out.is_empty() {
        return Ok(Vec::new());
    }
    let (log_file, log_bytes) = stretch.log;
    let passed_over = invalid_pages(&log_after(log_file, log_bytes)?);
    if stretch.ended == Ended::ShutDown {
        let kept: Vec<FoundDatabase> =
            stretch.kept.iter().map(|it| found(it.oid, it.name.clone())).collect();
        return prove_pages(&passed_over, left_out, &kept, stretch.data_directory)
            .map(|()| Vec::new());
    }
    let mut server = stretch.connect("postgres").await?;
    let databases = ask(&mut server, stretch, left_out).await?;
    prove_pages(&passed_over, left_out, &databases, stretch.data_directory)?;
    if stretch.ended == Ended::TakesWrites {
        insist_on_all_pages(&mut server, stretch.plan).await?;
    }
    server.close().await;
    Ok(notes(left_out, stretch.kept, &databases))
}

/// Makes a server that takes writes stop at pages that are not there, from its next start on.
pub(super) async fn insist_on_all_pages(server: &mut Connection, plan: &RestorePlan) -> Result<()> {
    if plan.ignores_invalid_pages {
        server.simple_query("ALTER SYSTEM RESET ignore_invalid_pages").await?;
    }
    Ok(())
}

const fn found(oid: Oid, name: String) -> FoundDatabase {
    FoundDatabase { oid, name, is_template: false, is_empty: false }
}

async fn ask(
    server: &mut Connection,
    stretch: &Stretch<'_>,
    left_out: &[NamedDatabase],
) -> Result<Vec<FoundDatabase>> {
    let mut databases = Vec::new();
    for row in server.query_rows(DATABASES).await? {
        let mut database = found(row.get("oid")?, row.get("datname")?);
        database.is_template = row.get("datistemplate")?;
        let is_left_out = left_out.iter().any(|it| it.oid == database.oid);
        if row.get("datallowconn")? && !is_left_out && database.oid >= FIRST_NORMAL_OID {
            // As it is, not as it is shown.
            match stretch.connect(row.text("datname")?.unwrap_or_default()).await {
                Ok(connection) => connection.close().await,
                Err(error) => database.is_empty = format!("{error:?}").contains(EMPTY),
            }
        }
        databases.push(database);
    }
    Ok(databases)
}

impl Stretch<'_> {
    async fn connect(&self, database: &str) -> Result<Connection> {
        let running = PostmasterFile::read(self.data_directory)
            .ok_or_else(|| failed("the restored server does not run any more".to_owned()))?;
        self.login.connect(&running.listening(), database).await
    }
}

fn log_after(path: &Path, bytes: u64) -> Result<String> {
    let mut log = Vec::new();
    File::open(path)
        .and_then(|mut file| {
            file.seek(SeekFrom::Start(bytes))?;
            file.read_to_end(&mut log)
        })
        .map_err(|error| local(error, "reading", path))?;
    Ok(String::from_utf8_lossy(&log).into_owned())
}

/// What a server's log tells of pages that replay did not find, by database; 0 is for relations
/// that all databases share (`report_invalid_page`, xlogutils.c).
fn invalid_pages(log: &str) -> BTreeMap<Oid, String> {
    let mut found = BTreeMap::new();
    for line in log.lines() {
        let Some((before, rest)) = line.split_once(" of relation ") else { continue };
        let number = before.rsplit_once("page ").map(|(_, number)| number);
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let told = rest.ends_with(" is uninitialized") || rest.ends_with(" does not exist");
        let path = rest.split(' ').next().unwrap_or_default();
        if let (true, true, Some(database)) =
            (told, number.is_some_and(is_number), database_of(path))
        {
            found.entry(database).or_insert_with(|| line.to_owned());
        }
    }
    found
}

/// The database of a relation's path, such as `base/5/1259_fsm`.
fn database_of(path: &str) -> Option<Oid> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["global", _] => Some(0),
        ["base", database, _] | ["pg_tblspc", _, _, database, _] => database.parse().ok(),
        _ => None,
    }
}

/// Pages of databases that were made since from one left out, or that are gone, are no loss.
fn prove_pages(
    passed_over: &BTreeMap<Oid, String>,
    left_out: &[NamedDatabase],
    databases: &[FoundDatabase],
    data_directory: &Path,
) -> Result<()> {
    let matters = |oid: Oid| {
        let is_left_out = left_out.iter().any(|database| database.oid == oid);
        let is_there = databases.iter().any(|database| database.oid == oid && !database.is_empty);
        oid < FIRST_NORMAL_OID || (is_there && !is_left_out)
    };
    let Some((_, line)) = passed_over.iter().find(|(oid, _)| matters(**oid)) else {
        return Ok(());
    };
    let directory = data_directory.display();
    Err(failed(format!(
        "recovery passed over a page of a database that is wanted, so the restored cluster is not whole: {line}"
    ))
    .with_hint(hint![
        format!("Do not use it: `pg_ctl stop -D '{directory}'`. Restore without --database into another directory; "),
        Action::Verify,
        " reads the backup itself."
    ]))
}

/// Names change: what is to be dropped is told by the names of now.
fn notes(
    left_out: &[NamedDatabase],
    kept: &[NamedDatabase],
    databases: &[FoundDatabase],
) -> Vec<String> {
    let now = |oid: Oid| databases.iter().find(|database| database.oid == oid);
    let mut notes = Vec::new();
    for was in kept.iter().filter(|database| database.oid >= FIRST_NORMAL_OID) {
        let name = quoted(&was.name);
        match now(was.oid) {
            Some(is) if is.name == was.name => {}
            Some(is) => notes.push(format!(
                "What was called {name} when the backup began is called {} here: it was renamed since. It has its content, and what is called {name} now is another database (OID {} is the one restored).",
                quoted(&is.name),
                was.oid
            )),
            None => notes.push(format!(
                "What was called {name} when the backup began (OID {}) was dropped before the target.",
                was.oid
            )),
        }
    }
    let drops: Vec<String> =
        left_out.iter().filter_map(|database| now(database.oid)).map(drop_statements).collect();
    if !drops.is_empty() {
        notes.push(format!("Drop the databases left out first of all: {}", drops.join(" ")));
    }
    for copy in databases.iter().filter(|database| database.is_empty) {
        notes.push(format!(
            "{} (OID {}) was copied from a database left out, since the backup, and is as empty: {}",
            quoted(&copy.name),
            copy.oid,
            drop_statements(copy)
        ));
    }
    notes
}

fn drop_statements(database: &FoundDatabase) -> String {
    let name = quoted(&database.name);
    let first = if database.is_template {
        format!("ALTER DATABASE {name} IS_TEMPLATE false; ")
    } else {
        String::new()
    };
    format!("{first}DROP DATABASE {name};")
}

#[cfg(test)]
mod tests {
    use seawall_core::Code;

    use super::*;

    const LOG: &str = "\
2026-01-01 [7] WARNING:  page 3 of relation base/16401/16405 is uninitialized
2026-01-01 [7] CONTEXT:  WAL redo at 0/3000060 for Hash/VACUUM_ONE_PAGE: ntuples 1
2026-01-01 [7] WARNING:  page 9 of relation pg_tblspc/16390/PG_15_202209061/16402/7_fsm does not exist
2026-01-01 [9] ERROR:  column \"a\" of relation \"t\" does not exist
2026-01-01 [9] ERROR:  page 1 of relation base/x/1 does not exist
";

    fn named(oid: Oid, name: &str) -> NamedDatabase {
        NamedDatabase { oid, name: name.to_owned() }
    }

    #[test]
    fn only_pages_of_databases_left_out_may_be_passed_over() {
        let pages = invalid_pages(LOG);
        assert_eq!(pages.keys().copied().collect::<Vec<_>>(), [16_401, 16_402]);
        let left_out = [named(16_401, "a"), named(16_402, "b")];
        let databases =
            [(16_401, "a"), (16_402, "b")].map(|(oid, name)| found(oid, name.to_owned()));
        let prove = |left_out: &[NamedDatabase], databases: &[FoundDatabase]| {
            prove_pages(&pages, left_out, databases, Path::new("/restored"))
        };
        prove(&left_out, &databases).unwrap();
        let error = prove(&left_out[..1], &databases).unwrap_err();
        assert_eq!(error.code(), Code::RestoredServerFailed);
        assert!(error.message().contains("/16402/7_fsm"), "{error:?}");
        // It was dropped since, or is a copy of one left out.
        prove(&left_out[..1], &databases[..1]).unwrap();
        let copy = FoundDatabase { is_empty: true, ..databases[1].clone() };
        prove(&left_out[..1], &[copy]).unwrap();
        let shared = invalid_pages("WARNING:  page 0 of relation global/1262 is uninitialized");
        assert!(prove_pages(&shared, &left_out, &[], Path::new("/restored")).is_err());
    }

    #[test]
    fn after_a_swap_of_names_the_right_one_is_dropped() {
        let (kept, left_out) = ([named(16_400, "shop")], [named(16_401, "old")]);
        let databases =
            [(16_400, "old"), (16_401, "shop")].map(|(oid, name)| found(oid, name.to_owned()));
        let notes = notes(&left_out, &kept, &databases);
        assert!(notes[0].contains("\"shop\" when the backup began is called \"old\""), "{notes:?}");
        assert!(notes[1].ends_with("DROP DATABASE \"shop\";"), "{notes:?}");
        assert_eq!(notes.len(), 2);
    }
}
