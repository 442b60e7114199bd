//! Jobs that end before they are done, at any moment and in any way: nothing of them stays behind,
//! what they were at is usable, and the next one succeeds.

#[path = "support/jobs.rs"]
mod jobs;
mod support;
#[path = "support/sweep.rs"]
mod sweep;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jobs::{events, of_kind};
use seawall_testkit::Output;
use seawall_testkit::faults::Random;
use seawall_testkit::process::wait_until;
use serde_json::{Value, json};
use support::{LIMIT, Protected, files, quiet_cluster, tells};
use sweep::Sweep;

/// How a job is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Its standard input is closed.
    Silence,
    /// It is told so.
    Word,
    Terminate,
    Kill,
}

const WAYS: [By; 4] = [By::Silence, By::Word, By::Terminate, By::Kill];

/// What is ended, in turn: a backup as often as all others together.
const VERBS: [&str; 5] = ["backup", "restore", "backup", "verify", "backup"];

/// A cluster with enough in it that a job takes a second, and a backup of it.
fn stage() -> Result<Protected> {
    let protected = Protected::with(quiet_cluster()?, false)?;
    protected.configure_repository("pack_size = \"1MiB\"")?;
    protected.pg.psql(
        "CREATE TABLE ballast AS SELECT i, md5(i::text) || md5((i + 1)::text) AS text \
         FROM generate_series(1, 100000) AS i",
    )?;
    protected.backup()?;
    Ok(protected)
}

/// Other tests start servers at the same time, and the usual ports are theirs.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn request(protected: &Protected, verb: &str) -> Result<Value> {
    let into = protected.room("ended").display().to_string();
    let verb = match verb {
        "restore" => json!({"restore": {"into": into, "start": {"port": free_port()?}}}),
        other => json!({ other: {} }),
    };
    // As a whole it takes some seconds.
    Ok(
        json!({"version": 1, "cluster": "main", "verb": verb, "rate": "30MB/s", "budget": {"threads": 2}}),
    )
}

/// Sessions of Seawall, other than those PostgreSQL's archiver has.
fn sessions(protected: &Protected) -> Result<String> {
    protected.pg.psql(
        "SELECT string_agg(query, '; ') FROM pg_stat_activity WHERE application_name = 'seawall'",
    )
}

fn unfinished(directory: &Path) -> Result<Vec<PathBuf>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut files = files(directory)?;
    files.retain(|path| path.to_string_lossy().ends_with(".seawall-tmp"));
    Ok(files)
}

/// Runs a job and ends it after a while, unless it has ended by then.
fn end(protected: &Protected, verb: &str, by: By, delay: Duration) -> Result<Output> {
    let (mut job, mut input) = protected.command(["job"]).spawn_listening()?;
    writeln!(input, "{}", request(protected, verb)?)?;
    let deadline = Instant::now() + delay;
    while Instant::now() < deadline && !job.has_ended()? {
        std::thread::sleep(Duration::from_millis(2));
    }
    // One that has ended by then is not told any more.
    let mut input = Some(input);
    match by {
        By::Silence => drop(input.take()),
        By::Word => drop(input.as_mut().map(|input| writeln!(input, "{{\"cancel\":true}}"))),
        By::Terminate => job.terminate()?,
        By::Kill => job.kill9()?,
    }
    let output = job.wait(LIMIT);
    drop(input);
    output
}

