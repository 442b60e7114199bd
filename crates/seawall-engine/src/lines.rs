//! A cluster's lines, and which of them is written now.
//!
//! A server that goes its own way gets a line of its own (`adopt`), and the line that was made last
//! is the one a command means that names none. This is the one place that decides which that is.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use seawall_core::{Action, ClusterName, Code, Error, Hint, LineId, Result, hint};
use seawall_repo::records::About;
use seawall_repo::{Line, READS_AT_ONCE, Repository};

/// A line of a cluster in a repository, and what it says of itself.
#[derive(Debug, Clone)]
pub struct KnownLine {
    /// The line.
    pub line: Line,
    /// What it says of itself.
    pub about: About,
}

impl KnownLine {
    /// Its place among the lines of its cluster.
    #[must_use]
    pub fn age(&self) -> LineAge {
        LineAge { created_us: self.about.created_us, id: self.line.id() }
    }
}

/// A line's place among the lines of its cluster in one repository: the greatest is the newest.
/// `adopt` sees to it that what it makes is that, whatever the clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineAge {
    /// When it was made, microseconds since 1970, by the clock of the host that made it.
    pub created_us: i64,
    /// Which line.
    pub id: LineId,
}

/// A cluster's lines in a repository, the newest last. One that does not say what it is does not
/// exist yet.
///
/// # Errors
/// Damage, or a store that fails.
pub async fn lines_of(repository: &Repository, cluster: &ClusterName) -> Result<Vec<KnownLine>> {
    let ids = repository.lines_of(cluster).await?;
    let known = ids.into_iter().map(|id| async move {
        let line = repository.line(cluster, id)?;
        Ok::<_, Error>(line.about().await?.map(|about| KnownLine { line, about }))
    });
    let known = stream::iter(known).buffered(READS_AT_ONCE);
    let known: Vec<Option<KnownLine>> = known.try_collect().await?;
    let mut lines: Vec<KnownLine> = known.into_iter().flatten().collect();
    lines.sort_by_key(KnownLine::age);
    Ok(lines)
}

/// The line that is written now, by what several repositories know of a cluster's lines.
///
/// An adoption that stopped half-way leaves repositories without the new line. So a line that
/// another one follows in any repository is not it; only where that does not tell does the time.
#[must_use]
pub fn newest_of(places: &[Vec<LineAge>]) -> Option<LineId> {
    let newest = || places.iter().filter_map(|lines| lines.iter().max());
    let is_followed = |line: &&LineAge| {
        places.iter().any(|lines| {
            let here = lines.iter().find(|there| there.id == line.id);
            here.is_some_and(|here| lines.iter().any(|other| other > here))
        })
    };
    let last = newest().filter(|line| !is_followed(line)).max();
    last.or_else(|| newest().max()).map(|line| line.id)
}

/// The line a cluster writes to, as one repository knows it.
///
/// # Errors
/// [`Code::NoSuchCluster`], damage, or a store that fails.
pub async fn current_line(repository: &Repository, cluster: &ClusterName) -> Result<Line> {
    let newest = lines_of(repository, cluster).await?.pop();
    newest.map(|known| known.line).ok_or_else(|| unknown_cluster(repository, cluster))
}

/// The clusters a repository holds, by name.
///
/// # Errors
/// A store that fails.
pub async fn stored_clusters(repository: &Repository) -> Result<Vec<ClusterName>> {
    let lines = repository.lines().await?;
    let mut names: Vec<ClusterName> = lines.into_iter().map(|(name, _)| name).collect();
    names.dedup();
    Ok(names)
}

/// Proves that a repository holds a cluster.
///
/// # Errors
/// [`Code::NoSuchCluster`], or a store that fails.
pub async fn prove_stored(repository: &Repository, cluster: &ClusterName) -> Result<()> {
    let stored = stored_clusters(repository).await?;
    if stored.contains(cluster) { Ok(()) } else { Err(no_such_cluster(cluster, stored.iter())) }
}

/// The lines of a cluster, or of the only one a repository holds, the newest last; never empty.
///
/// # Errors
/// [`Code::NoSuchCluster`], [`Code::Usage`] if there are several, damage, or a store that fails.
pub async fn stored_lines(
    repository: &Repository,
    cluster: Option<&ClusterName>,
) -> Result<Vec<KnownLine>> {
    let cluster = match cluster {
        Some(named) => named.clone(),
        None => only_cluster(repository).await?,
    };
    let lines = lines_of(repository, &cluster).await?;
    if lines.is_empty() {
        return Err(no_such_cluster(&cluster, stored_clusters(repository).await?.iter()));
    }
    Ok(lines)
}

