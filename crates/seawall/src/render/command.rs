//! What Seawall can be asked to do, as command lines that work where they are typed.

use std::fmt::Display;
use std::sync::OnceLock;

use seawall_core::{Action, Hint, LocalPath};

use super::{shell_quote, shell_word};

/// The flags that stand in for a configuration, or name one, on the command line that runs.
static FLAGS: OnceLock<Vec<String>> = OnceLock::new();

/// Lets every command that is shown from now on carry `flags`, if it takes them.
pub fn keep_flags(flags: Vec<String>) {
    // Whoever was first has shown commands already, and they were right.
    FLAGS.get_or_init(|| flags);
}

/// A sentence whose commands can be typed.
pub fn sentence(hint: &Hint) -> String {
    sentence_with(hint, flags())
}

/// What is to be done; a command alone stands without quotes, to be copied with its line.
pub fn fix(hint: &Hint) -> String {
    hint.sole_action().map_or_else(|| sentence(hint), command)
}

/// The command line of an action.
pub fn command(action: &Action) -> String {
    command_with(action, flags())
}

fn flags() -> &'static [String] {
    FLAGS.get().map_or(&[], Vec::as_slice)
}

fn sentence_with(hint: &Hint, flags: &[String]) -> String {
    hint.text(|action| format!("`{}`", command_with(action, flags)))
}

fn command_with(action: &Action, flags: &[String]) -> String {
    let (mut line, takes_flags) = line(action);
    if takes_flags {
        flags.iter().for_each(|flag| line.push_str(&format!(" {}", shell_quote(flag))));
    }
    line
}

/// The command without the flags that say where and with what, and whether it takes them.
fn line(action: &Action) -> (String, bool) {
    match action {
        Action::Init { cluster, repository } => {
            let url = repository.as_deref().map_or_else(|| "URL".to_owned(), shell_quote);
            (format!("seawall init {} --repo {url} --kit FILE", or(cluster, "CLUSTER")), false)
        }
        Action::Join => {
            ("seawall init CLUSTER --repo URL --key FILE --kit NEW-FILE".to_owned(), false)
        }
        Action::Check { cluster } => (of("seawall check", cluster), true),
        Action::Backup { cluster } => (of("seawall backup", cluster), true),
        Action::FullBackup { cluster } => (of("seawall backup", cluster) + " --full", true),
        Action::Adopt { cluster } => (of("seawall adopt", cluster), true),
        Action::Info => ("seawall info".to_owned(), true),
        Action::List => ("seawall list".to_owned(), true),
        Action::Show { backup } => (format!("seawall show {}", shell_quote(backup)), true),
        Action::Hold { backup } => (format!("seawall hold {}", shell_quote(backup)), true),
        Action::Release { backup } => (format!("seawall release {}", shell_quote(backup)), true),
        Action::Delete { backup } => (format!("seawall delete {}", shell_quote(backup)), true),
        Action::PlanPrune { cluster } => {
            (format!("{} --dry-run", of("seawall prune", cluster)), true)
        }
        Action::Verify => ("seawall verify".to_owned(), true),
        Action::ListWal => ("seawall wal list".to_owned(), true),
        Action::PushWal { file } => (format!("seawall wal push {}", path(file)), true),
        Action::PushPartialWal { cluster } => {
            let cluster = cluster.as_ref().map(|cluster| format!(" --cluster {cluster}"));
            (format!("seawall wal push --partial FILE{}", cluster.unwrap_or_default()), true)
        }
        Action::ArchiveCommand => ("seawall wal push %p".to_owned(), true),
        Action::RestoreCommand { names_repository, standby } => {
            let repository = if *names_repository { " --repo URL --key FILE" } else { "" };
            let standby = if *standby { " --standby" } else { "" };
            (format!("seawall wal fetch %f %p{repository}{standby}"), !names_repository)
        }
        Action::Restore { waits: false } => ("seawall restore --into DIR".to_owned(), true),
        Action::Restore { waits: true } => {
            ("seawall restore --into DIR --then pause".to_owned(), true)
        }
        Action::Promote { directory, without_archive } => {
            let directory = directory.as_ref().map_or_else(|| "DIR".to_owned(), path);
            let without = if *without_archive { " --without-archive" } else { "" };
            (format!("seawall promote {directory}{without}"), !without_archive)
        }
        Action::Discard { directory } => (format!("seawall discard {}", path(directory)), false),
        Action::ShowKeys => ("seawall key show".to_owned(), true),
        Action::AddKey => ("seawall key add FILE".to_owned(), true),
        Action::LetKeyIn { repository } => {
            let url = shell_quote(repository);
            (format!("seawall key add FILE --repo {url} --key KEY-THAT-WORKS"), false)
        }
        Action::RotateToKey => ("seawall key rotate --key FILE".to_owned(), false),
    }
}

fn of(verb: &str, cluster: &Option<impl Display>) -> String {
    cluster.as_ref().map_or_else(|| verb.to_owned(), |cluster| format!("{verb} {cluster}"))
}

