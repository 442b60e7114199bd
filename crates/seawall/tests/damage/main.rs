//! Damage to a repository: it is found by `verify`, never restored, and never taken by PostgreSQL
//! for the end of the archive. What PostgreSQL itself does about a damaged archive is shown in
//! `hazards_timelines.rs`.

mod harm;
mod site;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/sweep.rs"]
mod sweep;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harm::{Harm, Kind, Mutation};
use seawall_testkit::Output;
use seawall_testkit::faults::Random;
use site::{Site, names, segment_name, tree};
use support::{Protected, archive_everything, tells};
use sweep::Sweep;

/// Any spoilt object of any kind: `verify` names it and ends with 4. A restore that needs it
/// writes nothing, or, where the harm is in the body of a pack and met while it is written, leaves
/// what cannot start; one that does not need it gives what the whole repository gave. `wal fetch`
/// never claims that a segment does not exist.
///
/// By docs/format.md, 10 the deletion of pins is not noticed, nor is that of objects newer than
/// the newest head; every other object here is older. What only an attempt that died had written
/// may go too: nobody relies on it.
#[test]
fn damage_anywhere_is_found_and_never_restored() -> Result<()> {
    // Every way for every kind once.
    let sweep = Sweep::from_environment(72)?;
    let site = Site::build()?;
    let mut random = Random::new(sweep.seed);
    let mut counts: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    for round in 0..sweep.rounds {
        let mutation =
            site.inventory.draw(round, &mut random, &site.protected.places.repository)?;
        let doing = || format!("round {round}, seed {}: {mutation}", sweep.seed);
        site.renew()?;
        harm::inflict(&mutation, &site.protected.places.repository).with_context(doing)?;
        prove(&site, &mutation, &mut random).with_context(doing)?;
        *counts.entry((format!("{:?}", mutation.kind), mutation.harm.way())).or_default() += 1;
    }
    let counts = counts.into_iter().map(|((kind, way), count)| (format!("{kind}, {way}"), count));
    sweep.write_evidence(&counts.collect())
}

fn prove(site: &Site, mutation: &Mutation, random: &mut Random) -> Result<()> {
    fetched_whole_or_refused(site, mutation, random)?;
    restored_whole_or_not_at_all(site, mutation)?;
    let verified = site.protected.command(["verify"]).run()?;
    if is_exempt(site, mutation) {
        verified.success().context("what nobody relies on is gone, and verify minds")?;
        return Ok(());
    }
    if let Some(code) = does_not_open(mutation) {
        return tells(&verified, code);
    }
    ensure!(verified.code() == Some(4), "verify: {}\n{}", verified.status, verified.stderr);
    let told = format!("{}{}", verified.stdout, verified.stderr);
    let found = match &mutation.harm {
        Harm::Swap(with) => told.contains(&mutation.name) || told.contains(with),
        Harm::Rename(to) => told.contains(&mutation.name) || told.contains(to),
        // A head counts the ranges of consecutive segments: it can say where one is missing, and
        // not which.
        Harm::Delete if mutation.kind == Kind::Wal => told.contains("/wal/hot/"),
        _ => told.contains(&mutation.name),
    };
    ensure!(found, "verify does not name it:\n{told}");
    Ok(())
}

fn is_exempt(site: &Site, mutation: &Mutation) -> bool {
    let unused = mutation.kind == Kind::Pin || site.orphans.contains(&mutation.name);
    mutation.harm == Harm::Delete && unused
}

/// The code of what cannot be told from another trouble: without `format/1` a directory is no
/// repository, and a key slot proves itself by its name alone (docs/format.md, 5).
fn does_not_open(mutation: &Mutation) -> Option<&'static str> {
    match (mutation.kind, &mutation.harm) {
        (Kind::Format, Harm::Delete) => Some("SW0301"),
        (Kind::Key, Harm::Delete) => Some("SW0311"),
        (Kind::Key, Harm::Rename(_)) => Some("SW0303"),
        _ => None,
    }
}

/// The segment that suffers, or any other.
fn fetched_whole_or_refused(site: &Site, mutation: &Mutation, random: &mut Random) -> Result<()> {
    let own = match mutation.kind {
        Kind::Wal => Some(segment_name(&mutation.name)?),
        _ => None,
    };
    let any = random.below(site.segments.len() as u64);
    let by_name = |name: &String| site.segments.iter().find(|(known, _)| known == name);
    let chosen = own.as_ref().and_then(by_name);
    let suffers = chosen.is_some() || matches!(mutation.kind, Kind::Format | Kind::Key);
    let chosen = chosen.or(site.segments.get(usize::try_from(any)?));
    let (name, whole) = chosen.context("no segment")?;
    let (output, bytes) = site.fetch(name)?;
    match output.code() {
        Some(0) => {
            ensure!(!suffers, "{name} was fetched from damage");
            ensure!(bytes.as_ref() == Some(whole), "{name} was fetched with other bytes");
        }
        Some(200..) => ensure!(bytes.is_none(), "{name} was refused and left behind"),
        _ => anyhow::bail!("wal fetch {name}: {}\n{}", output.status, output.stderr),
    }
    Ok(())
}

fn restored_whole_or_not_at_all(site: &Site, mutation: &Mutation) -> Result<()> {
    let target = site.target();
    let output = site.restore()?;
    if output.status.success() {
        let needed = site.needed.contains(&mutation.name);
        ensure!(!needed, "restored although {} needs it:\n{}", site.backup, output.stdout);
        let restored = tree(&target)?;
        let differing: Vec<_> = restored.symmetric_difference(&site.restored).collect();
        ensure!(differing.is_empty(), "restored something else: {differing:?}");
        return Ok(fs::remove_dir_all(target)?);
    }
    ensure!(output.code() != Some(1), "no clear reason:\n{}", output.stderr);
    if !is_empty(&target)? {
        cannot_start(site, mutation, &target, &output)?;
    }
    if target.exists() {
        fs::remove_dir(target)?;
    }
    Ok(())
}

