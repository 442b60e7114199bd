//! What the guide says of backups that run by themselves, and of getting room.

mod support;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use seawall_testkit::TestDir;
use support::Protected;

const GUIDE: &str = include_str!("../../../docs/guide/schedule.md");
const README: &str = include_str!("../../../README.md");

/// Where the guide takes the program to be.
const INSTALLED: &str = "/usr/local/bin/seawall";

/// The first block of code in the guide after `words`.
fn block(words: &str) -> Result<&'static str> {
    let (_, after) = GUIDE.split_once(words).with_context(|| format!("no {words}"))?;
    let (_, block) = after.split_once("```").context("no block")?;
    let (block, _) = block.split_once("```").context("an open block")?;
    Ok(block.split_once('\n').context("an empty block")?.1)
}

/// The command lines of Seawall that the guide has behind `words`, without the program's name.
fn commands(words: &str) -> Result<Vec<Vec<&'static str>>> {
    let (_, after) = GUIDE.split_once(words).with_context(|| format!("no {words}"))?;
    let lines = after.lines().filter_map(|line| line.trim().strip_prefix("seawall "));
    Ok(lines.map(|line| line.split_whitespace().collect()).collect())
}

#[test]
fn the_units_of_the_guide_are_valid_and_what_they_run_makes_a_backup() -> Result<()> {
    let service = block("seawall-backup.service`:")?;
    let timer = block("seawall-backup.timer`:")?;
    let house = Protected::start()?;
    let program = house.seawall.path().display().to_string();
    let units = TestDir::new()?;
    fs::write(units.join("seawall-backup.service"), service.replace(INSTALLED, &program))?;
    fs::write(units.join("seawall-backup.timer"), timer)?;
    // Not everywhere where tests run.
    if let Ok(output) = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(units.join("seawall-backup.timer"))
        .arg(units.join("seawall-backup.service"))
        .output()
    {
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !told.contains("seawall-backup"), "{told}");
    }

    let cron = block("/etc/cron.d/seawall`:")?;
    let start =
        service.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("start")?;
    let status = block("seawall-status.service`:")?;
    let status =
        status.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("status")?;
    let mut lines = vec![start, status];
    lines.extend(cron.lines().filter_map(|line| line.split_once(" postgres ")).map(|it| it.1));
    ensure!(lines.len() == 5, "{lines:?}");
    // The status of a pipe is that of its last command, which never fails.
    ensure!(lines.iter().all(|line| !line.contains(" | ")), "{lines:?}");
    for line in lines {
        let line = line.split(" 2>&1").next().context("a command")?;
        let line = line.strip_prefix("s=$(").unwrap_or(line);
        let arguments = line.strip_prefix(INSTALLED).with_context(|| line.to_owned())?;
        house.command(arguments.split_whitespace()).succeed()?;
    }
    let list = house.command(["list", "main", "--json"]).succeed()?.json()?;
    let backups = list["clusters"][0]["backups"].as_array().context("no backups")?;
    let complete = backups.iter().filter(|backup| backup["state"] == "complete");
    ensure!(complete.count() == 2, "{list}");
    Ok(())
}

/// Every step of the guide, with other paths.
#[test]
fn a_new_repository_takes_the_place_of_a_full_one_as_the_guide_says() -> Result<()> {
    let house = Protected::start()?;
    house.pg.psql("CREATE TABLE t AS SELECT generate_series(1, 100) AS i")?;
    house.backup()?;
    let (old, config) = (&house.places.repository, &house.places.config);
    let new = old.with_file_name("next");
    let key = house.places.key.with_file_name("next.key");
    let toml = block("beside the old one:")?;
    let toml = toml.trim_end().lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let (list, section) = toml.split_once("\n\n").context("two sections")?;
    let list = list.strip_prefix("[cluster.main]\n").context("the cluster")?;
    let section = section.replace("file:///srv/seawall-next", &format!("file://{}", new.display()));
    let section = section.replace("/etc/seawall/next.key", &key.display().to_string());
    let before = fs::read_to_string(config)?;
    let only_old = "repositories = [\"primary\"]";
    ensure!(before.contains(only_old), "{before}");
    fs::write(config, format!("{}\n{section}\n", before.replace(only_old, list)))?;

    let run = |arguments: &[&str]| {
        let kit = house.places.kit.with_file_name("main-next.kit").display().to_string();
        let into = house.room("rehearsal").display().to_string();
        let words = arguments.iter().map(|word| match *word {
            "./main-next.kit" => kit.as_str(),
            "/var/lib/postgresql/rehearsal" => into.as_str(),
            // It is started by the test.
            "--start" => "--yes",
            word => word,
        });
        house.command(words).run()
    };
    let steps = commands("2. Make it")?;
    ensure!(steps.len() == 5, "{steps:?}");
    for step in &steps[..3] {
        run(step)?.success()?;
    }
    house.pg.psql("INSERT INTO t VALUES (101)")?;
    house.archive_everything()?;

    let text = fs::read_to_string(config)?;
    let (head, primary) = text.split_once("[repository.primary]").context("the old section")?;
    let (_, next) = primary.split_once("[repository.next]").context("the new section")?;
    let text =
        format!("{}[repository.next]{next}", head.replace(list, "repositories = [\"next\"]"));
    fs::write(config, text)?;
    let checked = run(&steps[3])?;
    ensure!(matches!(checked.code(), Some(0 | 6)), "{checked:?}");
    fs::remove_dir_all(old)?;
    run(&steps[4])?.success()?;
    let restored = support::open_restored(&house.room("rehearsal"))?;
    ensure!(restored.psql("SELECT count(*) FROM t")? == "101");
    Ok(())
}

#[test]
fn the_command_of_the_readme_installs_manual_pages_that_man_shows() -> Result<()> {
    let line = README.lines().find(|line| line.contains(" seawall man ")).context("no command")?;
    let (_, directory) = line.split_once(" seawall man ").context("no directory")?;
    let directory = directory.split_whitespace().next().context("no directory")?;
    let tree = TestDir::new()?;
    let pages = tree.join("man1");
    ensure!(directory.ends_with("/share/man/man1"), "{directory}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    ensure!(command.arg("man").arg(&pages).status()?.success());
    ensure!(pages.join("seawall.1").is_file() && pages.join("seawall-key-rotate.1").is_file());
    // Not everywhere where tests run.
    let mut man = Command::new("man");
    man.env("MANPATH", tree.path()).env("MANPAGER", "cat").env("MANWIDTH", "100");
    if let Ok(shown) = man.arg("seawall-restore").output() {
        let text = String::from_utf8_lossy(&shown.stdout);
        ensure!(text.contains("--before") && text.contains("5 minutes ago"), "{shown:?}");
    }
    Ok(())
}
