//! Every way to name a moment of a story, and what is there then.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use seawall_core::Lsn;
use seawall_testkit::PgCluster;
use seawall_testkit::faults::Random;
use serde_json::Value;

use super::story::{Step, Story};
use super::support::{LIMIT, Protected};

/// How a moment is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    ToTime,
    BeforeTime,
    ToCommitTime,
    BeforeCommitTime,
    ToLsn,
    BeforeLsn,
    ToXid,
    BeforeXid,
    ToName,
    BeforeName,
    Latest,
    BackupOnly,
}

impl Form {
    pub const ALL: [Self; 12] = [
        Self::ToTime,
        Self::BeforeXid,
        Self::ToName,
        Self::BeforeLsn,
        Self::ToCommitTime,
        Self::BackupOnly,
        Self::ToXid,
        Self::BeforeName,
        Self::BeforeCommitTime,
        Self::ToLsn,
        Self::Latest,
        Self::BeforeTime,
    ];
}

/// A target as a user types it, and how many steps of the line it keeps.
#[derive(Debug, Clone)]
pub struct Case {
    pub arguments: Vec<String>,
    /// The timeline whose line is followed.
    pub line: u32,
    pub kept: usize,
}

/// A backup as the command told of it.
#[derive(Debug, Clone)]
pub struct Backup {
    pub id: String,
    pub stop_lsn: Lsn,
    pub timeline: u32,
}

impl Backup {
    pub fn read(told: &Value) -> Result<Self> {
        Ok(Self {
            id: text(told, "id")?.to_owned(),
            stop_lsn: text(told, "stop_lsn")?.parse()?,
            timeline: u32::try_from(told["timeline"].as_u64().context("timeline")?)?,
        })
    }
}

impl Case {
    /// Names the moment after step `at` of a line, or just before its transaction ended; `None` for
    /// a step without a transaction of the kind the form needs.
    pub fn at(story: &Story, line: u32, at: usize, form: Form, pick: u64) -> Option<Self> {
        let steps = story.line(line);
        let step = steps.get(at)?;
        let any_xid = || {
            let xids = &step.end.as_ref()?.xids;
            xids.get(usize::try_from(pick).ok()? % xids.len())
        };
        let after = at + 1;
        let (option, word, kept) = match form {
            Form::ToTime => ("--to", step.time.clone(), after),
            Form::BeforeTime => ("--before", step.time.clone(), after),
            Form::ToCommitTime => ("--to", step.commit()?.1.to_owned(), after),
            Form::BeforeCommitTime => ("--before", step.commit()?.1.to_owned(), at),
            Form::ToLsn => ("--to", format!("lsn:{}", step.lsn), after),
            Form::BeforeLsn => ("--before", format!("lsn:{}", step.lsn), after),
            Form::ToXid => ("--to", format!("xid:{}", any_xid()?), after),
            Form::BeforeXid => ("--before", format!("xid:{}", any_xid()?), at),
            Form::ToName => ("--to", format!("name:{}", step.name), after),
            Form::BeforeName => ("--before", format!("name:{}", step.name), after),
            Form::Latest | Form::BackupOnly => return None,
        };
        Some(Self::new(story, line, vec![option.to_owned(), word], kept))
    }

    pub fn latest(story: &Story, line: u32) -> Self {
        Self::new(story, line, vec!["--latest".to_owned()], story.line(line).len())
    }

    pub fn backup_only(story: &Story, line: u32, backup: &Backup) -> Self {
        let before = story.line(line).iter().filter(|step| step.lsn < backup.stop_lsn).count();
        let arguments = ["--backup-only", "--backup", &backup.id];
        Self::new(story, line, arguments.map(str::to_owned).to_vec(), before)
    }

    /// Names the timeline unless it is the one that is followed anyway.
    fn new(story: &Story, line: u32, mut arguments: Vec<String>, kept: usize) -> Self {
        if line != story.timeline() {
            arguments.extend(["--timeline".to_owned(), line.to_string()]);
        }
        Self { arguments, line, kept }
    }

    /// A case of a form somewhere in steps `from..to` of a line, by lot.
    pub fn draw(
        story: &Story,
        line: u32,
        steps: std::ops::Range<usize>,
        form: Form,
        random: &mut Random,
    ) -> Result<Self> {
        for _ in 0..1000 {
            let at = steps.start + usize::try_from(random.below(steps.len() as u64))?;
            if let Some(case) = Self::at(story, line, at, form, random.next_u64()) {
                return Ok(case);
            }
        }
        anyhow::bail!("no {form:?} in {steps:?} of timeline {line}")
    }

