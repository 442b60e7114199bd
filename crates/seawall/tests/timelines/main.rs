//! On every installed major, across timelines: each target is met exactly, whatever names it, and
//! recovery never ends short of the plan.

mod stops;
mod story;
mod targets;

#[path = "../support/moved.rs"]
mod moved;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/sweep.rs"]
mod sweep;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use moved::moved;
use seawall_testkit::faults::Random;
use seawall_testkit::{PgBin, PgCluster, StopMode};
use story::Story;
use support::{Protected, archive_everything};
use sweep::Sweep;
use targets::{Backup, Case, Form};

/// Steps of each of the three chapters.
const STEPS: usize = 14;

/// How a story is told and how much is asked of it.
#[derive(Debug)]
struct Rounds<'a> {
    major: u16,
    random: Random,
    /// The forms of target to restore to, once each.
    forms: Vec<Form>,
    counts: &'a mut BTreeMap<String, u64>,
}

impl Rounds<'_> {
    /// One of the forms, which is thereby dealt with, of those that name a step.
    fn form_for_a_primary(&mut self) -> Result<Form> {
        let names_a_step = |form: &Form| !matches!(form, Form::Latest | Form::BackupOnly);
        let candidates: Vec<Form> = self.forms.iter().copied().filter(names_a_step).collect();
        let at = usize::try_from(self.random.below(candidates.len() as u64))?;
        let chosen = *candidates.get(at).context("no form")?;
        let place = self.forms.iter().position(|form| *form == chosen).context("no form")?;
        Ok(self.forms.remove(place))
    }
}

/// Three timelines: production, restored in the middle of its story as the new production, twice.
struct World {
    house: Protected,
    story: Story,
    backups: Vec<Backup>,
}

impl World {
    fn tell(rounds: &mut Rounds<'_>) -> Result<Self> {
        let builder = PgCluster::builder(rounds.major)
            .config("autovacuum", "off")
            .config("max_prepared_transactions", "50")
            .config("track_commit_timestamp", "on")
            .without_fsync();
        let mut house = Protected::with(builder, false)?;
        let mut story = Story::begin(&house.pg)?;
        let mut backups = vec![Backup::read(&house.backup()?)?];
        story.turn_page(0);
        story.tell(&house.pg, STEPS, &mut rounds.random)?;
        archive_everything(&house.pg)?;
        house.pg.stop(StopMode::Immediate)?;

        let mut current = go_on(&house, &mut story, rounds)?;
        moved(&house, &current)?;
        story.tell(&current, STEPS / 2, &mut rounds.random)?;
        backups.push(Backup::read(&house.backup()?)?);
        story.tell(&current, STEPS / 2, &mut rounds.random)?;
        archive_everything(&current)?;
        current.stop(StopMode::Fast)?;

        let mut current = go_on(&house, &mut story, rounds)?;
        story.tell(&current, STEPS, &mut rounds.random)?;
        archive_everything(&current)?;
        current.stop(StopMode::Fast)?;
        Ok(Self { house, story, backups })
    }

    /// The steps of a line that a place is about: a timeline's own.
    fn steps_of(&self, line: u32, chapter: u32) -> std::ops::Range<usize> {
        let before = self.story.line(chapter).len()
            - self.story.chapters.get(chapter as usize - 1).map_or(0, |it| it.steps.len());
        let all = self.story.line(line).len();
        let kept = self.story.chapters.get(chapter as usize - 1).and_then(|it| it.kept);
        let end = if line == chapter { all } else { before + kept.unwrap_or_default() };
        // A checkpoint tells whole seconds: no WAL proves what came before a chapter's first step.
        before + 1..end
    }

    fn draw(&self, form: Form, place: (u32, u32), random: &mut Random) -> Result<Case> {
        let (line, chapter) = place;
        let newest = || self.backups.iter().rfind(|backup| backup.timeline <= line);
        match form {
            Form::Latest => Ok(Case::latest(&self.story, line)),
            Form::BackupOnly if chapter == 1 => {
                Ok(Case::backup_only(&self.story, line, self.backups.first().context("none")?))
            }
            Form::BackupOnly => {
                Ok(Case::backup_only(&self.story, line, newest().context("no backup")?))
            }
            _ => Case::draw(&self.story, line, self.steps_of(line, chapter), form, random),
        }
    }
}

