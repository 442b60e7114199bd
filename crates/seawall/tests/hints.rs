//! Hints that help whoever types them: on a machine that has nothing, as root, after a rotation.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use seawall_testkit::Output;
use support::{Arguments, Protected, quiet_cluster, seawall, tells};

fn hint(output: &Output) -> Result<&str> {
    let hint = output.stderr.lines().find_map(|line| line.trim().strip_prefix("hint: "));
    hint.with_context(|| output.stderr.clone())
}

#[test]
fn without_a_configuration_every_command_says_how_to_go_on_without_one() -> Result<()> {
    let seawall = seawall()?;
    for line in [
        "list",
        "info",
        "show latest",
        "status",
        "verify",
        "wal list",
        "key show",
        "restore --into /nowhere/x",
        "check",
        "backup",
    ] {
        for config in ["", " --config /nowhere/seawall.toml"] {
            let refused = seawall.run(format!("{line}{config}").split_whitespace())?;
            ensure!(refused.code().is_some_and(|code| code != 0), "{line}: {refused:?}");
            let hint = hint(&refused)?;
            let ways = ["`--kit FILE`", "`--repo URL --key FILE`"];
            ensure!(ways.iter().all(|way| hint.contains(way)), "{line}{config}: {hint}");
        }
    }
    Ok(())
}

/// What a hint says to type has to work where it is typed.
#[test]
fn commands_in_hints_carry_the_flags_that_stand_in_for_a_configuration() -> Result<()> {
    let house = Protected::start()?;
    house.backup()?;
    let places = &house.places;
    let kit = places.kit.display().to_string();
    let (url, key) = (places.repository.display().to_string(), places.key.display().to_string());
    let into = house.room("never").display().to_string();
    for flags in [vec!["--kit", &kit], vec!["--repo", &url, "--key", &key]] {
        let call =
            house.seawall.command(["restore", "main", "--into", &into, "--to", "xid:4000000"]);
        let refused = call.args(flags.iter().copied()).fail(3)?;
        let hint = hint(&refused)?;
        let (_, typed) = hint.split_once("`seawall info").with_context(|| hint.to_owned())?;
        let (typed, _) = typed.split_once('`').context("an open quote")?;
        let call = house.seawall.command(["info"]).args(typed.split_whitespace());
        ensure!(call.succeed()?.stdout.contains("main"), "{typed}");
    }
    Ok(())
}

