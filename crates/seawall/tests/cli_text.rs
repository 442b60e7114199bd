//! What the command line says of itself, and to those who mistype it.

use std::process::{Command, Output};

/// Runs `seawall` with nothing of the environment but what it needs.
fn seawall(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
    command.args(line.split_whitespace()).output().unwrap()
}

/// The command, its exit status and both streams.
fn transcript(line: &str) -> String {
    let output = seawall(line);
    let code = output.status.code().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    format!("$ seawall {line}\n{stdout}{stderr}[{code}]\n")
}

fn transcripts(lines: &[&str]) -> String {
    lines.iter().map(|line| transcript(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_command_explains_itself() {
    let commands = [
        "",
        "init",
        "check",
        "status",
        "backup",
        "info",
        "list",
        "show",
        "hold",
        "release",
        "annotate",
        "delete",
        "prune",
        "restore",
        "adopt",
        "promote",
        "discard",
        "wal",
        "wal push",
        "wal fetch",
        "wal list",
        "verify",
        "key",
        "key show",
        "key add",
        "key rotate",
        "key remove",
        "key kit",
        "demo",
        "man",
    ];
    for command in commands {
        let text = transcript(&format!("{command} --help"));
        assert!(text.ends_with("[0]\n"), "{text}");
        let name = format!("help {command}").trim_end().replace(' ', "_");
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn usage_errors_are_told_on_standard_error_with_status_2() {
    let text = transcripts(&[
        "lits",
        "list --jsno",
        "init main --repo file:///srv/x",
        "init Main --repo file:///srv/x --no-kit",
        "init main --repo file:///srv/x --no-kit --kit /tmp/kit",
        "restore main",
        "restore main --into /x --to a --before b",
        "restore main --into /x --port 5433",
        "restore main --into /x --force",
        "backup --annotate x",
        "backup --jobs none",
        "backup --memory 1MiB",
        "backup --compression lz4",
        "verify --sample 101%",
        "status --max-age soon",
        "list --kit /tmp/kit --key /tmp/key",
    ]);
    assert_eq!(text.matches("[2]\n").count(), 16, "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_not_there_is_named_with_a_code_and_a_hint() {
    insta::assert_snapshot!(transcripts(&[
        "list",
        "list --config /nonexistent/seawall.toml",
        "list --kit /nonexistent/kit",
        "list --repo s3://bucket --key /nonexistent/key",
        "list --repo relative --config /nonexistent/seawall.toml",
        "restore --into /x --as standby --config /nonexistent/seawall.toml",
        "demo --dir /proc --owner nobody-of-that-name",
    ]));
}

#[test]
fn the_version_is_printed_alone() {
    assert_eq!(transcript("--version"), "$ seawall --version\nseawall 0.1.0\n[0]\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut shell = Command::new("/bin/sh");
    let line = format!("{} completions zsh | head -1; exit", env!("CARGO_BIN_EXE_seawall"));
    let output = shell.args(["-c", &line]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "#compdef seawall\n");
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("man");
    assert!(seawall(&format!("man {}", target.display())).status.success());
    for page in ["seawall.1", "seawall-restore.1", "seawall-wal-fetch.1", "seawall-key-kit.1"] {
        let text = std::fs::read_to_string(target.join(page)).unwrap();
        assert!(text.contains(".TH seawall"), "{page}");
    }
    assert!(!target.join("seawall-completions.1").exists(), "hidden commands have no page");
}

#[test]
fn every_code_has_its_page_and_no_page_is_stray() {
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
    for code in seawall_core::Code::ALL {
        let page = std::fs::read_to_string(format!("{pages}/{code}.md"))
            .unwrap_or_else(|error| panic!("{code}: {error}"));
        assert!(page.starts_with(&format!("# {code}: ")), "{code}");
        let status = format!("Exit status {}:", code.exit_class() as u8);
        assert!(page.contains(&status), "{code} does not say \"{status}\"");
        for heading in ["## What Seawall did", "## What to do"] {
            assert!(page.contains(heading), "{code} has no \"{heading}\"");
        }
    }
    let files = std::fs::read_dir(pages).unwrap().count();
    assert_eq!(files, seawall_core::Code::ALL.len() + 1, "a stray page, or no README");
}
