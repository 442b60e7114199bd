//! `kill -9` at any moment, of any part: nothing that was promised is lost, nothing half done
//! looks done, and the next run succeeds.

mod stage;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/sweep.rs"]
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seawall_testkit::edges::{Cut, Traced};
use seawall_testkit::faults::Random;
use seawall_testkit::oracles;
use stage::{Published, Stage};
use support::{LIMIT, tells};
use sweep::Sweep;

/// Rounds of one stage: a repository that a thousand kills have gone over is slow to verify.
const STAGE_ROUNDS: u64 = 25;

/// Who dies, in turn.
const TURNS: [Victim; 5] =
    [Victim::Backup, Victim::Push, Victim::Restore, Victim::Backup, Victim::Postgres];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Backup,
    Push,
    Restore,
    Postgres,
}

#[test]
fn a_kill_at_any_moment_loses_nothing_and_leaves_nothing_half_done() -> Result<()> {
    let sweep = Sweep::from_environment(20)?;
    let mut kills = Kills { random: Random::new(sweep.seed), counts: BTreeMap::new() };
    let mut began = 0;
    while began < sweep.rounds {
        let mut stage = Stage::new()?;
        let plan = Plan::watch(&mut stage, sweep.rounds)?;
        for round in began..sweep.rounds.min(began + STAGE_ROUNDS) {
            let doing = || format!("round {round}, seed {}", sweep.seed);
            kills.play(&mut stage, &plan, round).with_context(doing)?;
        }
        stage.finish().with_context(|| format!("after round {began} and on"))?;
        began += STAGE_ROUNDS;
    }
    sweep.write_evidence(&kills.counts)
}

/// What undisturbed runs did: where there is something to cut, and how long they took.
struct Plan {
    rounds: u64,
    backup: Cuts,
    push: Cuts,
    restore: Cuts,
    backup_took: Duration,
}

impl Plan {
    fn watch(stage: &mut Stage, rounds: u64) -> Result<Self> {
        let backup = Cuts::of(stage.trace(&["backup"], None)?)?;
        let began = Instant::now();
        // The first one is known by now, but not to the stage.
        stage.prove_sound(Published::Yes)?;
        stage.back_up()?;
        let backup_took = began.elapsed();
        stage.archiving(false)?;
        let segment = stage.segment()?.display().to_string();
        let push = Cuts::of(stage.trace(&["wal", "push", &segment], None)?)?;
        stage.archiving(true)?;
        let into = stage.protected.room("watched");
        let restore = Cuts::of(stage.trace(&restore_line(&into.display().to_string()), None)?)?;
        fs::remove_dir_all(into)?;
        Ok(Self { rounds, backup, push, restore, backup_took })
    }

    /// The cut of a round. The turns of a victim are spread over its edges.
    fn cut(&self, victim: Victim, round: u64, random: &mut Random) -> Option<Cut> {
        let turns = TURNS.iter().filter(|turn| **turn == victim).count() as u64;
        let all = (self.rounds * turns).div_ceil(TURNS.len() as u64);
        let cycle = TURNS.len() as u64;
        let earlier = TURNS.iter().take((round % cycle) as usize).filter(|turn| **turn == victim);
        let turn = round / cycle * turns + earlier.count() as u64;
        match victim {
            Victim::Backup => self.backup.choose(turn, all, random),
            Victim::Push => self.push.choose(turn, all, random),
            Victim::Restore => self.restore.choose(turn, all, random),
            Victim::Postgres => None,
        }
    }
}

/// Where a program can be cut.
struct Cuts {
    all: Vec<Cut>,
    /// The first and the last of each kind of edge.
    telling: Vec<Cut>,
}

impl Cuts {
    fn of(watched: Traced) -> Result<Self> {
        let all = watched.cuts();
        watched.output.success()?;
        ensure!(!all.is_empty(), "nothing was made durable");
        let (mut seen, mut telling) = (BTreeSet::new(), Vec::new());
        for (at, cut) in all.iter().enumerate() {
            let last = !all.iter().skip(at + 1).any(|later| later.edge == cut.edge);
            if seen.insert(&cut.edge) || last {
                telling.push(cut.clone());
            }
        }
        Ok(Self { all, telling })
    }

    /// The telling ones first, evenly if there are more of them than turns; then any.
    fn choose(&self, turn: u64, turns: u64, random: &mut Random) -> Option<Cut> {
        let telling = self.telling.len() as u64;
        let at = |index: u64| usize::try_from(index).ok();
        if turns < telling {
            // From the first to the last.
            let index = turn * (telling - 1) / (turns - 1).max(1);
            return self.telling.get(at(index)?).cloned();
        }
        let any = random.below(self.all.len() as u64);
        self.telling.get(at(turn)?).or(self.all.get(at(any)?)).cloned()
    }
}

struct Kills {
    random: Random,
    counts: BTreeMap<String, u64>,
}

