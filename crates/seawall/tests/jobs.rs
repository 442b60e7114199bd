//! Jobs for another program: `docs/job.md` is what they are held to.

#[path = "support/jobs.rs"]
mod jobs;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use jobs::{events, of_kind};
use seawall_testkit::{Output, process};
use serde_json::{Value, json};
use support::{LIMIT, Protected, quiet_cluster};

/// The page, and the example of a request in it.
const PAGE: &str = include_str!("../../../docs/job.md");

/// The example, for a cluster of the test.
fn example(protected: &Protected) -> Result<Value> {
    let example = PAGE.split("```json\n").nth(1).and_then(|rest| rest.split("```").next());
    let mut request: Value = serde_json::from_str(example.context("no example")?)?;
    let places = &protected.places;
    request["connection"] = protected.pg.connection_string().into();
    request["repositories"][0]["url"] = places.repository.display().to_string().into();
    let key = request.pointer_mut("/repositories/0/key/file").context("no key")?;
    *key = places.key.display().to_string().into();
    Ok(request)
}

/// Runs a job from a file; its events.
fn run(protected: &Protected, request: &Value) -> Result<(Output, Vec<Value>)> {
    let file = protected.room("request.json");
    fs::write(&file, request.to_string())?;
    // Nothing but the request says where anything is.
    let invocation = protected.seawall.command(["job", "--request"]).arg(&file);
    let output = invocation.run()?;
    let events = events(&output)?;
    Ok((output, events))
}

fn report(events: &[Value]) -> Result<&Value> {
    Ok(&of_kind(events, "report").next().context("no report")?["report"])
}

/// The names in a report, however deep.
fn names(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| std::iter::once(name.clone()).chain(names(value)))
            .collect(),
        Value::Array(values) => values.iter().flat_map(names).collect(),
        _ => BTreeSet::new(),
    }
}

#[test]
fn a_request_from_a_file_gives_the_report_of_the_command_line() -> Result<()> {
    let protected = Protected::with(quiet_cluster()?, false)?;
    protected.backup()?;
    let typed = protected.backup()?;
    let (output, told) = run(&protected, &example(&protected)?)?;
    let output = output.success()?;
    ensure!(told.first().context("nothing")?["event"] == "started", "{}", output.stdout);
    ensure!(told[0]["version"] == 1 && told[0]["job"] == "01KD5Z0M3V7Q4R8S9T1W2X3Y4Z");
    ensure!(told.last() == Some(&json!({"event": "end", "outcome": "done"})), "{}", output.stdout);
    let backup = report(&told)?;
    let mut expected = names(&typed);
    expected.insert("verb".to_owned());
    ensure!(names(backup) == expected, "{backup}\n{typed}");
    ensure!(backup["ulid"] == told[0]["job"], "the backup's id is the job's: {backup}");
    let stages: Vec<_> = of_kind(&told, "stage").map(|event| event["stage"].clone()).collect();
    ensure!(stages.contains(&"copying".into()), "{stages:?}");
    let done = of_kind(&told, "progress").filter_map(|event| event["done_bytes"].as_u64()).max();
    ensure!(done == backup["read_bytes"].as_u64(), "{done:?} {backup}");

    // Asked for once more, it does not make another one.
    let (again, told) = run(&protected, &example(&protected)?)?;
    ensure!(again.code() == Some(5), "{}", again.stdout);
    let error = of_kind(&told, "error").last().context("no error")?;
    ensure!(error["error"]["code"] == "SW0205" && error["error"]["retry"] == "never", "{error}");

    let typed = protected.command(["verify", "--json"]).succeed()?.json()?;
    let mut request = example(&protected)?;
    request["verb"] = json!({"verify": {}});
    let (output, told) = run(&protected, &request)?;
    output.success()?;
    let verified = report(&told)?;
    ensure!(verified["repositories"][0]["report"]["backups"] == 3, "{verified}");
    let mut expected = names(&typed);
    expected.insert("verb".to_owned());
    ensure!(names(verified) == expected, "{verified}\n{typed}");

    let typed = protected.restore("typed", ["--json"]).succeed()?.json()?;
    request["verb"] = json!({"restore": {"into": protected.room("told")}});
    let (output, told) = run(&protected, &request)?;
    output.success()?;
    let restored = report(&told)?;
    let mut expected = names(&typed);
    expected.insert("verb".to_owned());
    // A warning is a sentence where it is typed, and a value here.
    let written: BTreeSet<String> = ["text", "run"].map(str::to_owned).into();
    ensure!(&names(restored) - &written == expected, "{restored}\n{typed}");
    ensure!(restored["restore"]["bytes"] == typed["restore"]["bytes"], "{restored}\n{typed}");
    let plan = of_kind(&told, "plan").next().context("no plan")?;
    ensure!(plan["plan"]["backup"] == restored["restore"]["plan"]["backup"], "{plan}");
    let planned = protected.plan([])?;
    request["verb"]["restore"]["dry_run"] = true.into();
    request["verb"]["restore"]["into"] = protected.room("planned").display().to_string().into();
    let (output, told) = run(&protected, &request)?;
    output.success()?;
    ensure!(report(&told)?["plan"]["stop"] == planned["stop"], "{planned}");
    ensure!(!protected.room("planned").exists());

    let typed = protected.command(["check", "--json"]).run()?.json()?;
    request["verb"] = json!({"check": {}});
    let (output, told) = run(&protected, &request)?;
    ensure!(matches!(output.code(), Some(0 | 6)), "{}", output.stdout);
    let checked = report(&told)?;
    ensure!(checked["proven"] == typed["proven"], "{checked}\n{typed}");
    let findings = of_kind(&told, "finding").count();
    ensure!(Some(findings) == checked["findings"].as_array().map(Vec::len), "{checked}");
    Ok(())
}

