//! What is kept of a real server's backups, and what people say of them.

mod support;

use std::fs;

use anyhow::{Context, Result, ensure};
use seawall_testkit::{PgBin, PgCluster};
use serde_json::{Value, json};
use support::{Arguments, Protected, tells};

/// A server with so many backups, some WAL behind each; their ids.
fn house_with(major: u16, backups: usize) -> Result<(Protected, Vec<String>)> {
    let builder = PgCluster::builder(major).config("autovacuum", "off");
    let house = Protected::with(builder, false)?;
    house.pg.psql("CREATE TABLE t (a int)")?;
    let mut ids = Vec::new();
    for _ in 0..backups {
        let backup = house.backup()?;
        ids.push(backup["id"].as_str().context("id")?.to_owned());
        for _ in 0..2 {
            house.pg.psql("INSERT INTO t SELECT generate_series(1, 1000)")?;
            house.archive_everything()?;
        }
    }
    Ok((house, ids))
}

/// One backup, as `show --json` has it.
fn shown(house: &Protected, id: &str) -> Result<Value> {
    house.command(["show", id, "--json"]).succeed()?.json()
}

/// What `prune --dry-run` says of the only line.
fn planned(house: &Protected) -> Result<Value> {
    let report = house.command(["prune", "--dry-run", "--json"]).succeed()?.json()?;
    let lines = report["repositories"][0]["lines"].as_array().context("lines")?;
    ensure!(lines.len() == 1 && report["cluster"] == "main", "{report}");
    Ok(lines[0].clone())
}

/// The backups that a plan lets go.
fn going(plan: &Value) -> Result<Vec<&str>> {
    let backups = plan["plan"]["backups"].as_array().context("backups")?;
    let going = backups.iter().filter(|backup| backup["fate"] == "go");
    going.map(|backup| backup["id"].as_str().context("id")).collect()
}

/// The backup that a restore would take by itself, or when it is told to.
fn restored_from<'a>(house: &Protected, more: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let plan = house.plan(["--backup-only"].into_iter().chain(more))?;
    plan["backup"]["id"].as_str().map(str::to_owned).context("backup")
}

#[test]
fn backups_are_held_noted_and_deleted_and_what_goes_is_told_with_why() -> Result<()> {
    for major in [PgBin::installed().first().copied().context("a major")?, PgBin::default_major()?]
    {
        let (house, ids) = house_with(major, 3)?;
        let [first, second, third] = ids.as_slice() else { anyhow::bail!("three backups") };

        house.command(["hold", first, "--until", "90d", "--reason", "audit"]).succeed()?;
        house.command(["annotate", first, "ticket=17", "by=me"]).succeed()?;
        house.command(["annotate", first, "by="]).succeed()?;
        let held = shown(&house, first)?;
        ensure!(held["held"] == true && held["hold"]["reason"] == "audit", "{held}");
        ensure!(held["annotations"] == json!({ "ticket": "17" }), "{held}");
        let list = house.command(["list"]).succeed()?.stdout;
        ensure!(list.matches("complete, held").count() == 1, "{list}");
        tells(&house.command(["delete", first, "--yes"]).fail(5)?, "SW0613")?;

        // Without a word of retention all stays.
        let plan = planned(&house)?;
        ensure!(going(&plan)?.is_empty() && plan["plan"]["lost"] == json!([]), "{plan}");
        house.configure_repository("retention = { last = 1 }")?;
        let before = house.objects()?;
        let plan = planned(&house)?;
        ensure!(going(&plan)? == [second.as_str()], "{plan}");
        let why = &plan["plan"]["backups"][0]["why"];
        ensure!(*why == json!([{ "rule": "held" }]), "{plan}");
        let wal = plan["plan"]["wal"].as_array().context("wal")?;
        let goes = |fate: &str| wal.iter().any(|stretch| stretch["fate"] == fate);
        ensure!(goes("go") && goes("keep"), "{plan}");
        ensure!(plan["plan"]["lost"] != json!([]), "{plan}");
        let text = house.command(["prune", "--dry-run"]).succeed()?.stdout;
        for told in ["last 1", "held", "the last good one", "no rule keeps it", "1 backup would go"]
        {
            ensure!(text.contains(told), "no {told:?} in {text}");
        }
        ensure!(house.objects()? == before, "a plan changed the repository");

        // The last good one has to be named.
        for flags in [&["--yes"][..], &["--confirm", second]] {
            let refused = house.command(["delete", third]).args(flags.iter().copied()).fail(5)?;
            ensure!(refused.stderr.contains("SW061"), "{}", refused.stderr);
        }
        ensure!(restored_from(&house, [])? == *third);
        house.command(["delete", third, "--confirm", third]).succeed()?;
        ensure!(restored_from(&house, [])? == *second);
        ensure!(restored_from(&house, ["--backup", third])? == *third, "named, it is used");
        let list = house.command(["list"]).succeed()?.stdout;
        ensure!(list.matches("complete, to be deleted").count() == 1, "{list}");
        let plan = planned(&house)?;
        ensure!(going(&plan)? == [third.as_str()], "{plan}");
        ensure!(plan["plan"]["backups"][2]["why"] == "asked-for", "{plan}");
        house.command(["hold", third]).succeed()?;
        ensure!(restored_from(&house, [])? == *third);

        for id in [first, third] {
            house.command(["release", id]).succeed()?;
        }
        ensure!(shown(&house, first)?["held"] == false);
        let plan = planned(&house)?;
        ensure!(going(&plan)? == [first.as_str(), second.as_str()], "{plan}");
        house.command(["delete", second, "--yes"]).succeed()?;

        // All of it is as the format says.
        house.command(["verify"]).succeed()?;
        fs::write(house.places.repository.join("lock"), "not ours")?;
        let refused = house.command(["prune", "--dry-run"]).fail(5)?;
        tells(&refused, "SW0614")?;
        ensure!(refused.stderr.contains("lock is no name"), "{}", refused.stderr);
    }
    Ok(())
}