fn or(name: &Option<impl Display>, placeholder: &str) -> String {
    name.as_ref().map_or_else(|| placeholder.to_owned(), ToString::to_string)
}

fn path(path: &LocalPath) -> String {
    shell_word(path.0.as_os_str())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use seawall_core::{ClusterName, Code, Error, Key, hint};
    use serde_json::json;

    use super::*;
    use crate::args::Cli;

    fn main_cluster() -> Option<ClusterName> {
        Some("main".parse().unwrap())
    }

    fn kit() -> [String; 2] {
        ["--kit".to_owned(), "/root/my kit".to_owned()]
    }

    #[test]
    fn commands_carry_the_flags_that_were_typed_if_they_take_them() {
        for (action, expected) in [
            (Action::ListWal, "seawall wal list --kit '/root/my kit'"),
            (Action::Check { cluster: main_cluster() }, "seawall check main --kit '/root/my kit'"),
            (
                Action::PushPartialWal { cluster: main_cluster() },
                "seawall wal push --partial FILE --cluster main --kit '/root/my kit'",
            ),
            (Action::Discard { directory: "/srv/a b".into() }, "seawall discard '/srv/a b'"),
            (
                Action::Init { cluster: main_cluster(), repository: Some("file:///a b".into()) },
                "seawall init main --repo 'file:///a b' --kit FILE",
            ),
            (
                Action::Promote { directory: Some("/srv/x".into()), without_archive: true },
                "seawall promote /srv/x --without-archive",
            ),
        ] {
            assert_eq!(command_with(&action, &kit()), expected);
        }
        let hint = hint!["Look: ", Action::List, "."];
        assert_eq!(sentence_with(&hint, &kit()), "Look: `seawall list --kit '/root/my kit'`.");
        assert_eq!(sentence_with(&hint, &[]), "Look: `seawall list`.");
    }

    #[test]
    fn every_command_that_is_shown_is_one() {
        let (cluster, directory) = (main_cluster(), LocalPath::from("/srv/x"));
        for action in [
            Action::Init { cluster: None, repository: None },
            Action::Init { cluster: cluster.clone(), repository: Some("file:///srv/x".into()) },
            Action::Join,
            Action::Check { cluster: None },
            Action::Check { cluster: cluster.clone() },
            Action::Backup { cluster: cluster.clone() },
            Action::FullBackup { cluster: cluster.clone() },
            Action::Adopt { cluster: cluster.clone() },
            Action::Info,
            Action::List,
            Action::Show { backup: "latest".to_owned() },
            Action::Hold { backup: "latest".to_owned() },
            Action::Release { backup: "latest".to_owned() },
            Action::Delete { backup: "latest".to_owned() },
            Action::PlanPrune { cluster: cluster.clone() },
            Action::Verify,
            Action::ListWal,
            Action::PushWal { file: "pg_wal/00000002.history".into() },
            Action::PushPartialWal { cluster },
            Action::ArchiveCommand,
            Action::RestoreCommand { names_repository: false, standby: true },
            Action::RestoreCommand { names_repository: true, standby: false },
            Action::Restore { waits: false },
            Action::Restore { waits: true },
            Action::Promote { directory: None, without_archive: false },
            Action::Promote { directory: Some(directory.clone()), without_archive: true },
            Action::Discard { directory },
            Action::ShowKeys,
            Action::AddKey,
            Action::LetKeyIn { repository: "file:///srv/x".to_owned() },
            Action::RotateToKey,
        ] {
            let flags = ["--repo", "file:///srv/x", "--key", "/root/key"].map(str::to_owned);
            let line = command_with(&action, &flags).replace("CLUSTER", "main");
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
        }
    }

    /// What a server answers is made of the error that a job's process wrote.
    #[test]
    fn a_problem_can_be_made_of_an_error_that_has_travelled() {
        let error = Error::new(Code::ObjectDamaged, "object c/main/about is damaged: its end")
            .with_source(std::io::Error::other("short"))
            .with_hint(hint!["Run ", Action::Verify, " to learn what else is damaged."])
            .with_pair(Key::Object, "c/main/about");
        let written = serde_json::to_string(&error).unwrap();
        let error: Error = serde_json::from_str(&written).unwrap();
        let hint = error.hint().unwrap();
        let problem = json!({
            "code": error.code(),
            "title": error.code().title(),
            "detail": error.chain(),
            "hint": sentence_with(hint, &[]),
            "command": hint.actions().next().map(|action| command_with(action, &[])),
            "object": error.pairs().get(&Key::Object),
        });
        let expected = json!({
            "code": "SW0305",
            "title": "An object is damaged.",
            "detail": "object c/main/about is damaged: its end: short",
            "hint": "Run `seawall verify` to learn what else is damaged.",
            "command": "seawall verify",
            "object": "c/main/about",
        });
        assert_eq!(problem, expected);
    }
}
