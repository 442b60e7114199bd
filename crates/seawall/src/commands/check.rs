//! `seawall check`: proves the whole path, and says what should be looked at.

use std::path::Path;

use seawall_core::{Result, counted};
use seawall_engine::check::{
    Candidate, CheckRequest, Facts, Finding, Severity, acknowledge, collect, findings, proven,
};
use serde_json::{Value, json};

use crate::args::CheckArgs;
use crate::config::DEFAULT_PATH;
use crate::context::{Context, Place};
use crate::exit::Outcome;
use crate::render::{Display, Out, Style, fix};
use crate::report::current_line;
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
    Ok(outcome(&findings, args.strict))
}

async fn candidate(place: Place, cluster: &seawall_core::ClusterName) -> Candidate {
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
    text.push_str(&summary(facts.cluster.as_str(), findings));
    text
}

/// Advice is not a reason to wake anybody, and what is acknowledged is no news.
fn outcome(findings: &[Finding], strict: bool) -> Outcome {
    let counts = |finding: &Finding| strict || finding.severity != Severity::Advice;
    if open(findings).any(counts) { Outcome::Findings } else { Outcome::Done }
}

fn open(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| finding.acknowledged.is_none())
}

/// Only what is worse than advice takes a cluster's protection away.
fn summary(cluster: &str, findings: &[Finding]) -> String {
    let all = open(findings).count();
    let advice = open(findings).filter(|finding| finding.severity == Severity::Advice).count();
    match (all - advice, advice) {
        (0, 0) => format!("cluster {cluster} is protected\n"),
        (0, advice) => {
            let suggestions = counted(advice, "suggestion");
            format!("cluster {cluster} is protected, with {suggestions}\n")
        }
        (_, _) => format!("cluster {cluster}: {}\n", counted(all, "finding")),
    }
}

#[cfg(test)]
mod tests {
    use seawall_engine::check::FindingId;

    use super::*;

    fn finding(severity: Severity) -> Finding {
        Finding {
            id: FindingId::SameDisk,
            severity,
            what: "something".to_owned(),
            fix: "do it".into(),
            acknowledged: None,
        }
    }

    #[test]
    fn a_cluster_with_nothing_but_advice_is_protected() {
        let (advice, warning) = (finding(Severity::Advice), finding(Severity::Warning));
        let known = Finding { acknowledged: Some("by design".to_owned()), ..warning.clone() };
        let (done, found) = (Outcome::Done, Outcome::Findings);
        for (findings, expected, strict, text) in [
            (vec![], done, done, "cluster main is protected\n"),
            (vec![advice.clone()], done, found, "cluster main is protected, with 1 suggestion\n"),
            (vec![warning.clone()], found, found, "cluster main: 1 finding\n"),
            (vec![warning, advice.clone()], found, found, "cluster main: 2 findings\n"),
            (vec![known.clone()], done, done, "cluster main is protected\n"),
            (vec![known, advice], done, found, "cluster main is protected, with 1 suggestion\n"),
        ] {
            assert_eq!(outcome(&findings, false), expected);
            assert_eq!(outcome(&findings, true), strict);
            assert_eq!(summary("main", &findings), text);
        }
    }
}