/// Restores production as primary after a step of its last chapter.
fn go_on(house: &Protected, story: &mut Story, rounds: &mut Rounds<'_>) -> Result<PgCluster> {
    let line = story.timeline();
    let all = story.line(line).len();
    let form = rounds.form_for_a_primary()?;
    let case = Case::draw(story, line, all - STEPS / 3..all - 1, form, &mut rounds.random)?;
    let room = format!("primary{}", line + 1);
    let current = case
        .restore(house, story, &room, &["--as", "primary"])
        .with_context(|| format!("as primary: {case:?}"))?;
    let chapter = story.chapters.last().map_or(0, |chapter| chapter.steps.len());
    story.turn_page(chapter - (all - case.kept));
    Ok(current)
}

/// Before the forks, between them, after them; and what the old timelines wrote behind their forks.
const PLACES: [(u32, u32); 5] = [(3, 3), (3, 1), (2, 2), (3, 2), (1, 1)];

fn play(rounds: &mut Rounds<'_>) -> Result<()> {
    let world = World::tell(rounds)?;
    // Another start for each major: between them every form meets every place.
    let shift = usize::from(rounds.major) + usize::try_from(rounds.random.below(5))?;
    for (at, form) in rounds.forms.clone().into_iter().enumerate() {
        let place = *PLACES.get((at + at / Form::ALL.len() + shift) % 5).context("place")?;
        let case = world.draw(form, place, &mut rounds.random)?;
        case.check(&world.house, &world.story)
            .with_context(|| format!("PostgreSQL {}, {form:?} {place:?}", rounds.major))?;
        *rounds.counts.entry(format!("PostgreSQL {}, {form:?}", rounds.major)).or_default() += 1;
    }
    Ok(())
}

/// A story on one major, and a restore to every form of target.
fn every_form_is_met(major: u16) -> Result<()> {
    let (random, mut counts) = (Random::new(u64::from(major)), BTreeMap::new());
    play(&mut Rounds { major, random, forms: Form::ALL.to_vec(), counts: &mut counts })
}

macro_rules! on_majors {
    ($($name:ident: $test:path, $major:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            if PgBin::find($major).is_err() {
                eprintln!("PostgreSQL {} is not installed: nothing is proven of it", $major);
                return Ok(());
            }
            $test($major)
        }
    )*};
}

on_majors! {
    every_form_of_target_is_met_across_three_timelines_of_12: every_form_is_met, 12;
    every_form_of_target_is_met_across_three_timelines_of_13: every_form_is_met, 13;
    every_form_of_target_is_met_across_three_timelines_of_14: every_form_is_met, 14;
    every_form_of_target_is_met_across_three_timelines_of_15: every_form_is_met, 15;
    every_form_of_target_is_met_across_three_timelines_of_16: every_form_is_met, 16;
    every_form_of_target_is_met_across_three_timelines_of_17: every_form_is_met, 17;
    every_form_of_target_is_met_across_three_timelines_of_18: every_form_is_met, 18;
    recovery_of_12_never_ends_short_of_the_plan: stops::never_short_of_the_plan, 12;
    recovery_of_13_never_ends_short_of_the_plan: stops::never_short_of_the_plan, 13;
    recovery_of_14_never_ends_short_of_the_plan: stops::never_short_of_the_plan, 14;
    recovery_of_15_never_ends_short_of_the_plan: stops::never_short_of_the_plan, 15;
    recovery_of_16_never_ends_short_of_the_plan: stops::never_short_of_the_plan, 16;
    recovery_of_17_never_ends_short_of_the_plan: stops::never_short_of_the_plan, 17;
    recovery_of_18_never_ends_short_of_the_plan: stops::never_short_of_the_plan, 18;
}

/// Each round is another story on the next major, and each form of target at each place.
#[test]
#[ignore = "long: cargo xtask soak timelines"]
fn any_moment_of_any_story_is_met_on_every_major() -> Result<()> {
    let sweep = Sweep::from_environment(7)?;
    let (majors, mut counts) = (PgBin::installed(), BTreeMap::new());
    ensure!(!majors.is_empty(), "no PostgreSQL server: run cargo xtask setup --tests");
    for (round, major) in (0..sweep.rounds).zip(majors.iter().copied().cycle()) {
        let random = Random::new(sweep.seed.wrapping_add(round));
        let forms = Form::ALL.repeat(PLACES.len());
        play(&mut Rounds { major, random, forms, counts: &mut counts })
            .with_context(|| format!("round {round}, seed {}", sweep.seed))?;
    }
    sweep.write_evidence(&counts)
}
