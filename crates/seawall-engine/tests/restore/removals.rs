use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use seawall_engine::restore::{Point, Target, plan_restore};
use seawall_engine::restored::{Removal, Removals, Removed};
use seawall_testkit::{PgBin, PgCluster, TestDir};

use crate::house::House;

/// What was dropped, one after another, and what was not.
struct Story {
    house: House,
    /// Transactions that dropped or truncated a table of database `app`.
    truncated: u32,
    dropped: u32,
    app: u32,
    shop: u32,
}

impl Story {
    async fn of(major: u16) -> Result<Self> {
        let house = House::with(PgCluster::builder(major).without_fsync()).await?;
        house.pg.psql("CREATE DATABASE app")?;
        house.pg.psql("CREATE DATABASE shop")?;
        let sql = "CREATE TABLE t AS SELECT generate_series(1, 100) AS i";
        house.pg.connection().psql_in("app", sql)?;
        house.pg.connection().psql_in("shop", sql)?;
        house.backup().await?;
        let oid = |name: &str| -> Result<u32> {
            let oid = format!("SELECT oid FROM pg_database WHERE datname = '{name}'");
            Ok(house.pg.psql(&oid)?.parse()?)
        };
        let (app, shop) = (oid("app")?, oid("shop")?);
        let xid = |database: &str, sql: &str| -> Result<u32> {
            let sql = format!("BEGIN; {sql}; SELECT txid_current(); COMMIT");
            Ok(house.pg.connection().psql_in(database, &sql)?.parse()?)
        };
        // A temporary table, rows, and files of a transaction that is rolled back.
        house.pg.connection().psql_in("app", "CREATE TEMPORARY TABLE x (i int); DROP TABLE x")?;
        house.pg.connection().psql_in("app", "BEGIN; CREATE TABLE x (i int); ROLLBACK")?;
        let truncated = xid("app", "TRUNCATE t")?;
        house.pg.connection().psql_in("app", "INSERT INTO t VALUES (1); DELETE FROM t")?;
        let dropped = xid("app", "DROP TABLE t")?;
        house.pg.psql("DROP DATABASE shop")?;
        house.pg.connection().psql_in("app", "CREATE TABLE u (i int)")?;
        house.archive_everything().await?;
        Ok(Self { house, truncated, dropped, app, shop })
    }

    async fn removals(&self, target: Target) -> Result<(Removals, String)> {
        let request = self.house.request("planned", target);
        let planned = plan_restore(&self.house.line, &self.house.wal, &request).await?;
        Ok((planned.plan().removals.clone(), format!("{:?}", planned.plan().text())))
    }
}

fn is(removal: Option<&Removal>, removed: Removed, xid: u32, database: (u32, &str)) -> Result<()> {
    let removal = removal.context("none is told")?;
    let known = (removal.database, removal.database_name.as_deref());
    ensure!(removal.removed == removed && removal.xid == xid, "{removal:?}");
    ensure!(known == (Some(database.0), Some(database.1)), "{removal:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_names_what_was_dropped_before_its_target_and_after() -> Result<()> {
    for major in PgBin::installed() {
        let story = Story::of(major).await?;
        let app = (story.app, "app");
        let (told, text) = story.removals(Target::Latest).await?;
        let [database, dropped, truncated] = told.kept.as_slice() else {
            anyhow::bail!("{major}: {told:?}");
        };
        is(Some(database), Removed::Database, database.xid, (story.shop, "shop"))?;
        is(Some(dropped), Removed::Relations, story.dropped, app)?;
        is(Some(truncated), Removed::Relations, story.truncated, app)?;
        ensure!(told.left_out.is_empty() && told.reached_end, "{told:?}");
        ensure!(text.contains(&format!("`--before xid:{}` undoes it", story.dropped)), "{text}");
        ensure!(database.time > dropped.time && dropped.time.is_some(), "{told:?}");

        // To just before the drop: the database is still there afterwards, the truncation is not undone.
        let target = Target::Before(Point::Xid(story.dropped.into()));
        let (told, text) = story.removals(target).await?;
        is(told.kept.first(), Removed::Relations, story.truncated, app)?;
        is(told.left_out.first(), Removed::Relations, story.dropped, app)?;
        is(told.left_out.get(1), Removed::Database, database.xid, (story.shop, "shop"))?;
        ensure!(told.kept.len() == 1 && told.left_out.len() == 2, "{major}: {told:?}");
        ensure!(text.contains("drops kept") && text.contains("drops undone"), "{text}");
    }
    Ok(())
}

/// The commit of DROP DATABASE comes after the files are gone: just before it is too late.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_database_is_whole_at_the_target_that_the_plan_names() -> Result<()> {
    for major in [12, PgBin::default_major()?, 18] {
        if PgBin::find(major).is_err() {
            continue;
        }
        let story = Story::of(major).await?;
        let (told, _) = story.removals(Target::Latest).await?;
        let drop = told.kept.first().context("no drop")?;

        let too_late = Target::Before(Point::Xid(drop.xid.into()));
        let request = story.house.request("planned", too_late);
        let planned = plan_restore(&story.house.line, &story.house.wal, &request).await?;
        let warnings = format!("{:?}", planned.plan().warnings);
        ensure!(warnings.contains(&format!("`--before {}` stops", drop.before)), "{warnings}");

        let lsn = drop.before.strip_prefix("lsn:").context("an LSN")?.parse()?;
        let request = story.house.request("whole", Target::Before(Point::Lsn(lsn)));
        let report = story.house.restore(&request).await?;
        ensure!(report.plan.warnings.is_empty(), "{:?}", report.plan.warnings);
        let whole = story.house.open("whole")?;
        ensure!(whole.connection().psql_in("shop", "SELECT count(*) FROM t")? == "100", "{major}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_moved_or_never_came_to_be_is_not_told_as_removed() -> Result<()> {
    for major in [12, 18] {
        if PgBin::find(major).is_err() {
            continue;
        }
        let house = House::with(PgCluster::builder(major).without_fsync()).await?;
        let directory = TestDir::new()?;
        let place = directory.join("place");
        house.pg.owner().create_dir(&place, 0o700)?;
        house.pg.psql(&format!("CREATE TABLESPACE place LOCATION '{}'", place.display()))?;
        house.pg.psql("CREATE DATABASE app")?;
        house.pg.psql("CREATE DATABASE shop")?;
        house.pg.connection().psql_in("shop", "CREATE TABLE t (i int) TABLESPACE place")?;
        house.backup().await?;
        // PostgreSQL cannot make a second directory there.
        let version = fs::read_dir(&place)?.next().context("the version's directory")??.path();
        fs::set_permissions(&version, Permissions::from_mode(0o500))?;
        let created = house.pg.psql("CREATE DATABASE copy TEMPLATE shop");
        fs::set_permissions(&version, Permissions::from_mode(0o700))?;
        ensure!(created.is_err(), "{major}: it was to fail");
        house.pg.psql("ALTER DATABASE app SET TABLESPACE place")?;
        house.archive_everything().await?;
        let request = house.request("planned", Target::Latest);
        let planned = plan_restore(&house.line, &house.wal, &request).await?;
        let (removals, warnings) = (&planned.plan().removals, &planned.plan().warnings);
        ensure!(
            removals.kept.is_empty() && warnings.is_empty(),
            "{major}: {removals:?} {warnings:?}"
        );
    }
    Ok(())
}
