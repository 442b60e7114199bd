//! The words that name a backup: an id, a unique beginning of one, `latest`, `latest~1`.

use seawall_core::{Action, BackupId, ClusterName, Code, Error, Lsn, Result, TimelineId, hint};

use super::BackupState;
use crate::lines::several_clusters;

/// A backup that may be meant.
#[derive(Debug, Clone)]
pub struct Candidate<T> {
    /// The cluster it is of.
    pub cluster: ClusterName,
    /// Its id.
    pub id: BackupId,
    /// What can be said of it.
    pub state: BackupState,
    /// Whether it is of the line that is written now.
    pub is_written: bool,
    /// Whether somebody asked for it to go, wherever it is.
    pub is_asked_to_go: bool,
    /// The timeline and the LSN of its stop, if its commit tells.
    pub stop: Option<(TimelineId, Lsn)>,
    /// Whatever the caller knows it by.
    pub what: T,
}

impl<T> Candidate<T> {
    /// Its place among the backups of its cluster, the newest last: by the log where it is one, as
    /// clocks can be wrong.
    fn age(&self) -> (bool, Option<(TimelineId, Lsn)>, BackupId) {
        (self.is_written, self.stop.filter(|_| self.is_written), self.id)
    }

    /// Of one whose commit does not tell where it is in the log, the id has to.
    fn is_newer_than(&self, other: &Self) -> bool {
        if self.stop.is_some() {
            self.age() > other.age()
        } else {
            (self.is_written, self.id) > (other.is_written, other.id)
        }
    }
}

/// The backup that a word means.
#[derive(Debug)]
pub struct FoundBackup<T> {
    /// The word.
    word: String,
    /// It.
    pub backup: Candidate<T>,
    /// Newer ones, which `latest` does not mean since they are not known to be whole.
    pub passed_over: Vec<Candidate<T>>,
}

impl<T> FoundBackup<T> {
    /// What has to be said of those that were passed over.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let told = |one: &Candidate<T>| match one.state {
            BackupState::Complete | BackupState::Going => None,
            BackupState::Not(why) => Some((one.id, why)),
        };
        self.passed_over.iter().filter_map(told).map(|(id, why)| {
            let (word, meant, why) = (&self.word, self.backup.id, why.predicate());
            format!("of the backups known to be whole, {word} is {meant}: {id} is newer, and {why}")
        })
    }
}

/// Finds the one backup a word names. `latest` is the newest that is known to be whole; where none
/// is, the newest.
///
/// # Errors
/// [`Code::NoSuchBackup`]; [`Code::Usage`] for `latest` of several clusters.
pub fn find_backup<T>(word: &str, mut candidates: Vec<Candidate<T>>) -> Result<FoundBackup<T>> {
    let no_backup = || {
        no_such(format!("there is no backup \"{word}\""))
            .with_hint(hint![Action::List, " shows the backups there are."])
    };
    if let Some(back) = generations_back(word)? {
        return latest(word, back, candidates)?.ok_or_else(no_backup);
    }
    candidates.retain(|one| one.id.matches(word));
    if candidates.len() > 1 {
        candidates.sort_by_key(|one| one.id);
        let ids: Vec<String> = candidates.iter().map(|one| one.id.to_string()).collect();
        return Err(no_such(format!("\"{word}\" is the beginning of several backups"))
            .with_hint(format!("Say which: {}.", ids.join(", "))));
    }
    let backup = candidates.pop().ok_or_else(no_backup)?;
    Ok(FoundBackup { word: word.to_owned(), backup, passed_over: Vec::new() })
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

fn latest<T>(
    word: &str,
    back: usize,
    mut candidates: Vec<Candidate<T>>,
) -> Result<Option<FoundBackup<T>>> {
    candidates.retain(|one| one.state != BackupState::Going && !one.is_asked_to_go);
    let (mut whole, mut others): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|one| one.state == BackupState::Complete);
    if whole.is_empty() {
        std::mem::swap(&mut whole, &mut others);
    }
    let mut clusters: Vec<&ClusterName> = whole.iter().map(|one| &one.cluster).collect();
    clusters.sort();
    clusters.dedup();
    if clusters.len() > 1 {
        return Err(several_clusters(clusters.into_iter()));
    }
    whole.sort_by_key(Candidate::age);
    let Some(backup) = whole.into_iter().rev().nth(back) else { return Ok(None) };
    others.retain(|other| other.cluster == backup.cluster && other.is_newer_than(&backup));
    others.sort_by_key(|other| other.id);
    Ok(Some(FoundBackup { word: word.to_owned(), backup, passed_over: others }))
}

