use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use seawall_core::Code;
use seawall_engine::restore::{Target, plan_restore};
use seawall_engine::restored::{Mode, TablespaceMapping};
use seawall_testkit::Ledger;
use seawall_testkit::ledger::Bound;

use crate::house::{House, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn tablespaces_go_where_they_are_mapped_and_never_onto_production() -> Result<()> {
    let house = House::new().await?;
    let place = house.pg.scratch().join("space");
    house.pg.owner().create_dir(&place, 0o700)?;
    house.pg.psql(&format!("CREATE TABLESPACE space LOCATION '{}'", place.display()))?;
    house.pg.psql(
        "CREATE TABLE far TABLESPACE space AS SELECT i, repeat('x', 500) FROM generate_series(1, 5000) i",
    )?;
    house.backup().await?;
    house.pg.psql("INSERT INTO far SELECT 0, 'after the backup'")?;
    house.archive_everything().await?;

    let unmapped = house.restore(&house.request("room", Target::Latest)).await;
    let error = unmapped.expect_err("production's own place");
    ensure!(error.code() == Code::DirectoryNotEmpty, "{error:?}");
    ensure!(format!("{:?}", error.hint()).contains("--map-tablespace"), "{error:?}");
    ensure!(!house.room("room").exists(), "something was written");

    let mut request = house.request("room", Target::Latest);
    let new = house.room("space");
    request.tablespaces = vec![TablespaceMapping { old: place, new: new.clone() }];
    house.restore(&request).await?;
    house.give_away(&new);
    let restored = house.open("room")?;
    ensure!(restored.psql("SELECT count(*) FROM far")? == "5001");
    let location = restored
        .psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'space'")?;
    ensure!(location == new.display().to_string(), "{location}");
    ensure!(house.pg.psql("SELECT count(*) FROM far")? == "5001");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e20_a_clone_does_not_archive_and_a_primary_does() -> Result<()> {
    let house = House::new().await?;
    house.pg.psql("ALTER SYSTEM SET synchronous_standby_names = ''")?;
    house.backup().await?;
    house.archive_everything().await?;
    house.restore(&house.request("clone", Target::Latest)).await?;
    let clone = house.open("clone")?;
    ensure!(clone.psql("SHOW archive_mode")? == "off");
    ensure!(clone.psql("SHOW max_logical_replication_workers")? == "0");
    let archived = fs::read_dir(&house.archive)?.count();
    clone.psql("CREATE TABLE t (); SELECT pg_switch_wal()")?;
    clone.psql("CHECKPOINT")?;
    ensure!(fs::read_dir(&house.archive)?.count() == archived, "the clone archived something");

    let mut request = house.request("primary", Target::Latest);
    request.mode = Mode::Primary;
    let report = house.restore(&request).await?;
    let warning = format!("{:?}", report.plan.warnings.first());
    ensure!(warning.contains("old server must not run"), "{warning}");
    let primary = house.open("primary")?;
    ensure!(primary.psql("SHOW archive_mode")? == "on");
    ensure!(primary.psql("SHOW archive_command")?.contains(&house.archive.display().to_string()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e57_a_directory_that_holds_anything_is_left_alone() -> Result<()> {
    let house = House::new().await?;
    house.backup().await?;
    house.archive_everything().await?;
    let room = house.room("room");
    fs::create_dir(&room)?;
    fs::write(room.join("thesis.txt"), "years of work")?;
    let refused =
        house.restore(&house.request("room", Target::Latest)).await.expect_err("occupied");
    ensure!(refused.code() == Code::DirectoryNotEmpty);
    ensure!(fs::read_to_string(room.join("thesis.txt"))? == "years of work");

    let mut onto_itself = house.request("room", Target::Latest);
    onto_itself.into = house.pg.data_directory().to_owned();
    let Err(error) = plan_restore(&house.line, &house.wal, &onto_itself).await else {
        anyhow::bail!("a restore onto the running cluster was planned");
    };
    ensure!(error.code() == Code::PostmasterRunning, "{error:?}");
    ensure!(house.pg.psql("SELECT 1")? == "1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_and_large_and_sparse_files_come_back_with_their_modes() -> Result<()> {
    let house = House::new().await?;
    house.pg.psql(
        "CREATE TABLE large AS SELECT i, md5(i::text) || md5((i + 1)::text) AS v FROM generate_series(1, 400000) i; \
         CREATE INDEX ON large (v); CREATE TABLE emptied AS SELECT * FROM large; DELETE FROM emptied; VACUUM emptied",
    )?;
    for table in 0..60 {
        house.pg.psql(&format!("CREATE TABLE small_{table} AS SELECT generate_series(1, 50) i"))?;
    }
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(10, LIMIT)?;
    house.backup().await?;
    running.wait_for(10, LIMIT)?;
    let log = running.stop()?;
    house.archive_everything().await?;
    let sum = "SELECT count(*), sum(hashtext(v)) FROM large";
    let expected = house.pg.psql(sum)?;
    house.restore(&house.request("room", Target::Latest)).await?;
    ensure!(fs::metadata(house.room("room"))?.mode() & 0o7777 == 0o700);
    ensure!(fs::metadata(house.room("room").join("base"))?.mode() & 0o7777 == 0o700);
    house.prove("room", &log, &Bound::Everything)?;
    let restored = house.open("room")?;
    ensure!(restored.psql(sum)? == expected);
    Ok(())
}