#[test]
fn a_repository_that_is_away_is_told_and_the_others_have_the_mark() -> Result<()> {
    let house = Protected::start()?;
    let second = house.places.repository.with_file_name("second");
    let text = fs::read_to_string(&house.places.config)?;
    let key = house.places.key.with_file_name("second.key");
    let both =
        text.replace("repositories = [\"primary\"]", "repositories = [\"primary\", \"second\"]");
    let section = format!(
        "[repository.second]\nurl = \"file://{}\"\nkey = {{ file = \"{}\" }}\n",
        second.display(),
        key.display()
    );
    fs::write(&house.places.config, format!("{both}\n{section}"))?;
    house
        .command(["init", "main", "--repo", "second", "--new-repository", "--no-kit"])
        .succeed()?;
    let id = house.backup()?["id"].as_str().context("id")?.to_owned();

    let away = second.with_file_name("away");
    fs::rename(&second, &away)?;
    let missed = house.command(["hold", &id, "--json"]).fail(6)?;
    tells(&missed, "repository second")?;
    let told = missed.json()?;
    let errors: Vec<bool> = told["repositories"]
        .as_array()
        .context("repositories")?
        .iter()
        .map(|one| one["error"].is_null())
        .collect();
    ensure!(errors == [true, false], "{told}");
    fs::rename(&away, &second)?;
    let held = |repository: &str| -> Result<Value> {
        let show = ["show", &id, "--json", "--repo", repository];
        Ok(house.command(show).succeed()?.json()?["held"].clone())
    };
    ensure!((held("primary")?, held("second")?) == (json!(true), json!(false)));
    // Held in one of them, it is deleted in none.
    tells(&house.command(["delete", &id, "--confirm", &id]).fail(5)?, "SW0613")?;
    house.command(["hold", &id]).succeed()?;
    ensure!(held("second")? == json!(true));
    Ok(())
}

/// Lets the condemnations of a repository be so old that a prune decides them.
fn let_grace_pass(house: &Protected) -> Result<()> {
    let day = std::time::Duration::from_secs(25 * 3600);
    for path in support::files(&house.places.repository)? {
        if path.components().any(|part| part.as_os_str() == "gc") {
            let file = fs::File::options().append(true).open(&path)?;
            file.set_modified(std::time::SystemTime::now() - day)?;
        }
    }
    Ok(())
}

#[test]
fn what_no_rule_keeps_goes_a_day_later_and_the_rest_is_restored() -> Result<()> {
    let (house, ids) = house_with(PgBin::default_major()?, 3)?;
    let [first, second, third] = ids.as_slice() else { anyhow::bail!("three backups") };
    house.configure_repository("retention = { last = 1 }")?;
    tells(&house.command(["prune"]).fail(5)?, "SW0610")?;
    house.command(["prune", "--yes"]).succeed()?;
    let list = house.command(["list"]).succeed()?.stdout;
    ensure!(list.matches("going, not before").count() == 2, "{list}");
    let refused = house.restore("gone", ["--backup", first, "--dry-run"]).fail(5)?;
    tells(&refused, "SW0314")?;
    house.prove_undamaged()?;

    // Held in time, one comes back.
    house.command(["hold", second]).succeed()?;
    let_grace_pass(&house)?;
    let report = house.command(["prune", "--yes", "--json"]).succeed()?.json()?;
    let pruned = &report["repositories"][0]["lines"][0]["pruned"];
    ensure!(pruned["deleted"]["backups"] == json!([first]), "{report}");
    ensure!(pruned["spared"] == json!([second]), "{report}");
    house.prove_undamaged()?;
    for id in [second, third] {
        ensure!(restored_from(&house, ["--backup", id])? == *id);
    }
    house.restore("restored", []).succeed()?;

    // The next backup, and what it lets go, change nothing of that.
    house.backup()?;
    for _ in 0..2 {
        house.command(["prune", "--yes"]).succeed()?;
        let_grace_pass(&house)?;
    }
    house.prove_undamaged()?;
    let status = house.command(["status", "--json"]).run()?;
    ensure!(status.code() == Some(0), "{status:?}");
    Ok(())
}
