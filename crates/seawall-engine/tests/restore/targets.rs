use anyhow::{Context, Result, ensure};
use seawall_core::{Code, TimelineId};
use seawall_engine::restore::{Point, Target, TimelineChoice, plan_restore};
use seawall_engine::restored::{Mode, Stop};
use seawall_testkit::ledger::Bound;
use seawall_testkit::{Ledger, PgBin, PgCluster, StopMode};

use crate::house::{House, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_target_is_met_exactly() -> Result<()> {
    let house = House::new().await?;
    let running = Ledger::start(&house.pg, 2)?;
    running.wait_for(20, LIMIT)?;
    let backup = house.backup().await?;
    running.wait_for(20, LIMIT)?;
    let moment = running.mark()?;
    running.wait_for(20, LIMIT)?;
    let named = house.pg.psql("SELECT pg_create_restore_point('before the upgrade')")?.parse()?;
    running.wait_for(20, LIMIT)?;
    let log = running.stop()?;
    house.archive_everything().await?;

    let later = log.entries().iter().filter(|entry| entry.lsn_before > moment.lsn);
    let committed = later.filter_map(|entry| entry.committed).nth(5).context("a transaction")?;
    let time = moment.time.parse()?;
    let cases = [
        ("time", Target::To(Point::Time(time)), Bound::Time(moment.time_us)),
        ("lsn", Target::Before(Point::Lsn(moment.lsn)), Bound::Lsn(moment.lsn)),
        (
            "xid",
            Target::To(Point::Xid(committed.xid)),
            Bound::Xid { xid: committed.xid, inclusive: true },
        ),
        (
            "before-xid",
            Target::Before(Point::Xid(committed.xid)),
            Bound::Xid { xid: committed.xid, inclusive: false },
        ),
        ("latest", Target::Latest, Bound::Everything),
        ("backup", Target::BackupOnly, Bound::Lsn(backup.stop_lsn)),
    ];
    for (room, target, bound) in cases {
        let report = house.restore(&house.request(room, target)).await?;
        ensure!(report.plan.backup.ulid == backup.id.0);
        let verdict = house.prove(room, &log, &bound).context(room)?;
        ensure!(verdict.required > 0, "{room}: {verdict:?}");
        ensure!(verdict.forbidden > 0 || room == "latest", "{room}: {verdict:?}");
    }
    let point = Target::To(Point::Name("before the upgrade".to_owned()));
    house.restore(&house.request("name", point)).await?;
    let verdict = house.prove("name", &log, &Bound::Lsn(named))?;
    ensure!(verdict.required > 0 && verdict.forbidden > 0, "{verdict:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e61_targets_outside_what_is_archived_are_refused_before_a_byte_is_written() -> Result<()> {
    let house = House::new().await?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    let early: jiff::Timestamp = house.pg.psql("SET timezone = 'UTC'; SELECT now()")?.parse()?;
    let early_lsn = house.pg.current_lsn()?;
    let backup = house.backup().await?;
    house.pg.psql("INSERT INTO t VALUES (1)")?;
    house.archive_everything().await?;
    for target in [
        Target::To(Point::Time(early)),
        Target::To(Point::Lsn(early_lsn)),
        Target::To(Point::Lsn("0/0".parse()?)),
        Target::Before(Point::Lsn("0/1".parse()?)),
        Target::To(Point::Time("2100-01-01T00:00:00Z".parse()?)),
        Target::To(Point::Lsn("F/0".parse()?)),
        Target::To(Point::Xid(4_000_000_000)),
        Target::To(Point::Name("no such point".to_owned())),
    ] {
        let request = house.request("room", target.clone());
        let Err(error) = plan_restore(&house.line, &house.wal, &request).await else {
            anyhow::bail!("{target:?} was planned");
        };
        ensure!(error.code() == Code::TargetUnreachable, "{target:?}: {error:?}");
        ensure!(error.hint().is_some(), "{error:?}");
    }
    ensure!(!house.room("room").exists());
    // The position right after all that is archived is no mistake: it is what a user reads off.
    let now = house.pg.psql("SELECT pg_current_wal_insert_lsn()")?.parse()?;
    let request = house.request("room", Target::To(Point::Lsn(now)));
    let planned = plan_restore(&house.line, &house.wal, &request).await?;
    ensure!(matches!(planned.plan().stop, Stop::After { .. }), "{:?}", planned.plan().text());
    ensure!(planned.plan().backup.ulid == backup.id.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_primary_goes_on_and_both_timelines_can_be_restored() -> Result<()> {
    let mut house = House::new().await?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup().await?;
    house.pg.psql("INSERT INTO t VALUES (1)")?;
    let fork = house.pg.current_lsn()?;
    house.pg.psql("INSERT INTO t VALUES (2)")?;
    house.archive_everything().await?;
    house.pg.stop(StopMode::Fast)?;

    let mut request = house.request("primary", Target::Before(Point::Lsn(fork)));
    request.mode = Mode::Primary;
    house.restore(&request).await?;
    let mut primary = house.open("primary")?;
    primary.psql("INSERT INTO t VALUES (3); SELECT pg_switch_wal()")?;
    primary.stop(StopMode::Fast)?;
    house.wait_for_timeline(TimelineId(2)).await?;

    let report = house.restore(&house.request("current", Target::Latest)).await?;
    let path: Vec<u32> = report.plan.path.iter().map(|span| span.timeline.0).collect();
    ensure!(path == [1, 2] && report.plan.path[0].end.is_some(), "{:?}", report.plan.text());
    let current = house.open("current")?;
    ensure!(current.psql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t")? == "1,3");

    let mut request = house.request("abandoned", Target::Latest);
    request.timeline = TimelineChoice::Id(TimelineId(1));
    let report = house.restore(&request).await?;
    ensure!(report.plan.timeline == TimelineId(1));
    let abandoned = house.open("abandoned")?;
    ensure!(abandoned.psql("SELECT string_agg(i::text, ',' ORDER BY i) FROM t")? == "1,2");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_prepared_and_has_not_ended_is_told_with_how_to_have_it() -> Result<()> {
    let builder = PgCluster::builder(PgBin::default_major()?).without_fsync();
    let house = House::with(builder.config("max_prepared_transactions", "2")).await?;
    house.pg.psql("CREATE TABLE t (i int)")?;
    house.backup().await?;
    let prepare = "BEGIN; INSERT INTO t VALUES (1); SELECT txid_current(); \
                   PREPARE TRANSACTION 'it''s open'";
    let xid = house.pg.psql(prepare)?.parse()?;
    house.archive_everything().await?;
    for target in [Target::To(Point::Xid(xid)), Target::Before(Point::Xid(xid))] {
        let request = house.request("room", target);
        let Err(error) = plan_restore(&house.line, &house.wal, &request).await else {
            anyhow::bail!("it has not ended");
        };
        ensure!(error.code() == Code::TargetUnreachable, "{error:?}");
        ensure!(
            error.message().contains("as 'it''s open', and has neither committed"),
            "{error:?}"
        );
        let hint = format!("{:?}", error.hint().context("a hint")?);
        let lsn = hint.split_once("--to lsn:").context("an LSN")?.1;
        let lsn = lsn.split_once('`').context("its end")?.0.parse()?;
        if house.room("prepared").exists() {
            continue;
        }
        house.restore(&house.request("prepared", Target::To(Point::Lsn(lsn)))).await?;
        let restored = house.open("prepared")?;
        restored.psql("COMMIT PREPARED 'it''s open'")?;
        ensure!(restored.psql("SELECT count(*) FROM t")? == "1");
    }
    Ok(())
}