async fn only_cluster(repository: &Repository) -> Result<ClusterName> {
    let mut names = stored_clusters(repository).await?;
    match (names.pop(), names.as_slice()) {
        (Some(only), []) => Ok(only),
        (None, _) => Err(Error::new(Code::NoSuchCluster, "the repository holds no cluster yet")),
        (Some(last), others) => Err(several_clusters(others.iter().chain([&last]))),
    }
}

/// The line that is written now, in each of several repositories that has it. `places` are all of
/// the cluster's lines in each.
#[must_use]
pub fn written_lines(places: &[Vec<KnownLine>]) -> Vec<Option<Line>> {
    let ages = |lines: &Vec<KnownLine>| lines.iter().map(KnownLine::age).collect::<Vec<_>>();
    let written = newest_of(&places.iter().map(ages).collect::<Vec<_>>());
    let there = |lines: &Vec<KnownLine>| {
        let known = lines.iter().find(|known| Some(known.line.id()) == written);
        known.map(|known| known.line.clone())
    };
    places.iter().map(there).collect()
}

fn unknown_cluster(repository: &Repository, cluster: &ClusterName) -> Error {
    let url = repository.store().url();
    let what = format!("the repository {url} does not know cluster {cluster}");
    let init = Action::Init { cluster: Some(cluster.clone()), repository: Some(url.to_string()) };
    Error::new(Code::NoSuchCluster, what).with_hint(hint!["Add it: ", init, "."])
}

/// The error of a cluster that is not among those that are known.
pub fn no_such_cluster<'a>(
    name: &ClusterName,
    known: impl Iterator<Item = &'a ClusterName>,
) -> Error {
    let names: Vec<&str> = known.map(ClusterName::as_str).collect();
    let error = Error::new(Code::NoSuchCluster, format!("there is no cluster \"{name}\""));
    if names.is_empty() {
        return error.with_hint("The repository holds no cluster yet.");
    }
    error.with_hint(format!("There are: {}.", names.join(", ")))
}

/// The error of a request that needs one cluster and finds several.
pub fn several_clusters<'a>(names: impl Iterator<Item = &'a ClusterName>) -> Error {
    let names: Vec<&str> = names.map(ClusterName::as_str).collect();
    Error::new(Code::Usage, "there are several clusters, and none is named")
        .with_hint(format!("Name one: {}.", names.join(", ")))
}

/// What to do where a server does not fit the line of its name.
#[must_use]
pub fn adopt_it(cluster: &ClusterName) -> Hint {
    hint![
        format!("If this is {cluster} after pg_upgrade, initdb or a snapshot that was put back, "),
        "give it a new line: ",
        Action::Adopt { cluster: Some(cluster.clone()) },
        "."
    ]
}

#[cfg(test)]
mod tests {
    use seawall_core::{BranchNumber, SystemId};

    use super::*;

    fn id(branch: u32) -> LineId {
        LineId { system_id: SystemId(7), branch: BranchNumber(branch) }
    }

    /// Lines of one repository: branch, and when it was made.
    fn lines(ages: &[(u32, i64)]) -> Vec<LineAge> {
        ages.iter()
            .map(|(branch, created_us)| LineAge { created_us: *created_us, id: id(*branch) })
            .collect()
    }

    #[test]
    fn the_line_made_last_is_written() {
        assert_eq!(newest_of(&[lines(&[(0, 10), (1, 20)])]), Some(id(1)));
        // Undone by pg_upgrade and back: the order is that of making, not of numbers.
        assert_eq!(newest_of(&[lines(&[(1, 10), (0, 20)])]), Some(id(0)));
        assert_eq!(newest_of(&[lines(&[(0, 10), (1, 10)])]), Some(id(1)), "at the same moment");
        assert_eq!(newest_of(&[Vec::new()]), None);
    }

    #[test]
    fn an_adoption_that_stopped_half_way_counts_in_whatever_order_repositories_are_asked() {
        let (adopted, not_yet) = (lines(&[(0, 10), (1, 20)]), lines(&[(0, 30)]));
        assert_eq!(newest_of(&[adopted.clone(), not_yet.clone()]), Some(id(1)));
        assert_eq!(newest_of(&[not_yet, adopted]), Some(id(1)));
    }

    #[test]
    fn a_repository_that_was_added_later_does_not_make_its_line_an_older_one() {
        // The clock was ahead when the first repository was made, and came right before the second.
        let (first, added) = (lines(&[(0, 100), (1, 101)]), lines(&[(1, 50)]));
        assert_eq!(newest_of(&[first, added]), Some(id(1)));
    }

    #[test]
    fn where_repositories_contradict_each_other_the_time_decides() {
        let (one, other) = (lines(&[(0, 10), (1, 20)]), lines(&[(1, 5), (0, 15)]));
        assert_eq!(newest_of(&[one, other]), Some(id(1)));
        assert_eq!(newest_of(&[lines(&[(0, 10)]), lines(&[(1, 5)])]), Some(id(0)));
    }
}