/// Bodies of packs are proven as they are written: nothing else that is spoilt, and no pack of
/// another length, is met that late.
fn cannot_start(site: &Site, mutation: &Mutation, target: &Path, output: &Output) -> Result<()> {
    let in_a_body =
        mutation.kind == Kind::Pack && matches!(mutation.harm, Harm::Flip(_) | Harm::Swap(_));
    ensure!(in_a_body, "refused after writing: {:?}\n{}", names(target)?, output.stderr);
    ensure!(output.code() == Some(4), "{}\n{}", output.status, output.stderr);
    tells(output, "PostgreSQL does not start on ")?;
    ensure!(!target.join("global/pg_control").exists(), "what is incomplete could be started");
    site.protected.command(["discard", "--yes"]).arg(target).succeed()?;
    ensure!(is_empty(target)?, "discard left {:?}", names(target)?);
    Ok(())
}

fn is_empty(directory: &Path) -> Result<bool> {
    Ok(!directory.exists() || fs::read_dir(directory)?.next().is_none())
}

/// A call of `wal fetch` that must not look to PostgreSQL like the end of the archive, and of
/// `wal push` that must not look like success.
fn prove_refused(
    what: &str,
    code: &str,
    call: &dyn Fn(&[&str]) -> Result<Output>,
    segment: &Path,
) -> Result<()> {
    let name = segment.file_name().and_then(|name| name.to_str()).context("no name")?;
    let fetched = segment.with_extension("fetched");
    let fetch = call(&["wal", "fetch", name, &fetched.display().to_string()])?;
    ensure!(fetch.code() >= Some(200), "{what}: wal fetch: {}\n{}", fetch.status, fetch.stderr);
    ensure!(!fetched.exists(), "{what}: wal fetch left a file");
    let push = call(&["wal", "push", &segment.display().to_string()])?;
    ensure!(push.code() > Some(0), "{what}: wal push: {}\n{}", push.status, push.stderr);
    if !code.is_empty() {
        tells(&fetch, code).with_context(|| what.to_owned())?;
        tells(&push, code).with_context(|| what.to_owned())?;
    }
    Ok(())
}

/// There is no way to make a release panic from outside; that `wal fetch` then ends with 201 is
/// tested beside the code that catches it.
#[test]
fn what_keeps_seawall_from_working_is_never_the_end_of_the_archive() -> Result<()> {
    let protected = Protected::start()?;
    archive_everything(&protected.pg)?;
    let names = names(&protected.places.repository)?;
    let range = names.iter().find(|name| matches!(Kind::of(name), Ok(Kind::Wal)));
    let segment = segment_name(range.context("nothing is archived")?)?;
    // PostgreSQL may have recycled its own.
    let file = protected.room(&segment);
    protected.command(["wal", "fetch", &segment]).arg(&file).succeed()?;

    let call = |arguments: &[&str]| protected.command(arguments.iter().copied()).run();
    let bad_flag = |arguments: &[&str]| {
        let arguments = arguments.iter().copied().chain(["--no-such-flag"]);
        protected.command(arguments).run()
    };
    prove_refused("a bad flag", "", &bad_flag, &file)?;
    let no_config = |arguments: &[&str]| {
        let config = ["--config", "/nowhere/seawall.toml"];
        protected.seawall.run(arguments.iter().copied().chain(config))
    };
    prove_refused("no configuration", "SW0003", &no_config, &file)?;

    let places = &protected.places;
    let key = fs::read_to_string(&places.key)?;
    fs::write(&places.key, another_key(&protected)?)?;
    prove_refused("another key", "SW0303", &call, &file)?;
    fs::write(&places.key, "not a key")?;
    prove_refused("a malformed key", "SW0304", &call, &file)?;
    fs::write(&places.key, key)?;

    let config = fs::read_to_string(&places.config)?;
    fs::write(&places.config, format!("{config}\nno_such_key = 1\n"))?;
    prove_refused("an unknown setting", "SW0004", &call, &file)?;
    fs::write(&places.config, &config)?;

    let away = protected.room("away");
    fs::rename(&places.repository, &away)?;
    prove_refused("a repository that is not mounted", "", &call, &file)?;
    // The mount point is there, and what was mounted is not.
    protected.pg.owner().create_dir(&places.repository, 0o700)?;
    prove_refused("an empty directory", "SW0301", &call, &file)?;
    fs::remove_dir(&places.repository)?;
    fs::rename(away, &places.repository)?;
    let fetched = file.with_extension("fetched");
    protected.command(["wal", "fetch", &segment]).arg(&fetched).succeed()?;
    ensure!(fs::read(fetched)? == fs::read(file)?, "the archive changed");
    Ok(())
}

/// The key of another repository.
fn another_key(protected: &Protected) -> Result<String> {
    let directory = protected.room("another");
    protected.pg.owner().create_dir(&directory, 0o755)?;
    let init = protected.seawall.command(["init", "main", "--no-kit", "--connection"]);
    let init = init.arg(protected.pg.connection_string()).arg("--config");
    let init = init.arg(directory.join("etc/seawall.toml")).arg("--repo");
    let init = init.arg(format!("file://{}", directory.join("repository").display()));
    init.timeout(Duration::from_secs(30)).succeed()?;
    Ok(fs::read_to_string(directory.join("etc/primary.key"))?)
}