#[test]
fn what_the_request_leaves_open_is_the_configuration_s_and_no_secret_is_shown() -> Result<()> {
    let protected = Protected::with(quiet_cluster()?, false)?;
    let key = fs::read_to_string(&protected.places.key)?;
    let secret = key.lines().find(|line| line.starts_with("seawall-key-1-")).context("no key")?;
    let least = r#"{"version":1,"cluster":"main","verb":{"backup":{}}}"#;
    let (job, mut input) = protected.command(["job"]).spawn_listening()?;
    writeln!(input, "{least}")?;
    let output = job.wait(LIMIT)?.success()?;
    ensure!(report(&events(&output)?)?["repositories"][0] == "primary", "{}", output.stdout);
    drop(input);

    let mut request = example(&protected)?;
    request["id"] = Value::Null;
    request["repositories"][0]["key"] = json!({"text": key});
    let whole = format!("{} password=hunter2", protected.pg.connection_string());
    request["connection"] = whole.into();
    let (output, told) = run(&protected, &request)?;
    ensure!(output.code() == Some(0), "{}\n{}", output.stdout, output.stderr);
    ensure!(of_kind(&told, "end").count() == 1);
    let mut shown = vec![output];
    // Each secret in the wrong place, and what cannot be reached.
    for (name, value) in [
        ("connection", json!("host=/nowhere password=hunter2 user=postgres")),
        ("connection", json!("host=/nowhere password=hunter2 user")),
        ("connection", json!({"password": "hunter2"})),
        ("repositories", json!([{"name": "a", "url": "/nowhere", "key": secret}])),
        ("repositories", json!([{"name": "a", "url": "/nowhere", "key": {"text": secret}}])),
        (
            "repositories",
            json!([{"name": "a", "url": "/nowhere", "key": {"text": format!("{secret}0")}}]),
        ),
        ("rate", json!(secret)),
        ("hunter2", json!(1)),
    ] {
        let mut wrong = request.clone();
        wrong[name] = value;
        let (output, told) = run(&protected, &wrong)?;
        ensure!(!output.status.success(), "{name}: {}", output.stdout);
        ensure!(of_kind(&told, "error").count() == 1, "{}", output.stdout);
        if name != "hunter2" {
            shown.push(output);
        }
    }
    for output in shown {
        for text in [output.stdout, output.stderr] {
            ensure!(!text.contains("hunter2") && !text.contains(secret), "{text}");
        }
    }
    Ok(())
}

#[test]
fn what_is_no_request_is_refused_and_told_as_an_event() -> Result<()> {
    let seawall = support::seawall()?;
    for (request, problem) in [
        ("", "ended before a request"),
        ("{}\n", "no version"),
        (r#"{"version":2,"verb":{"backup":{}}}"#, "version 2"),
        (r#"{"version":1,"verb":{"rewind":{}}}"#, "rewind"),
        (r#"{"version":1,"verb":{"backup":{}},"speed":9}"#, "speed"),
        (r#"{"version":1,"version":1,"verb":{"backup":{}}}"#, "`version` is there twice"),
    ] {
        let output = seawall.command(["job"]).stdin(request).fail(2)?;
        let told = events(&output)?;
        ensure!(told.len() == 2 && told[1]["outcome"] == "failed", "{}", output.stdout);
        let error = &told[0]["error"];
        ensure!(error["code"] == "SW0010", "{error}");
        ensure!(error["message"].as_str().is_some_and(|text| text.contains(problem)), "{error}");
    }
    Ok(())
}

/// The commands of the page.
fn page_commands() -> Result<Vec<&'static str>> {
    let block = PAGE.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    Ok(block.context("no commands")?.lines().collect())
}

/// Runs a command of the page where the request is.
fn replay(protected: &Protected, command: &str, room: &Path) -> Result<Output> {
    let bin = protected.seawall.path().parent().context("no directory")?;
    let path = std::env::join_paths([bin, Path::new("/usr/bin"), Path::new("/bin")])?;
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", command]).current_dir(room).env("PATH", path);
    shell.env("SEAWALL_CONFIG", &protected.places.config);
    process::run(&mut shell, None, LIMIT)
}

#[test]
fn the_commands_of_the_page_do_the_job_and_a_pipe_that_is_closed_ends_it() -> Result<()> {
    let protected = Protected::with(quiet_cluster()?, false)?;
    let room = protected.room("requests");
    protected.pg.owner().create_dir(&room, 0o777)?;
    let request = r#"{"version":1,"cluster":"main","verb":{"backup":{}}}"#;
    fs::write(room.join("request.json"), format!("{request}\n"))?;
    let commands = page_commands()?;
    ensure!(commands.len() == 2, "{commands:?}");
    for command in commands {
        let output = replay(&protected, command, &room)?;
        let told = fs::read_to_string(room.join("events.jsonl"))?;
        output.success().with_context(|| format!("{command}: {told}"))?;
        let last = told.lines().last().context("nothing was told")?;
        ensure!(last == r#"{"event":"end","outcome":"done"}"#, "{command}: {told}");
    }
    let told = replay(&protected, "cat request.json | seawall job", &room)?;
    ensure!(told.stdout.contains("its standard input was closed"), "{}", told.stdout);
    // A line of a file is obeyed as one of a pipe is.
    fs::write(room.join("request.json"), format!("{request}\n{{\"cancel\":true}}\n"))?;
    let told = replay(&protected, "seawall job < request.json", &room)?;
    ensure!(told.stdout.contains("it was told to end"), "{}", told.stdout);
    let list = protected.command(["list", "--json"]).succeed()?.json()?;
    let backups = list["clusters"][0]["backups"].as_array().context("no backups")?;
    ensure!(backups.len() == 2, "{list}");
    Ok(())
}
