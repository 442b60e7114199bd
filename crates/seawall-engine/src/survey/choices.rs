//! The backups of several repositories, each of them once, for a word that means one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jiff::Timestamp;
use seawall_core::{BackupId, ClusterName, Error, Result};
use seawall_repo::{Line, Repository};

use super::{BackupState, Candidate};
use crate::events::standings;
use crate::lines::{LineAge, newest_of, prove_stored, stored_clusters};

/// A copy of a backup in one of several repositories.
#[derive(Debug, Clone)]
pub struct CopyAt {
    /// The repository's name.
    pub repository: String,
    /// The line it is in there.
    pub line: Line,
    /// What can be said of it there.
    pub state: BackupState,
}

/// What several repositories hold, as far as they answer.
#[derive(Debug)]
pub struct Choices {
    /// Every backup, whole if any copy of it is; the copies are in the order of the repositories.
    pub backups: Vec<Candidate<Vec<CopyAt>>>,
    /// Why other repositories could not be looked at, by their names.
    pub failures: Vec<(String, Error)>,
}

impl Choices {
    /// Looks into repositories for the backups of a cluster, or of all. One that does not hold the
    /// cluster that is named is a failure.
    pub async fn look(opened: &[(String, Repository)], cluster: Option<&ClusterName>) -> Self {
        let (mut shelves, mut failures) = (Vec::new(), Vec::new());
        for (name, repository) in opened {
            match shelves_of(name, repository, cluster).await {
                Ok(found) => shelves.extend(found),
                Err(error) => failures.push((name.clone(), error)),
            }
        }
        Self { backups: put_together(shelves), failures }
    }
}

/// What one repository has of a cluster.
struct Shelf {
    cluster: ClusterName,
    /// Of its lines that say what they are.
    ages: Vec<LineAge>,
    copies: Vec<Candidate<CopyAt>>,
}

async fn shelves_of(
    name: &str,
    repository: &Repository,
    wanted: Option<&ClusterName>,
) -> Result<Vec<Shelf>> {
    let clusters = match wanted {
        Some(cluster) => {
            prove_stored(repository, cluster).await?;
            vec![cluster.clone()]
        }
        None => stored_clusters(repository).await?,
    };
    let mut shelves = Vec::new();
    for cluster in clusters {
        // By their names: one that does not say what it is may have the backup, or hide no other's.
        let (mut copies, mut ages) = (Vec::new(), Vec::new());
        for id in repository.lines_of(&cluster).await? {
            let line = repository.line(&cluster, id)?;
            ages.extend(age_of(&line).await);
            copies.extend(in_line(name, &line).await?);
        }
        shelves.push(Shelf { cluster, ages, copies });
    }
    Ok(shelves)
}

/// A line's place among those of its cluster, if it says what it is.
async fn age_of(line: &Line) -> Option<LineAge> {
    match line.about().await {
        Ok(about) => about.map(|about| LineAge { created_us: about.created_us, id: line.id() }),
        Err(error) => {
            tracing::warn!("whether line {} is written is not known: {}", line.id(), error.chain());
            None
        }
    }
}

/// The backups of a line, as if it were none that is written.
async fn in_line(repository: &str, line: &Line) -> Result<Vec<Candidate<CopyAt>>> {
    let (standings, now) = (standings(line).await, Timestamp::now());
    if let Some(error) = &standings.unread {
        tracing::warn!("whether a backup was found damaged is not known: {}", error.chain());
    }
    let known = line.all_backups().await?.into_iter().map(|summary| {
        let info = summary.info.as_ref().ok();
        let standing = standings.of(summary.id);
        let verdict = standing.and_then(|standing| standing.verdict.as_ref());
        let state = BackupState::of(&summary, verdict);
        Candidate {
            cluster: line.cluster().clone(),
            id: summary.id,
            state,
            is_written: false,
            is_asked_to_go: standing.is_some_and(|standing| standing.is_asked_to_go_at(now)),
            stop: info.map(|info| (info.stop_timeline, info.stop_lsn)),
            what: CopyAt { repository: repository.to_owned(), line: line.clone(), state },
        }
    });
    Ok(known.collect())
}

/// Which line is written is decided over all repositories.
fn put_together(shelves: Vec<Shelf>) -> Vec<Candidate<Vec<CopyAt>>> {
    let mut ages = BTreeMap::<ClusterName, Vec<Vec<LineAge>>>::new();
    for shelf in &shelves {
        ages.entry(shelf.cluster.clone()).or_default().push(shelf.ages.clone());
    }
    let mut backups = BTreeMap::<(ClusterName, BackupId), Candidate<Vec<CopyAt>>>::new();
    for Shelf { cluster, copies, .. } in shelves {
        let written = ages.get(&cluster).and_then(|places| newest_of(places));
        for Candidate { id, state, is_asked_to_go, stop, what: copy, .. } in copies {
            match backups.entry((cluster.clone(), id)) {
                Entry::Vacant(entry) => {
                    let is_written = Some(copy.line.id()) == written;
                    let (cluster, what) = (cluster.clone(), vec![copy]);
                    entry.insert(Candidate {
                        cluster,
                        id,
                        state,
                        is_written,
                        is_asked_to_go,
                        stop,
                        what,
                    });
                }
                Entry::Occupied(mut entry) => {
                    let known = entry.get_mut();
                    // A whole copy speaks for it.
                    if known.state != BackupState::Complete {
                        known.state = state;
                        known.stop = stop.or(known.stop);
                    }
                    known.is_asked_to_go &= is_asked_to_go;
                    known.what.push(copy);
                }
            }
        }
    }
    backups.into_values().collect()
}
