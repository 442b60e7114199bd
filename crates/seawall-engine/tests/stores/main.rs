//! Stores that fail, are slow or answer too little, under everything that is done with one.

mod far;
#[path = "../restore/house.rs"]
#[allow(dead_code, reason = "each test program uses its own part")]
mod house;
mod site;
#[path = "../../../seawall/tests/support/sweep.rs"]
mod sweep;
mod verbs;
mod weather;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use seawall_repo::Repository;
use seawall_store::testing::{Call, Fault, Faulty};
use seawall_store::{Metered, Store};
use seawall_testkit::faults::Random;
use site::{Site, only_line};
use sweep::Sweep;
use verbs::Verb;
use weather::Weather;

/// So many rounds are played with one repository.
const ROUNDS_OF_A_REPOSITORY: u64 = 100;

/// Whatever a store does: what was acknowledged is there and whole, what was not is there whole or
/// not at all, and the next run succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_store_does_nothing_is_lost_and_nothing_half_published() -> Result<()> {
    let sweep = Sweep::from_environment(45)?;
    let mut site = Site::build().await?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..sweep.rounds {
        if round > 0 && round % ROUNDS_OF_A_REPOSITORY == 0 {
            site.renew().await?;
        }
        let seed = sweep.seed.wrapping_add(round);
        let mut random = Random::new(seed);
        let (verb, weather) = (Verb::of_round(round), Weather::draw(!seed));
        let doing = || format!("seed {seed}: {verb:?}, the store: {weather}");
        let outcome = verbs::play(&site, verb, &weather, &mut random).await.with_context(doing)?;
        *counts.entry(format!("{verb:?}, {}: {outcome}", weather.kind())).or_default() += 1;
    }
    sweep.write_evidence(&counts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_cannot_read_a_backup_does_not_say_that_there_is_none() -> Result<()> {
    let site = Site::build().await?;
    let copy = site.copy();
    let whole: Arc<dyn Store> = Arc::new(copy.store.clone());
    let facts = verbs::checked(&site, &copy, Arc::clone(&whole)).await?;
    ensure!(facts.has_backup && facts.trouble.is_none(), "{facts:?}");

    let broken = Faulty::new(whole).choose(|call, place, _| {
        let is_backup = place.path().contains("/backup/") || place.path().contains("/manifest/");
        (is_backup && call != Call::List).then_some(Fault::Io)
    });
    let facts = verbs::checked(&site, &copy, Arc::new(broken)).await?;
    let trouble = facts.trouble.context("it saw no backup, and does not say why")?;
    ensure!(trouble.what.contains("/backup/"), "{trouble:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_into_an_empty_directory_reads_what_is_stored_once() -> Result<()> {
    let site = Site::build().await?;
    let copy = site.copy();
    let is_pack = |path: &&String| path.contains("/pack/");
    let mut stored_bytes = 0;
    for pack in copy.names().await?.iter().filter(is_pack) {
        stored_bytes += copy.store.read(&pack.parse()?).await?.len() as u64;
    }
    let mut read_bytes = Vec::new();
    for proves_first in [false, true] {
        let store = Arc::new(Metered::new(Arc::new(copy.store.clone())));
        let repository = Repository::open(Arc::clone(&store) as Arc<dyn Store>, &copy.key).await?;
        let room = site.room("room");
        let line = only_line(&repository).await?;
        let id = site.restore_with(&line, &room, proves_first).await?.plan.backup.id;
        ensure!(id == site.backup.to_string());
        std::fs::remove_dir_all(room)?;
        read_bytes.push(store.counts().read_bytes);
    }
    println!(
        "packs of {stored_bytes} bytes; read once {}, proven first {}",
        read_bytes[0], read_bytes[1]
    );
    let (once, proven_first) = (read_bytes[0], read_bytes[1]);
    ensure!(once + stored_bytes * 9 / 10 < proven_first, "what is stored is read twice");
    ensure!(once < stored_bytes * 2, "more is read beside it than it is");
    Ok(())
}