#[cfg(test)]
mod tests {
    use seawall_core::Ulid;

    use super::*;
    use crate::verify::NotWhole;

    /// A backup of a day, whose stop is there in the log of timeline 1.
    fn backup(cluster: &str, day: u64, state: BackupState) -> Candidate<u64> {
        let read = state == BackupState::Complete;
        Candidate {
            cluster: cluster.parse().unwrap(),
            id: BackupId(Ulid::from_parts(day * 86_400_000, u128::from(day))),
            state,
            is_written: true,
            is_asked_to_go: false,
            stop: read.then_some((TimelineId(1), Lsn(day))),
            what: day,
        }
    }

    const DAMAGED: BackupState = BackupState::Not(NotWhole::Damaged);

    /// Two complete backups and a damaged one, a day apart.
    fn backups(cluster: &str) -> Vec<Candidate<u64>> {
        let state = |day| if day < 3 { BackupState::Complete } else { DAMAGED };
        (1..=3).map(|day| backup(cluster, day, state(day))).collect()
    }

    fn day(word: &str) -> Result<u64> {
        find_backup(word, backups("main")).map(|found| found.backup.what)
    }

    #[test]
    fn latest_is_the_newest_that_is_whole_and_newer_ones_are_told() {
        assert_eq!(day("latest").unwrap(), 2);
        assert_eq!(day("latest~1").unwrap(), 1);
        for word in ["latest~2", "latest~x", "latest~", "latests", ""] {
            assert_eq!(day(word).unwrap_err().code(), Code::NoSuchBackup, "{word}");
        }
        for (word, is) in [("latest", "latest is 19700103"), ("latest~1", "latest~1 is 19700102")] {
            let notes: Vec<String> = find_backup(word, backups("main")).unwrap().notes().collect();
            assert!(
                notes.len() == 1 && notes[0].ends_with("is newer, and is damaged"),
                "{notes:?}"
            );
            assert!(notes[0].starts_with("of the backups known to be whole, "), "{notes:?}");
            assert!(notes[0].contains(is), "{notes:?}");
        }
        assert_eq!(find_backup("19700104", backups("main")).unwrap().notes().count(), 0);
    }

    #[test]
    fn where_none_is_whole_the_latest_is_the_newest_as_for_a_restore() {
        let all = (1..=3).map(|day| backup("main", day, DAMAGED)).collect();
        let found = find_backup("latest", all).unwrap();
        assert_eq!((found.backup.what, found.passed_over.len()), (3, 0));
    }

    /// Clocks can be wrong, and a line that is written no more is not the latest.
    #[test]
    fn the_newest_is_the_one_that_is_farthest_in_the_log_that_is_written() {
        let whole = |day| backup("main", day, BackupState::Complete);
        let restored = Candidate { stop: Some((TimelineId(2), Lsn(1))), ..whole(4) };
        let behind = Candidate { stop: Some((TimelineId(1), Lsn(9))), ..whole(5) };
        let left = Candidate { is_written: false, ..whole(6) };
        let all = vec![left, restored, behind, whole(3)];
        assert_eq!(find_backup("latest", all.clone()).unwrap().backup.what, 4);
        assert_eq!(find_backup("latest~3", all).unwrap().backup.what, 6);
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
