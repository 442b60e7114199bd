//! `seawall check`: proves the whole path, and says what should be looked at.

use std::path::Path;
use std::sync::Arc;

use seawall_core::{ClusterName, RateLimit, Result, counted};
use seawall_engine::check::{Finding, Protection, Severity};
use seawall_engine::job::{
    Budget, Cancel, CheckReport, CheckVerb, JobReport, JobRequest, Priority, VERSION, Verb,
};
use serde_json::{Value, json};

use crate::args::CheckArgs;
use crate::context::Context;
use crate::exit::Outcome;
use crate::job::{Site, milliseconds, outcome};
use crate::render::{Display, Out, Style, fix};

/// Runs the command.
///
/// # Errors
/// Those of the configuration and the server; findings are not errors.
pub fn main(config: Option<&Path>, args: &CheckArgs) -> Result<Outcome> {
    let context = Context::new(config, &args.repository)?;
    let target = context.one_target(args.cluster.cluster.as_ref())?;
    context.become_owner(args.server.data_directory.as_deref())?;
    let (connection, data_directory) = target.address(&args.server)?;
    let site = Site::new(&context, target.places);
    let request = JobRequest {
        version: VERSION,
        id: None,
        verb: Verb::Check(CheckVerb {
            wal_timeout_ms: milliseconds(args.wal_timeout),
            strict: args.strict,
            acknowledge: target.config.map(|cluster| cluster.acknowledge).unwrap_or_default(),
        }),
        cluster: Some(target.name),
        repositories: site.repositories(&context),
        connection: Some(connection),
        data_directory,
        budget: Budget::default(),
        rate: RateLimit::NONE,
        priority: Priority::Normal,
    };
    let end = site.run(&request, || Arc::new(Display::new()), &Cancel::default())?;
    if let Some(JobReport::Check(report)) = &end.report {
        show(args, report)?;
    }
    outcome(end)
}

fn show(args: &CheckArgs, report: &CheckReport) -> Result<()> {
    if !args.output.json {
        return Out.text(&text(report, Style::of_stdout()));
    }
    let CheckReport { cluster, proven, findings } = report;
    let findings: Vec<Value> = findings.iter().map(as_json).collect();
    Out.json(&json!({"cluster": cluster, "proven": proven, "findings": findings}))
}

/// A finding with what helps as text.
fn as_json(finding: &Finding) -> Value {
    let mut json = json!(finding);
    json["fix"] = fix(&finding.fix).into();
    json
}

fn text(report: &CheckReport, style: Style) -> String {
    let CheckReport { cluster, proven, findings } = report;
    let mut text = String::new();
    for line in proven {
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
    text.push_str(&summary(cluster, Protection::of(findings)));
    text
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
    fn a_cluster_with_nothing_but_advice_is_called_protected() {
        for (protection, text) in [
            (Protection::Protected, "cluster main is protected\n"),
            (
                Protection::Advised { suggestions: 1 },
                "cluster main is protected, with 1 suggestion\n",
            ),
            (Protection::Endangered { findings: 2 }, "cluster main: 2 findings\n"),
        ] {
            assert_eq!(summary(&"main".parse().unwrap(), protection), text);
        }
    }
}
