//! The words that name a backup: an id, a unique beginning of one, `latest`, `latest~1`.

use seawall_core::{Action, BackupId, ClusterName, Code, Error, LineId, Result, hint};
use seawall_repo::Repository;

use crate::lines::{several_clusters, stored_clusters};
use crate::verify::{Verdict, verdicts};

/// A backup that may be meant.
#[derive(Debug, Clone)]
pub struct Candidate<T> {
    /// The cluster it is of.
    pub cluster: ClusterName,
    /// Its id.
    pub id: BackupId,
    /// `latest` means only those that are.
    pub is_complete: bool,
    /// Whatever the caller knows it by.
    pub what: T,
}

/// Finds the one backup a word names. `candidates` are in the order they were made, for each
/// cluster.
///
/// # Errors
/// [`Code::NoSuchBackup`]; [`Code::Usage`] for `latest` of several clusters.
pub fn find_backup<T>(word: &str, candidates: Vec<Candidate<T>>) -> Result<Candidate<T>> {
    let mut found = match generations_back(word)? {
        Some(back) => latest(back, candidates)?,
        None => candidates.into_iter().filter(|one| one.id.matches(word)).collect(),
    };
    if found.len() > 1 {
        let ids: Vec<String> = found.iter().map(|one| one.id.to_string()).collect();
        return Err(no_such(format!("\"{word}\" is the beginning of several backups"))
            .with_hint(format!("Say which: {}.", ids.join(", "))));
    }
    found.pop().ok_or_else(|| {
        no_such(format!("there is no backup \"{word}\""))
            .with_hint(hint![Action::List, " shows the backups there are."])
    })
}

/// Every backup in a repository, with its line; of one cluster, if it is named. Complete are those
/// that can be read and that no verification found damaged.
///
/// # Errors
/// Those of the repository.
pub async fn candidates(
    repository: &Repository,
    cluster: Option<&ClusterName>,
) -> Result<Vec<Candidate<LineId>>> {
    let mut candidates = Vec::new();
    for name in stored_clusters(repository).await? {
        if cluster.is_some_and(|wanted| *wanted != name) {
            continue;
        }
        // By their names: one that does not say what it is may have the backup, or hide no other's.
        for id in repository.lines_of(&name).await? {
            let line = repository.line(&name, id)?;
            let verdicts = verdicts(&line).await;
            if let Some(error) = &verdicts.unread {
                let why = error.chain();
                tracing::warn!("whether a backup was found damaged is not known: {why}");
            }
            for summary in line.backups().await? {
                let is_damaged =
                    matches!(verdicts.known.get(&summary.id), Some(Verdict::Damaged(_)));
                let is_complete = summary.info.is_ok() && !is_damaged;
                let (cluster, what) = (name.clone(), id);
                candidates.push(Candidate { cluster, id: summary.id, is_complete, what });
            }
        }
    }
    candidates.sort_by_key(|one| one.id);
    Ok(candidates)
}

fn no_such(message: String) -> Error {
    Error::new(Code::NoSuchBackup, message)
}

/// How far back from the latest; `None` for an id.
fn generations_back(word: &str) -> Result<Option<usize>> {
    match word.strip_prefix("latest") {
        None => Ok(None),
        Some("") => Ok(Some(0)),
        Some(rest) => {
            let back = rest.strip_prefix('~').and_then(|number| number.parse().ok());
            back.map(Some).ok_or_else(|| {
                no_such(format!("\"{word}\" is not a backup"))
                    .with_hint("`latest~1` is the one before the latest.")
            })
        }
    }
}

fn latest<T>(back: usize, candidates: Vec<Candidate<T>>) -> Result<Vec<Candidate<T>>> {
    let complete: Vec<_> = candidates.into_iter().filter(|one| one.is_complete).collect();
    let mut clusters: Vec<&ClusterName> = complete.iter().map(|one| &one.cluster).collect();
    clusters.sort();
    clusters.dedup();
    if clusters.len() > 1 {
        return Err(several_clusters(clusters.into_iter()));
    }
    Ok(complete.into_iter().rev().nth(back).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use seawall_core::Ulid;

    use super::*;

    /// Two complete backups and a damaged one, a day apart.
    fn backups(cluster: &str) -> Vec<Candidate<u64>> {
        let backup = |day: u64| Candidate {
            cluster: cluster.parse().unwrap(),
            id: BackupId(Ulid::from_parts(day * 86_400_000, u128::from(day))),
            is_complete: day < 3,
            what: day,
        };
        (1..=3).map(backup).collect()
    }

    fn day(word: &str) -> Result<u64> {
        find_backup(word, backups("main")).map(|found| found.what)
    }

    #[test]
    fn latest_is_the_newest_that_can_be_restored() {
        assert_eq!(day("latest").unwrap(), 2);
        assert_eq!(day("latest~1").unwrap(), 1);
        for word in ["latest~2", "latest~x", "latest~", "latests", ""] {
            assert_eq!(day(word).unwrap_err().code(), Code::NoSuchBackup, "{word}");
        }
    }

    #[test]
    fn a_unique_beginning_of_an_id_names_it_even_damaged() {
        assert_eq!(day("19700104").unwrap(), 3);
        let several = day("197001").unwrap_err();
        assert_eq!(several.code(), Code::NoSuchBackup);
        assert!(format!("{:?}", several.hint()).contains("19700102T0000"));
    }

    #[test]
    fn the_latest_of_two_clusters_is_nobodys() {
        let both = [backups("main"), backups("other")].concat();
        assert_eq!(find_backup("latest", both).unwrap_err().code(), Code::Usage);
    }
}
