//! `seawall check`: proves the whole path, and says what should be looked at.

use std::path::Path;

use seawall_core::{ClusterName, Result, counted};
use seawall_engine::check::{
    Candidate, CheckRequest, Facts, Finding, Protection, Severity, acknowledge, collect, findings,
    proven,
};
use seawall_engine::lines::current_line;
use serde_json::{Value, json};

use crate::args::CheckArgs;
use crate::config::DEFAULT_PATH;
use crate::context::{Context, Place};
use crate::exit::Outcome;
use crate::render::{Display, Out, Style, fix};
use crate::{postgres, run};

/// Runs the command.
///
/// # Errors
/// Those of the configuration and the server; findings are not errors.
pub fn main(config: Option<&Path>, args: &CheckArgs) -> Result<Outcome> {
    let context = Context::new(config, &args.repository)?;
    let target = context.one_target(args.cluster.cluster.as_ref())?;
    context.become_owner(args.server.data_directory.as_deref())?;
    let server = target.server(&args.server)?;
    let config_path = context.config.path.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
    let expected =
        postgres::archive_command(&postgres::own_path()?, config_path, target.name.as_str());
    let facts = run::runtime()?.block_on(async {
        let mut repositories = Vec::new();
        for place in &target.places {
            repositories.push(candidate(place.clone(), &target.name).await);
        }
        let request = CheckRequest {
            cluster: target.name.clone(),
            connection: server.connection,
            data_directory: server.data_directory,
            expected_archive_command: expected,
            repositories,
            patience: args.wal_timeout,
        };
        run::until_interrupted(collect(request, &Display::new())).await
    })?;
    let mut findings = findings(&facts);
    if let Some(cluster) = &target.config {
        acknowledge(&mut findings, &cluster.acknowledge);
    }
    if args.output.json {
        let proven = proven(&facts);
        let findings: Vec<Value> = findings.iter().map(as_json).collect();
        Out.json(&json!({"cluster": facts.cluster, "proven": proven, "findings": findings}))?;
    } else {
        Out.text(&text(&facts, &findings, Style::of_stdout()))?;
    }
    Ok(outcome(Protection::of(&findings), args.strict))
}

async fn candidate(place: Place, cluster: &ClusterName) -> Candidate {
    let (name, url) = (place.name.clone(), place.url.clone());
    let line = match place.open().await {
        Ok(opened) => current_line(&opened.repository, cluster).await,
        Err(error) => Err(error),
    };
    Candidate { name, url, line }
}

/// A finding with what helps as text.
fn as_json(finding: &Finding) -> Value {
    let mut json = json!(finding);
    json["fix"] = fix(&finding.fix).into();
    json
}

fn text(facts: &Facts, findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    for line in proven(facts) {
        text.push_str(&format!("{} {line}\n", style.green("ok")));
    }
    for finding in findings {
        let severity = match finding.severity {
            Severity::Critical => style.red("critical"),
            Severity::Warning => style.yellow("warning"),
            Severity::Advice => style.bold("advice"),
        };
        match &finding.acknowledged {
            Some(reason) => {
                let known = style.dim("acknowledged");
                text.push_str(&format!("{known} {}\n  reason: {reason}\n", finding.what));
            }
            None => {
                let fix = fix(&finding.fix);
                text.push_str(&format!("{severity} {}\n  fix: {fix}\n", finding.what));
            }
        }
    }
    text.push_str(&summary(&facts.cluster, Protection::of(findings)));
    text
}

/// With `--strict` advice counts too.
const fn outcome(protection: Protection, strict: bool) -> Outcome {
    match protection {
        Protection::Protected => Outcome::Done,
        Protection::Advised { .. } if !strict => Outcome::Done,
        Protection::Advised { .. } | Protection::Endangered { .. } => Outcome::Findings,
    }
}

fn summary(cluster: &ClusterName, protection: Protection) -> String {
    match protection {
        Protection::Protected => format!("cluster {cluster} is protected\n"),
        Protection::Advised { suggestions } => {
            let suggestions = counted(suggestions, "suggestion");
            format!("cluster {cluster} is protected, with {suggestions}\n")
        }
        Protection::Endangered { findings } => {
            format!("cluster {cluster}: {}\n", counted(findings, "finding"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_with_nothing_but_advice_is_protected() {
        let (done, found) = (Outcome::Done, Outcome::Findings);
        for (protection, expected, strict, text) in [
            (Protection::Protected, done, done, "cluster main is protected\n"),
            (
                Protection::Advised { suggestions: 1 },
                done,
                found,
                "cluster main is protected, with 1 suggestion\n",
            ),
            (Protection::Endangered { findings: 2 }, found, found, "cluster main: 2 findings\n"),
        ] {
            assert_eq!(outcome(protection, false), expected);
            assert_eq!(outcome(protection, true), strict);
            assert_eq!(summary(&"main".parse().unwrap(), protection), text);
        }
    }
}
