//! Deciding what becomes of what was condemned long enough ago. It is decided once, by creating an
//! object: whoever comes second goes by what is there.

use jiff::Timestamp;
use seawall_core::{Code, Result};
use seawall_repo::layout::LineObject;
use seawall_repo::records::Decision;
use seawall_repo::{Condemnations, Condemned, Line, ObjectSet};

use super::condemn::condemn_all;
use super::look::Look;
use super::marks::Needs;
use super::{LEAST_GRACE, PruneReport};

/// Decides what is due, commits first: what a commit needs that was spared is spared too. Gives all
/// that is decided, by whomever.
pub(super) async fn decide(
    line: &Line,
    look: &Look,
    condemned: &Condemnations,
    report: &mut PruneReport,
) -> Result<Condemnations> {
    let due = || condemned.0.iter().filter(|one| is_due(one, look.now));
    for one in condemned.0.iter().filter(|one| !one.is_decided && !is_due(one, look.now)) {
        spare_early(line, look, one, report).await?;
    }
    for one in due().filter(|one| is_of_commits(one)) {
        let spared = spared(look, one, &Needs::default());
        tell(&spared, report);
        create(line, one, &spared).await?;
    }
    let decided = line.condemnations().await?.decided();
    let there = look.there(line, &decided).await?;
    for one in due().filter(|one| !is_of_commits(one)) {
        create(line, one, &spared(look, one, &there)).await?;
    }
    Ok(line.condemnations().await?.decided())
}

/// What is needed again need not wait: the rest is condemned anew, and this one spared altogether.
async fn spare_early(
    line: &Line,
    look: &Look,
    condemned: &Condemned,
    report: &mut PruneReport,
) -> Result<()> {
    let spared: ObjectSet = spared(look, condemned, &Needs::default()).into_iter().collect();
    if spared.is_empty() {
        return Ok(());
    }
    let all: Vec<LineObject> = condemned.objects.iter().collect();
    let rest = all.iter().filter(|object| !spared.contains(object)).cloned();
    condemn_all(line, &rest.collect(), condemned.grace).await?;
    tell(&spared.iter().collect::<Vec<_>>(), report);
    create(line, condemned, &all).await
}

fn tell(spared: &[LineObject], report: &mut PruneReport) {
    let backups = spared.iter().filter_map(|object| match object {
        LineObject::Backup(id, _) => Some(id.to_string()),
        _ => None,
    });
    report.spared.extend(backups);
}

/// Whether its grace has passed, and nobody has decided it.
fn is_due(condemned: &Condemned, now: Timestamp) -> bool {
    let grace = condemned.grace.max(LEAST_GRACE);
    !condemned.is_decided && now.duration_since(condemned.since) >= grace
}

fn is_of_commits(condemned: &Condemned) -> bool {
    condemned.objects.backups().next().is_some()
}

fn spared(look: &Look, condemned: &Condemned, there: &Needs) -> Vec<LineObject> {
    let objects = condemned.objects.iter();
    objects.filter(|object| look.marks.is_spared(object, there)).collect()
}

async fn create(line: &Line, condemned: &Condemned, spared: &[LineObject]) -> Result<()> {
    let names = spared.iter().map(|object| line.paths().name(object));
    let spared = names.collect::<Result<_>>()?;
    let decision = Decision { time_us: Timestamp::now().as_microsecond(), spared };
    let path = line.paths().path(&LineObject::Gc(condemned.id, LineObject::DECIDED))?;
    match line.repository().create_record(&path, &decision).await {
        Err(error) if error.code() == Code::ObjectExists => Ok(()),
        created => created,
    }
}