/// What holds as soon as the process has ended.
fn prove_nothing_stays(protected: &Protected, by: By, output: &Output) -> Result<()> {
    if by == By::Kill {
        // Nobody says goodbye for it; PostgreSQL notices by itself.
        wait_until("no session", Duration::from_secs(20), || Ok(sessions(protected)?.is_empty()))?;
        // What it was writing is swept a day later: later rounds are not to find it.
        for left in unfinished(&protected.places.repository)? {
            fs::remove_file(left)?;
        }
        return Ok(());
    }
    let left = sessions(protected)?;
    ensure!(left.is_empty(), "a session stays behind: {left}");
    let told = events(output)?;
    let last = told.last().with_context(|| format!("nothing was told: {}", output.stderr))?;
    let (outcome, code) = (last["outcome"].as_str().unwrap_or_default(), output.code());
    let fits = matches!(
        (outcome, code),
        ("done", Some(0)) | ("findings", Some(6)) | ("cancelled", Some(1))
    );
    ensure!(fits, "{outcome} {code:?}: {}\n{}", output.stdout, output.stderr);
    if outcome == "cancelled" {
        let error = of_kind(&told, "error").last().context("no error")?;
        ensure!(error["error"]["code"] == "SW0009", "{error}");
    }
    let left = unfinished(&protected.places.repository)?;
    ensure!(left.is_empty(), "unfinished files stay behind: {left:?}");
    // A server that was just begun fetches WAL by itself, under such a name for a moment.
    let ended = protected.room("ended");
    wait_until("no unfinished file", Duration::from_secs(20), || Ok(unfinished(&ended)?.is_empty()))
}

/// A server that the job had started runs, and was told of; the directory is discarded.
fn clear(protected: &Protected, by: By, output: &Output) -> Result<()> {
    let into = protected.room("ended");
    let running = into.join("postmaster.pid").exists();
    if running && by != By::Kill && output.code() != Some(0) {
        tells(output, "the restored server still runs, on port")?;
    }
    if into.exists() {
        let path = into.display().to_string();
        protected.command(["discard", "--yes", &path]).succeed()?;
    }
    Ok(())
}

#[test]
fn a_job_that_is_ended_at_any_moment_leaves_nothing_behind() -> Result<()> {
    let sweep = Sweep::from_environment(10)?;
    let (protected, mut random) = (stage()?, Random::new(sweep.seed));
    let mut took = BTreeMap::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for verb in ["backup", "restore", "verify"] {
        let began = Instant::now();
        let output = end(&protected, verb, By::Terminate, LIMIT)?;
        output.clone().success().with_context(|| format!("{verb}, undisturbed"))?;
        took.insert(verb, began.elapsed());
        clear(&protected, By::Terminate, &output)?;
    }
    for round in 0..sweep.rounds {
        let verb = VERBS[usize::try_from(round)? % VERBS.len()];
        let by = WAYS[usize::try_from(random.below(WAYS.len() as u64))?];
        let delay = random.delay(took[verb]);
        let doing =
            || format!("round {round}, seed {}: {verb}, {by:?} after {delay:?}", sweep.seed);
        eprintln!("{}", doing());
        let output = end(&protected, verb, by, delay).with_context(doing)?;
        prove_nothing_stays(&protected, by, &output).with_context(doing)?;
        clear(&protected, by, &output).with_context(doing)?;
        let end = if output.status.success() { "done before" } else { "ended" };
        *counts.entry(format!("{verb}: {by:?}, {end}")).or_default() += 1;
        if verb == "backup" {
            protected.command(["backup"]).succeed().with_context(doing)?;
        }
    }
    protected.command(["verify"]).succeed()?;
    protected
        .command(["restore", "main", "--yes", "--into"])
        .arg(protected.room("last"))
        .succeed()?;
    sweep.write_evidence(&counts)
}

#[test]
fn a_job_with_hardly_any_memory_and_one_thread_is_done_all_the_same() -> Result<()> {
    let protected = stage()?;
    for verb in ["backup", "verify", "restore"] {
        let mut request = request(&protected, verb)?;
        request["budget"] = json!({"threads": 1, "memory_bytes": 1, "heaps": 1});
        request["rate"] = "none".into();
        request["priority"] = "low".into();
        let file = protected.room("starved.json");
        fs::write(&file, request.to_string())?;
        let output = protected.command(["job", "--request"]).arg(&file).succeed()?;
        ensure!(events(&output)?.last().context("no event")?["outcome"] == "done");
        prove_nothing_stays(&protected, By::Terminate, &output)?;
    }
    clear(&protected, By::Kill, &protected.command(["info"]).run()?)
}

/// A job whose events nobody reads.
fn unread(protected: &Protected) -> Result<Child> {
    let mut command = protected.pg.owner().command(protected.seawall.path());
    command.arg("--config").arg(&protected.places.config).arg("job");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(command.spawn()?)
}