impl Kills {
    fn play(&mut self, stage: &mut Stage, plan: &Plan, round: u64) -> Result<()> {
        let victim = TURNS[usize::try_from(round)? % TURNS.len()];
        let cut = plan.cut(victim, round, &mut self.random);
        let what = cut.as_ref().map_or_else(String::new, |cut| format!(" {cut}"));
        let doing = format!("{victim:?}{what}");
        eprintln!("round {round}: {doing}");
        match (victim, &cut) {
            (Victim::Backup, Some(cut)) => self.kill_backup(stage, plan, round, cut),
            (Victim::Push, Some(cut)) => self.kill_push(stage, cut),
            (Victim::Restore, Some(cut)) => self.kill_restore(stage, cut),
            (_, _) => self.kill_postgres(stage, plan),
        }
        .context(doing)
    }

    fn count(&mut self, victim: Victim, traced: &Traced, cut: &Cut) {
        let end = if traced.was_cut() { "" } else { " (not reached)" };
        *self.counts.entry(format!("{victim:?}: before {}{end}", cut.edge)).or_default() += 1;
    }

    fn kill_backup(&mut self, stage: &mut Stage, plan: &Plan, round: u64, cut: &Cut) -> Result<()> {
        // Now and then the clock chooses and not the call.
        let ended = if round % 10 == 8 {
            let delay = self.random.delay(plan.backup_took);
            *self.counts.entry("Backup: after a random time".to_owned()).or_default() += 1;
            stage.protected.command(["backup"]).kill9_after(delay)?.status.success()
        } else {
            let traced = stage.trace(&["backup"], Some(cut.clone()))?;
            self.count(Victim::Backup, &traced, cut);
            traced.output.status.success()
        };
        stage.prove_sound(if ended { Published::Yes } else { Published::Perhaps })?;
        stage.back_up().context("the backup after the kill")
    }

    fn kill_push(&mut self, stage: &mut Stage, cut: &Cut) -> Result<()> {
        stage.archiving(false)?;
        let segment = stage.segment()?;
        let name = segment.file_name().and_then(|name| name.to_str()).context("no name")?;
        let path = segment.display().to_string();
        let written = fs::read(&segment)?;
        let traced = stage.trace(&["wal", "push", &path], Some(cut.clone()))?;
        self.count(Victim::Push, &traced, cut);
        let (output, bytes) = stage.fetch(name)?;
        match output.code() {
            Some(0) => ensure!(bytes.as_ref() == Some(&written), "other bytes were archived"),
            Some(1 | 200..) => ensure!(traced.was_cut(), "pushed and not there"),
            _ => anyhow::bail!("wal fetch: {}\n{}", output.status, output.stderr),
        }
        stage.prove_sound(Published::No)?;
        stage.protected.command(["wal", "push", &path]).succeed().context("pushed again")?;
        let (output, bytes) = stage.fetch(name)?;
        output.success()?;
        ensure!(bytes == Some(written), "other bytes were archived");
        stage.archiving(true)
    }

    fn kill_restore(&mut self, stage: &mut Stage, cut: &Cut) -> Result<()> {
        let into = stage.protected.room("killed");
        let text = into.display().to_string();
        let traced = stage.trace(&restore_line(&text), Some(cut.clone()))?;
        self.count(Victim::Restore, &traced, cut);
        let bin = stage.protected.pg.bin().clone();
        if into.join("global/pg_control").exists() {
            // It could be started, so it has to be whole.
            oracles::pg_verifybackup(&bin, &into).context("killed, and can be started")?;
        }
        stage.prove_sound(Published::No)?;
        if traced.was_cut() {
            let again = stage.protected.command(restore_line(&text)).run()?;
            // Only where everything was done already there is nothing to resume.
            if again.code() == Some(5) {
                tells(&again, "SW0604")?;
                ensure!(into.join("global/pg_control").exists(), "neither done nor resumed");
            } else {
                again.success().context("the same restore again")?;
            }
        }
        oracles::pg_verifybackup(&bin, &into)?;
        Ok(fs::remove_dir_all(into)?)
    }

    fn kill_postgres(&mut self, stage: &mut Stage, plan: &Plan) -> Result<()> {
        let backup = stage.protected.command(["backup"]).spawn()?;
        std::thread::sleep(self.random.delay(plan.backup_took));
        stage.protected.pg.kill9()?;
        let output = backup.wait(LIMIT)?;
        stage.protected.pg.start()?;
        *self.counts.entry("Postgres: during a backup".to_owned()).or_default() += 1;
        let succeeded = output.status.success();
        if !succeeded {
            ensure!(output.code() == Some(1), "backup: {}\n{}", output.status, output.stderr);
            tells(&output, "SW")?;
        }
        stage.prove_sound(if succeeded { Published::Yes } else { Published::Perhaps })?;
        stage.back_up().context("the backup after the crash")
    }
}

fn restore_line(into: &str) -> [&str; 6] {
    ["restore", "main", "--into", into, "--latest", "--yes"]
}