    /// Restores, and proves that plan and server are what the story demands; the server goes on.
    pub fn restore(
        &self,
        house: &Protected,
        story: &Story,
        room: &str,
        more: &[&str],
    ) -> Result<PgCluster> {
        let arguments = self.arguments.iter().map(String::as_str).chain(more.iter().copied());
        let call = house.restore(room, arguments.chain(["--json"]));
        let told = call.succeed()?.json()?;
        self.agrees(story, &told["restore"]["plan"])?;
        let major = house.pg.bin().major();
        let mut pg = PgCluster::open(major, house.room(room)).config("fsync", "off").start()?;
        pg.wait_promoted(LIMIT)?;
        self.is_there(story, &pg)?;
        Ok(pg)
    }

    /// As [`Case::restore`], of a directory that nobody needs afterwards.
    pub fn check(&self, house: &Protected, story: &Story) -> Result<()> {
        let checked = || -> Result<()> {
            drop(self.restore(house, story, "checked", &[])?);
            Ok(fs::remove_dir_all(house.room("checked"))?)
        };
        checked().with_context(|| format!("{self:?}"))
    }

    /// The plan names the last commit that is kept and the first that is left out.
    fn agrees(&self, story: &Story, plan: &Value) -> Result<()> {
        let steps = story.line(self.line);
        let (kept, left_out) = steps.split_at_checked(self.kept).context("steps")?;
        let last = kept.iter().rev().find_map(|step| Some((*step, step.commit()?)));
        let first = left_out.iter().find_map(|step| Some((*step, step.commit()?)));
        let start: Lsn = text(&plan["backup"], "start_lsn")?.parse()?;
        let named = &plan["last_commit_kept"];
        // What ended before the backup began is in no WAL that the plan looks at.
        if last.is_some_and(|(step, _)| step.lsn > start) || !named.is_null() {
            ensure!(same(named, last)?, "kept: {named}, and not {last:?}");
        }
        let named = &plan["first_commit_left_out"];
        ensure!(same(named, first)?, "left out: {named}, and not {first:?}");
        Ok(())
    }

    /// The server has the rows and the prepared transactions of the moment, on a timeline that
    /// nobody else has.
    fn is_there(&self, story: &Story, pg: &PgCluster) -> Result<()> {
        let steps = story.line(self.line);
        let kept = steps.get(..self.kept).context("steps")?;
        let rows: BTreeSet<u64> = kept.iter().flat_map(|step| step.rows.clone()).collect();
        let found = pg.psql("SELECT id FROM story")?;
        let found: BTreeSet<u64> = found.lines().map(str::parse).collect::<Result<_, _>>()?;
        let missing: Vec<_> = rows.difference(&found).collect();
        let surplus: Vec<_> = found.difference(&rows).collect();
        ensure!(missing.is_empty() && surplus.is_empty(), "lost {missing:?}, surplus {surplus:?}");

        let waiting = kept.last().map(|step| step.waiting.as_slice()).unwrap_or_default();
        let waiting: BTreeSet<&str> = waiting.iter().map(|one| one.gid.as_str()).collect();
        let found = pg.psql("SELECT gid FROM pg_prepared_xacts")?;
        let found: BTreeSet<&str> = found.lines().collect();
        ensure!(found == waiting, "prepared: {found:?}, and not {waiting:?}");

        let file = pg.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
        let timeline = u32::from_str_radix(file.get(..8).context("a name")?, 16)?;
        ensure!(timeline == story.timeline() + 1, "promoted to timeline {timeline}");
        Ok(())
    }
}

/// Whether the plan names that transaction, with the time of its record, before the step's end.
fn same(named: &Value, expected: Option<(&Step, (u64, &str))>) -> Result<bool> {
    let Some((step, (xid, time))) = expected else { return Ok(named.is_null()) };
    if named.is_null() {
        return Ok(false);
    }
    let told: jiff::Timestamp = text(named, "time")?.parse()?;
    let lsn: Lsn = text(named, "lsn")?.parse()?;
    Ok(named["xid"] == xid && told == time.parse::<jiff::Timestamp>()? && lsn < step.lsn)
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("no {name} in {value}"))
}
