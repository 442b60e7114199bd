//! What a job told.

use anyhow::{Context, Result};
use seawall_testkit::Output;
use serde_json::Value;

/// All its events.
pub fn events(output: &Output) -> Result<Vec<Value>> {
    let lines = output.stdout.lines().map(|line| Ok(serde_json::from_str(line)?));
    lines.collect::<Result<_>>().with_context(|| output.stdout.clone())
}

/// Those of a kind.
pub fn of_kind<'e>(events: &'e [Value], kind: &str) -> impl Iterator<Item = &'e Value> {
    events.iter().filter(move |event| event["event"] == kind)
}