#[test]
fn a_file_that_the_server_s_user_cannot_read_says_whom_it_must_belong_to() -> Result<()> {
    let house = Protected::with(quiet_cluster()?, true)?;
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let owner = house.pg.owner().name().to_owned();
    let roots = |path: &Path| std::os::unix::fs::chown(path, Some(0), Some(0));
    for (path, as_root) in
        [(&house.places.key, true), (&house.places.key, false), (&house.places.config, false)]
    {
        roots(path)?;
        let call = house.command(["list"]);
        let refused = if as_root { call.as_test_user() } else { call }.fail(2)?;
        let helps = format!("chown {owner}: {}`", path.display());
        ensure!(hint(&refused)?.contains(&helps), "{helps}: {}", refused.stderr);
        house.pg.owner().chown(path)?;
        house.command(["list"]).succeed()?;
    }
    // It belongs to the right one, and its directory lets nobody through.
    let locked = house.places.rooms.join("locked");
    fs::create_dir(&locked)?;
    let key = locked.join("key");
    fs::rename(&house.places.key, &key)?;
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700))?;
    roots(&locked)?;
    let text = fs::read_to_string(&house.places.config)?;
    let moved = text.replace(&house.places.key.display().to_string(), &key.display().to_string());
    fs::write(&house.places.config, moved)?;
    let refused = house.command(["list"]).as_test_user().fail(2)?;
    ensure!(hint(&refused)?.contains("may not pass through"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn a_key_from_before_a_rotation_is_told_when_that_was() -> Result<()> {
    let house = Protected::start()?;
    let second = house.room("second.key").display().to_string();
    house.command(["key", "add", &second, "--label", "safe"]).succeed()?;
    let rotate = house.command(["key", "rotate", "--yes", "--key", &second]).succeed()?;
    tells(&rotate, "init")?;
    tells(&rotate, "recovery kit")?;
    // What archives has the other key, and is told before it is too late.
    tells(&rotate, &house.places.config.display().to_string())?;

    let shown = house.command(["key", "show", "--json", "--key", &second]).succeed()?.json()?;
    let slots = shown["slots"].as_array().context("slots")?;
    let newest = slots.iter().find(|slot| slot["epoch"] == 2).context("epoch 2")?;
    ensure!(newest["label"] == "safe" && newest["opened"] == true, "{shown}");
    let first = slots.iter().find(|slot| slot["label"] == "init").context("the first")?;
    ensure!(first["opened"] == false, "{shown}");
    let date = newest["created_at"].as_str().and_then(|date| date.get(..16)).context("a date")?;
    for flags in [vec!["--config"], vec!["--kit"]] {
        let file = if flags[0] == "--kit" { &house.places.kit } else { &house.places.config };
        let refused = house.seawall.command(["list"]).args(flags).arg(file).fail(2)?;
        tells(&refused, "SW0303")?;
        tells(&refused, &date.replace('T', " "))?;
    }
    Ok(())
}

/// Whoever copied a key or kit has that key for good: only another one shuts them out.
#[test]
fn a_key_that_leaked_is_shut_out_as_the_guide_says_and_a_rotation_with_it_says_that_it_is_not()
-> Result<()> {
    let house = Protected::start()?;
    let (leaked, stolen) = (house.room("leaked.kit"), house.room("stolen.kit"));
    for copy in [&leaked, &stolen] {
        fs::copy(&house.places.kit, copy)?;
        house.pg.owner().chown(copy)?;
    }
    fs::set_permissions(&leaked, fs::Permissions::from_mode(0o644))?;
    let (leaked, stolen) = (leaked.display().to_string(), stolen.display().to_string());
    let refused = house.seawall.command(["key", "rotate", "--kit", &leaked]).fail(5)?;
    tells(&refused, "SW0313")?;
    ensure!(hint(&refused)?.contains("a rotation with this one shuts nobody out"), "{refused:?}");
    let first = hint(&refused)?.find("`seawall key add FILE");
    let then = hint(&refused)?.find("`seawall key rotate");
    ensure!(first.is_some() && first < then, "{}", refused.stderr);

    let warned = house.seawall.command(["key", "rotate", "--kit", &stolen]).succeed()?;
    tells(&warned, "every copy of this key and its kits")?;
    tells(&warned, &stolen)?;
    house.seawall.command(["list", "--kit", &stolen]).succeed()?;

    let new = house.room("new.key").display().to_string();
    house.command(["key", "add", &new, "--label", "after the leak"]).succeed()?;
    let text = fs::read_to_string(&house.places.config)?;
    fs::write(&house.places.config, text.replace(&house.places.key.display().to_string(), &new))?;
    house.command(["key", "rotate", "--yes", "--key", &new]).succeed()?;
    let kit = house.room("new.kit").display().to_string();
    house.command(["key", "kit", &kit]).succeed()?;
    let shown = house.command(["key", "show", "--json"]).succeed()?.json()?;
    for slot in shown["slots"].as_array().context("slots")? {
        if slot["opened"] == false {
            house.command(["key", "remove", slot["slot"].as_str().context("slot")?]).succeed()?;
        }
    }
    house.archive_everything()?;
    house.backup()?;
    house.seawall.command(["list", "--kit", &kit]).succeed()?;
    tells(&house.seawall.command(["list", "--kit", &stolen]).fail(2)?, "SW0303")
}

#[test]
fn a_key_that_cannot_be_added_is_not_left_behind_and_the_hint_names_one_that_works() -> Result<()> {
    let house = Protected::start()?;
    let second = house.room("second.key").display().to_string();
    house.command(["key", "add", &second]).succeed()?;
    house.command(["key", "rotate", "--yes", "--key", &second]).succeed()?;
    let kit = house.places.kit.display().to_string();
    let third = house.room("third.key");
    let add = ["key", "add", &third.display().to_string(), "--kit", &kit];
    let refused = house.seawall.command(add).fail(2)?;
    tells(&refused, "SW0303")?;
    ensure!(!third.exists(), "a key that opens nothing was left");
    let hint = hint(&refused)?;
    ensure!(hint.contains("--key KEY-THAT-WORKS`") && !hint.contains(&kit), "{hint}");
    Ok(())
}

#[test]
fn rotation_asks_about_keys_and_not_about_a_plan() -> Result<()> {
    let house = Protected::start()?;
    let second = house.room("second.key").display().to_string();
    house.command(["key", "add", &second, "--label", "safe"]).succeed()?;
    let refused = house.command(["key", "rotate"]).fail(5)?;
    tells(&refused, "SW0610")?;
    tells(&refused, "safe")?;
    ensure!(!refused.stderr.contains("plan"), "{}", refused.stderr);
    let shown = house.command(["key", "show"]).succeed()?.stdout;
    ensure!(!shown.contains(" 2  "), "it was rotated: {shown}");
    Ok(())
}

#[test]
fn a_key_that_root_adds_belongs_to_whoever_will_use_it() -> Result<()> {
    let house = Protected::with(quiet_cluster()?, true)?;
    let second = house.room("second.key");
    let add = house.command(["key", "add"]).arg(&second);
    let added = add.as_test_user().succeed()?;
    let about = fs::metadata(&second)?;
    let owner = fs::metadata(&house.places.key)?.uid();
    ensure!(about.uid() == owner && about.mode() & 0o777 == 0o600, "{about:?}");
    tells(&added, house.pg.owner().name())?;
    house.command(["list", "--key"]).arg(&second).succeed()?;
    Ok(())
}