#[test]
fn a_reader_that_does_not_read_keeps_no_job_from_being_done_or_ended() -> Result<()> {
    let protected = stage()?;
    let backups = || -> Result<usize> {
        let listed = protected.command(["list", "--json"]).succeed()?.json()?;
        Ok(listed["clusters"][0]["backups"].as_array().map_or(0, Vec::len))
    };
    let mut job = unread(&protected)?;
    let mut input = job.stdin.take().context("stdin")?;
    writeln!(input, "{}", request(&protected, "backup")?)?;
    // More is told than fits into a pipe.
    for _ in 0..1000 {
        writeln!(input, "what is this?")?;
    }
    wait_until("the backup", LIMIT, || Ok(backups()? == 2))?;
    ensure!(job.try_wait()?.is_none(), "it waits for somebody to read what it did");
    drop(input);
    wait_until("the end", Duration::from_secs(30), || Ok(job.try_wait()?.is_some()))?;
    ensure!(sessions(&protected)?.is_empty());
    protected.backup()?;
    Ok(())
}

#[test]
fn two_jobs_of_a_cluster_see_each_other_wherever_their_processes_are() -> Result<()> {
    let protected = stage()?;
    let mut slowly = request(&protected, "backup")?;
    slowly["rate"] = "4MB/s".into();
    let is_root = nix::unistd::Uid::effective().is_root();
    for elsewhere in [false, true] {
        // Only root makes namespaces.
        if elsewhere && !is_root {
            continue;
        }
        let job = || {
            let job = protected.command(["job"]);
            if elsewhere { job.as_test_user().in_process_namespace() } else { job }
        };
        let (mut first, mut input) = job().spawn_listening()?;
        writeln!(input, "{slowly}")?;
        let copies = || Ok(first.stdout_so_far().contains("\"copying\""));
        wait_until("copying", LIMIT, copies)?;
        let id = events(&Output {
            status: Command::new("true").status()?,
            stdout: first.stdout_so_far().lines().next().unwrap_or_default().to_owned(),
            stderr: String::new(),
        })?;
        let id = id[0]["job"].as_str().context("no id")?.to_owned();
        // From here, and from where another number of a process means another one.
        for namespace in [false, is_root] {
            let second = protected.command(["job"]);
            let second =
                if namespace { second.as_test_user().in_process_namespace() } else { second };
            let (second, mut told) = second.spawn_listening()?;
            writeln!(told, "{slowly}")?;
            let refused = second.wait(LIMIT)?;
            ensure!(refused.code() == Some(1), "{}", refused.stdout);
            let error = of_kind(&events(&refused)?, "error").last().context("no error")?.clone();
            ensure!(error["error"]["code"] == "SW0408", "{error}");
            ensure!(error["error"]["retry"] == "later", "{error}");
        }
        let info = protected.command(["info", "--json"]).succeed()?.json()?;
        let running = info.to_string();
        ensure!(running.contains("\"state\":\"running\""), "{id}: {running}");
        ensure!(!first.has_ended()?, "too fast to be seen");
        drop(input);
        let output = first.wait(LIMIT)?;
        ensure!(output.code() == Some(1), "{}", output.stdout);
    }
    Ok(())
}

#[test]
fn a_statement_that_takes_minutes_ends_with_its_job() -> Result<()> {
    let protected = stage()?;
    protected.pg.psql("UPDATE ballast SET text = text || 'x'")?;
    let spread =
        json!({"version": 1, "cluster": "main", "verb": {"backup": {"spread_checkpoint": true}}});
    let (job, mut input) = protected.command(["job"]).spawn_listening()?;
    writeln!(input, "{spread}")?;
    // PostgreSQL takes its time for the checkpoint, whoever is still there.
    wait_until("a checkpoint", LIMIT, || Ok(sessions(&protected)?.contains("backup_start")))?;
    drop(input);
    let output = job.wait(Duration::from_secs(30))?;
    prove_nothing_stays(&protected, By::Silence, &output)?;
    ensure!(output.code() == Some(1), "the checkpoint was not spread: {}", output.stdout);
    protected.backup().map(drop)
}
