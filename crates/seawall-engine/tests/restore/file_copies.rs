//! Databases that are made or moved by copying files while a backup runs.

use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use seawall_core::{Code, Error, Hint, Progress, Stage};
use seawall_engine::backup::BackupReport;
use seawall_engine::restore::Target;
use seawall_testkit::{PgBin, PgCluster, TestDir};

use crate::house::House;

/// A database, and what is run in it.
type Statement = (&'static str, String);

/// Runs SQL when PostgreSQL has begun the backup and no file is read yet.
struct Meanwhile<'a> {
    pg: &'a PgCluster,
    statements: Mutex<Vec<Statement>>,
    outcome: Mutex<Result<()>>,
}

impl Progress for Meanwhile<'_> {
    fn stage(&self, stage: Stage, _: Option<u64>) {
        if stage == Stage::WaitingForWal {
            for (database, sql) in self.statements.lock().expect("the statements").drain(..) {
                if let Err(error) = self.pg.connection().psql_in(database, &sql) {
                    *self.outcome.lock().expect("the outcome") = Err(error.context(sql));
                }
            }
        }
    }

    fn advance(&self, _: u64) {}

    fn note(&self, _: &Hint) {}
}

struct Story {
    house: House,
    /// What makes `CREATE DATABASE` copy files.
    by_files: &'static str,
}

impl Story {
    async fn of(major: u16) -> Result<Self> {
        let house = House::with(PgCluster::builder(major).without_fsync()).await?;
        for database in ["shop", "old"] {
            house.pg.psql(&format!("CREATE DATABASE {database}"))?;
            let sql = "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) AS i";
            house.pg.connection().psql_in(database, sql)?;
        }
        Ok(Self { house, by_files: if major >= 15 { "STRATEGY file_copy" } else { "" } })
    }

    fn copy(&self, of: &str, to: &str) -> Statement {
        ("postgres", format!("CREATE DATABASE {to} TEMPLATE {of} {}", self.by_files))
    }

    async fn backup_while(&self, statements: Vec<Statement>) -> Result<BackupReport> {
        let meanwhile = Meanwhile {
            pg: &self.house.pg,
            statements: Mutex::new(statements),
            outcome: Mutex::new(Ok(())),
        };
        let backup = self.house.backup_with(&meanwhile).await;
        meanwhile.outcome.into_inner().expect("the outcome")?;
        backup
    }

    /// The backup is given up, and says which databases it would have lost.
    async fn is_given_up(&self, statements: Vec<Statement>, lost: &[&str]) -> Result<()> {
        let error = self.backup_while(statements).await.expect_err("a database is lost");
        let error = error.downcast_ref::<Error>().with_context(|| format!("{error:#}"))?;
        ensure!(error.code() == Code::DatabaseFilesLost, "{error:?}");
        for name in lost {
            ensure!(error.message().contains(name), "{name}: {}", error.message());
        }
        ensure!(self.house.line.backups().await?.is_empty(), "nothing is published");
        for attempt in self.house.line.attempts().await? {
            self.house.line.unpin(attempt.id.0).await?;
        }
        Ok(())
    }
}

fn run_in(database: &'static str, sql: &str) -> Statement {
    (database, sql.to_owned())
}

/// Without strategies and with them; the default one where these are not installed.
fn majors() -> Result<Vec<u16>> {
    let mut majors = vec![12, 18];
    majors.retain(|major| PgBin::find(*major).is_ok());
    if majors.is_empty() {
        majors.push(PgBin::default_major()?);
    }
    Ok(majors)
}

const INSERT: &str = "INSERT INTO t SELECT generate_series(1001, 2000)";

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_would_lose_a_database_copied_meanwhile_is_given_up() -> Result<()> {
    for major in majors()? {
        let story = Story::of(major).await?;
        // The template is gone when it is to be read; a copy of the copy is lost with it.
        let dropped = vec![
            story.copy("old", "first"),
            run_in("postgres", "DROP DATABASE old"),
            story.copy("first", "second"),
        ];
        story.is_given_up(dropped, &["\"first\"", "\"second\"", "\"old\""]).await?;

        // It is read with rows that it did not have when it was copied.
        let changed = vec![story.copy("shop", "third"), run_in("shop", INSERT)];
        story.is_given_up(changed, &["\"third\"", "\"shop\""]).await?;

        let directory = TestDir::new()?;
        let place = directory.join("place");
        story.house.pg.owner().create_dir(&place, 0o700)?;
        let create = format!("CREATE TABLESPACE place LOCATION '{}'", place.display());
        story.house.pg.psql(&create)?;
        let moved = vec![run_in("postgres", "ALTER DATABASE shop SET TABLESPACE place")];
        story.is_given_up(moved, &["\"shop\""]).await?;

        story.backup_while(Vec::new()).await.context("all that was before the next backup")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_copied_from_files_as_they_stay_is_restored_from_a_backup_made_meanwhile()
-> Result<()> {
    for major in majors()? {
        let story = Story::of(major).await?;
        story
            .backup_while(vec![
                // Written to just before it is copied, in the same segment.
                run_in("shop", INSERT),
                story.copy("shop", "first"),
                run_in("first", INSERT),
                // Made while the backup runs, so that replay makes it again.
                run_in("postgres", "CREATE DATABASE new"),
                run_in("new", "CREATE TABLE t AS SELECT generate_series(1, 3000) AS i"),
                story.copy("new", "second"),
                run_in("postgres", "DROP DATABASE new"),
                // What is lost is not missed.
                story.copy("old", "third"),
                run_in("postgres", "DROP DATABASE old"),
                run_in("postgres", "DROP DATABASE third"),
            ])
            .await?;
        story.house.restore(&story.house.request("restored", Target::BackupOnly)).await?;
        let restored = story.house.open("restored")?;
        for (database, rows) in [("shop", "2000"), ("first", "3000"), ("second", "3000")] {
            let found = restored.connection().psql_in(database, "SELECT count(*) FROM t")?;
            ensure!(found == rows, "{major}: {database} has {found} rows");
        }
    }
    Ok(())
}
