//! A prune that dies at any call to the store, and another one that goes on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use seawall_core::{BackupId, Ulid};
use seawall_engine::prune::Going;
use seawall_repo::layout::LineObject;
use seawall_repo::new_ulid;
use seawall_repo::records::PinRole;
use seawall_store::testing::{Fault, Faulty};

use super::house::{House, Stored, going, pin, range};
use super::sweep::Sweep;

/// Numbers drawn by lot from a seed (splitmix64).
struct Lots(u64);

impl Lots {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }

    fn once_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A house with a history, and what is to become of it.
struct Scene {
    house: House,
    lots: Lots,
    kept: BTreeSet<BackupId>,
    /// The WAL of backups, by number.
    wal: BTreeMap<BackupId, u64>,
    going: Going,
    /// An attempt that stood still, and goes on late.
    late: (BackupId, Vec<Stored>),
    next: u64,
}

impl Scene {
    async fn new(seed: u64) -> Self {
        let mut lots = Lots(seed);
        let house = House::new().await;
        let mut files: Vec<Stored> = Vec::new();
        let (mut kept, mut goes, mut wal) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut all_wal = BTreeMap::new();
        let backups = 2 + lots.below(4);
        for number in 1..=backups {
            if lots.once_in(2) && files.len() > 1 {
                files.remove(0);
            }
            for _ in 0..1 + lots.below(2) {
                files.push(
                    house.file(u32::try_from(number * 10 + files.len() as u64).unwrap()).await,
                );
            }
            let id = house.backup(number, &files).await;
            if lots.once_in(2) {
                house.event(id, 0, "verified").await;
            }
            house.wal(number).await;
            all_wal.insert(id, number);
            if number < backups && !lots.once_in(3) {
                goes.push(id);
                wal.push(number);
            } else {
                kept.insert(id);
            }
        }
        let attempt = BackupId(new_ulid(Timestamp::now()).unwrap());
        house.pin(attempt, 0, &pin(PinRole::Writer, &[], &[])).await;
        let finished = vec![house.file(901).await, house.file(902).await];
        house.pin(attempt, 1, &pin(PinRole::Writer, &finished[..1], &[])).await;
        if lots.once_in(2) {
            let reader = BackupId(new_ulid(Timestamp::now()).unwrap());
            house.pin(reader, 0, &pin(PinRole::Reader, &[], &goes)).await;
        }
        house.pass(if lots.once_in(2) { 2 } else { 30 });
        let going = going(&goes, &wal);
        Self { house, lots, kept, wal: all_wal, going, late: (attempt, finished), next: 100 }
    }

    /// Prunes, and dies before or after one of the calls to the store. Returns whether it died.
    async fn die(&mut self) -> bool {
        let calls = {
            let fork = self.house.fork();
            let counted = Arc::new(Faulty::new(Arc::new(fork.store.clone())));
            let store: Arc<Faulty> = Arc::clone(&counted);
            fork.prune_over(store, &self.going).await.expect("whole");
            counted.calls()
        };
        let at = 1 + self.lots.below(calls);
        let fault = if self.lots.once_in(2) { Fault::CrashBefore } else { Fault::CrashAfter };
        let faulty = Faulty::new(Arc::new(self.house.store.clone()))
            .choose(move |_, _, number| (number == at).then_some(fault));
        let faulty = Arc::new(faulty);
        let store: Arc<Faulty> = Arc::clone(&faulty);
        let died = self.house.prune_over(store, &self.going).await;
        // At the last call, which takes its pin away, all is done.
        faulty.is_dead() && died.is_err()
    }

    /// What may happen between two prunes.
    async fn live(&mut self) {
        match self.lots.below(6) {
            0 => {
                let file = self.house.file(u32::try_from(self.next).unwrap()).await;
                self.next += 1;
                self.kept.insert(self.house.backup(self.next, &[file]).await);
            }
            1 => {
                // Whether it may still publish is decided by the fence alone.
                let (id, files) = &self.late;
                if !self.kept.contains(id)
                    && self.house.publish(*id, self.next, files).await.is_ok()
                {
                    self.kept.insert(*id);
                }
            }
            2 => {
                let Some(id) = self.going.backups.first().copied() else { return };
                let line = self.house.line().await;
                let decided = line.condemnations().await.unwrap();
                let is_late = decided.is_decided(&LineObject::Backup(id, 0));
                if !is_late && line.has_backup(id).await.unwrap_or(false) {
                    self.house.event(id, 7, "hold").await;
                    self.kept.insert(id);
                    self.going.backups.remove(&id);
                }
            }
            _ => {}
        }
    }

    /// Every backup that is kept reads whole, and nothing vanished without a reason.
    async fn prove(&self) -> Result<BTreeSet<Ulid>> {
        let mut needed = BTreeSet::new();
        for id in &self.kept {
            let read = self.house.read(*id).await;
            needed.extend(read.with_context(|| format!("backup {id} is not whole"))?);
            if let Some(number) = self.wal.get(id) {
                let wal = LineObject::WalHot(range(*number));
                ensure!(self.house.is_there(&wal).await, "the WAL of backup {id} is gone");
            }
        }
        let findings = self.house.findings().await;
        ensure!(findings.is_empty(), "{findings:?}");
        Ok(needed)
    }

    /// In the end nothing is left that nobody needs.
    async fn prove_clean(&self) -> Result<()> {
        let needed = self.prove().await?;
        self.house.pass(1);
        self.house.prune(&self.going).await?;
        for object in self.house.objects().await {
            let stays = match &object {
                LineObject::Pack(id) | LineObject::Map(id) | LineObject::Manifest(id) => {
                    needed.contains(id)
                }
                LineObject::Backup(id, _) => self.kept.contains(id) || *id == self.late.0,
                LineObject::Event(subject, _) => self.kept.contains(&BackupId(*subject)),
                LineObject::Pin(..) | LineObject::Gc(..) => false,
                _ => true,
            };
            ensure!(stays, "{object:?} is left");
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_prune_that_dies_anywhere_is_gone_on_with_and_loses_nothing() -> Result<()> {
    let sweep = Sweep::from_environment(200)?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..sweep.rounds {
        let seed = sweep.seed.wrapping_add(round);
        play(seed, &mut counts).await.with_context(|| format!("SEAWALL_SEED={seed}"))?;
    }
    sweep.write_evidence(&counts)
}

async fn play(seed: u64, counts: &mut BTreeMap<String, u64>) -> Result<()> {
    let mut scene = Scene::new(seed).await;
    let mut count = |what: &str, by: u64| *counts.entry(what.to_owned()).or_default() += by;
    for _ in 0..3 {
        if scene.die().await {
            count("died", 1);
        }
        scene.prove().await?;
        // Another host, at once or after a while.
        if scene.lots.once_in(2) {
            scene.house.pass(1);
            let report = scene.house.prune(&scene.going).await?;
            count("objects deleted", report.deleted.all.objects);
            count("backups spared", report.spared.len() as u64);
            count("attempts fenced", report.fenced.len() as u64);
            scene.prove().await?;
        }
        scene.live().await;
        scene.prove().await?;
        let hours = [1, 13, 25, 49][usize::try_from(scene.lots.below(4))?];
        scene.house.pass(hours);
    }
    // What a late writer left goes as well.
    for _ in 0..4 {
        scene.house.pass(26);
        let report = scene.house.prune(&scene.going).await?;
        count("objects deleted", report.deleted.all.objects);
        count("attempts fenced", report.fenced.len() as u64);
    }
    scene.prove_clean().await?;
    count("backups whole in the end", scene.kept.len() as u64);
    Ok(())
}
