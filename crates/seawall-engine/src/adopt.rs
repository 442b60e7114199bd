//! The lines of a cluster: the first one, and those that begin when a server writes other bytes
//! than the line it had.
//!
//! A cluster that `initdb` or `pg_upgrade` made has another system identifier. A snapshot that was
//! reverted and a clone that took production's place keep the identifier and write other bytes at
//! the same positions: they get a branch of their own. Nothing of the line before is touched.

use jiff::Timestamp;
use seawall_core::{
    Action, BranchNumber, ClusterName, Code, Error, Hint, LineId, Result, SystemId, hint,
};
use seawall_pgdata::control::ControlFile;
use seawall_repo::layout::LineObject;
use seawall_repo::records::About;
use seawall_repo::wal::WalArchive;
use seawall_repo::{Line, Repository};

use crate::lines::{KnownLine, LineAge, adopt_it, lines_of};

/// A line of a cluster in a repository, as far as planning is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineFacts {
    /// Which line, and when it was made.
    pub age: LineAge,
    /// Nothing was ever stored in it.
    pub is_empty: bool,
}

/// What it takes in one repository for a server to have a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// It gets a new line.
    New {
        /// The line to make.
        line: LineId,
        /// The one that is written now.
        before: LineId,
    },
    /// The line that is written is the server's own, and new.
    Done {
        /// The line.
        line: LineId,
    },
}

impl Adoption {
    /// Decides which line a server with `system_id` gets. `places` has the cluster's lines in each
    /// repository; the line is the same in all of them. One that nothing was stored in yet will do:
    /// an earlier adoption made it, perhaps not in all of them.
    ///
    /// # Errors
    /// [`Code::NoSuchCluster`] if a repository has no line of the cluster at all.
    pub fn plan(
        cluster: &ClusterName,
        places: &[Vec<LineFacts>],
        system_id: SystemId,
    ) -> Result<Vec<Self>> {
        let newest = |lines: &Vec<LineFacts>| lines.iter().max_by_key(|line| line.age).copied();
        let written: Vec<LineFacts> =
            places.iter().map(newest).collect::<Option<_>>().ok_or_else(|| {
                Error::new(
                    Code::NoSuchCluster,
                    format!("a repository has no cluster {cluster} yet"),
                )
                .with_hint(hint![
                    "Begin with ",
                    Action::Init { cluster: Some(cluster.clone()), repository: None },
                    "."
                ])
            })?;
        let own = |line: &&LineFacts| line.age.id.system_id == system_id;
        let furthest = places.iter().flatten().filter(own).map(|line| line.age.id).max();
        let unused = |furthest: LineId| {
            places.iter().zip(&written).all(|(lines, written)| {
                let there = lines.iter().find(|line| line.age.id == furthest);
                there.is_none_or(|line| line.is_empty && written.age.id == furthest)
            })
        };
        let line = match furthest {
            None => LineId { system_id, branch: BranchNumber(0) },
            Some(line) if unused(line) => line,
            Some(line) => LineId { branch: BranchNumber(line.branch.0.saturating_add(1)), ..line },
        };
        let adoption = |written: &LineFacts| match written.age.id == line {
            true => Self::Done { line },
            false => Self::New { line, before: written.age.id },
        };
        Ok(written.iter().map(adoption).collect())
    }

    /// The line the server has afterwards.
    #[must_use]
    pub const fn line(&self) -> LineId {
        match self {
            Self::New { line, .. } | Self::Done { line } => *line,
        }
    }
}

/// Looks at a cluster's lines in a repository.
///
/// # Errors
/// Damage, or a store that fails.
pub async fn facts_of_lines(
    repository: &Repository,
    cluster: &ClusterName,
) -> Result<Vec<LineFacts>> {
    let mut facts = Vec::new();
    for known in lines_of(repository, cluster).await? {
        let is_empty = known.line.all_backups().await?.is_empty()
            && WalArchive::open(known.line.clone()).await?.timelines().await?.is_empty();
        facts.push(LineFacts { age: known.age(), is_empty });
    }
    Ok(facts)
}

/// Makes the line. From then on it is the one that is written.
///
/// # Errors
/// [`Code::ObjectExists`] if another server was adopted at this moment, or a store that fails.
pub async fn adopt(
    repository: &Repository,
    cluster: &ClusterName,
    control: &ControlFile,
    adoption: Adoption,
) -> Result<Line> {
    let (line, before) = match adoption {
        Adoption::Done { line } => return repository.line(cluster, line),
        Adoption::New { line, before } => (line, before),
    };
    // The newest line is the one that is written, whatever the clock says.
    let older = repository.line(cluster, before)?.about().await?;
    let older_us = older.map_or(i64::MIN, |older| older.created_us);
    let created_us = Timestamp::now().as_microsecond().max(older_us.saturating_add(1));
    let about = about(cluster, control, line.branch, created_us);
    let line = repository.line(cluster, line)?;
    // Whoever creates it has it: the other of two servers writes other bytes.
    let path = line.paths().path(&LineObject::About)?;
    match repository.create_record(&path, &about).await {
        Err(error) if error.code() == Code::ObjectExists => {
            let who = format_args!("line {} was made by somebody else at this moment", line.id());
            return Err(error.context(who).with_hint(adopt_one(cluster)));
        }
        created => created?,
    }
    // One with another system identifier has another line, and both would be the newest.
    for KnownLine { line: other, about } in lines_of(repository, cluster).await? {
        if other.id() != line.id() && about.created_us > older_us {
            repository.store().delete(&path).await?;
            let what = format!("line {} was made by another server at this moment", other.id());
            return Err(Error::new(Code::ObjectExists, what).with_hint(adopt_one(cluster)));
        }
    }
    Ok(line)
}

fn adopt_one(cluster: &ClusterName) -> Hint {
    hint![
        "Look which server it was, and run ",
        Action::Adopt { cluster: Some(cluster.clone()) },
        format!(" again on the one that is {cluster} from now on.")
    ]
}

/// Makes the first line of a cluster in a repository: `branch` is what the server writes, which in
/// other repositories may have been adopted. Tells whether it is new. Of servers that are given one
/// name at once, at most one gets it, and what the others made is gone again.
///
/// # Errors
/// [`Code::ClusterMismatch`] if the cluster's lines are of other servers, or one is given the name at
/// this moment; damage, or a store that fails.
pub async fn make_first_line(
    repository: &Repository,
    cluster: &ClusterName,
    control: &ControlFile,
    branch: BranchNumber,
) -> Result<bool> {
    let id = LineId { system_id: control.system_id, branch };
    let lines = repository.lines_of(cluster).await?;
    if let Some(other) = lines.first()
        && lines.iter().all(|line| line.system_id != control.system_id)
    {
        return Err(named_otherwise(cluster, control.system_id, other.system_id));
    }
    let line = repository.line(cluster, id)?;
    let mut about = about(cluster, control, id.branch, Timestamp::now().as_microsecond());
    let there = line.about().await?;
    if let Some(there) = &there {
        // pg_checksums may have turned them on since.
        about.data_checksum_version = there.data_checksum_version;
    }
    let path = line.paths().path(&LineObject::About)?;
    let is_new = match repository.create_record(&path, &about).await {
        Ok(()) => true,
        Err(error) if error.code() == Code::ObjectExists => {
            line.create(&about).await?;
            false
        }
        Err(error) => return Err(error),
    };
    if !lines.is_empty() {
        return Ok(is_new);
    }
    // Two servers may be given the name at once: whoever made its line later sees the other's by now,
    // perhaps both do. A line that stayed would be the cluster's newest, and let its server in next time.
    let others = repository.lines_of(cluster).await?;
    let Some(other) = others.iter().find(|it| it.system_id != control.system_id) else {
        return Ok(is_new);
    };
    if is_new {
        repository.store().delete(&path).await?;
    }
    Err(named_at_once(cluster, other.system_id))
}

fn named_at_once(cluster: &ClusterName, other: SystemId) -> Error {
    let what =
        format!("another server, cluster {other}, was given the name {cluster} at this moment");
    Error::new(Code::ClusterMismatch, what).with_hint(
        "Two servers cannot have one name in a repository: give each its own, then run this again.",
    )
}

fn named_otherwise(cluster: &ClusterName, own: SystemId, other: SystemId) -> Error {
    let what =
        format!("the server is cluster {own}, and {cluster} in the repository is cluster {other}");
    Error::new(Code::ClusterMismatch, what).with_hint(adopt_it(cluster))
}

fn about(
    cluster: &ClusterName,
    control: &ControlFile,
    branch: BranchNumber,
    created_us: i64,
) -> About {
    About {
        cluster: cluster.to_string(),
        system_id: control.system_id,
        branch,
        major: control.major.number(),
        catalog_version: control.catalog_version,
        control_version: control.control_version,
        block_bytes: control.block_size,
        relation_segment_blocks: control.relseg_size,
        wal_segment_bytes: u32::from(control.wal_segment_size),
        wal_block_bytes: control.wal_block_size,
        data_checksum_version: control.data_checksum_version,
        created_us,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(system_id: u64, branch: u32) -> LineId {
        LineId { system_id: SystemId(system_id), branch: BranchNumber(branch) }
    }

    /// Lines in the order they were made; the last one may be empty.
    fn lines(ids: &[(u64, u32)], is_empty: bool) -> Vec<LineFacts> {
        let fact = |(number, (system_id, branch)): (usize, &(u64, u32))| LineFacts {
            age: LineAge { created_us: number as i64, id: id(*system_id, *branch) },
            is_empty: is_empty && number + 1 == ids.len(),
        };
        ids.iter().enumerate().map(fact).collect()
    }

    fn plan(places: &[Vec<LineFacts>], system_id: u64) -> Vec<Adoption> {
        Adoption::plan(&"main".parse().unwrap(), places, SystemId(system_id)).unwrap()
    }

    #[test]
    fn another_cluster_begins_a_line_and_the_same_one_a_branch() {
        let before = id(7, 0);
        let place = lines(&[(7, 0)], false);
        assert_eq!(
            plan(std::slice::from_ref(&place), 8),
            [Adoption::New { line: id(8, 0), before }]
        );
        assert_eq!(plan(&[place], 7), [Adoption::New { line: id(7, 1), before }]);
        // pg_upgrade was undone.
        let undone = lines(&[(7, 0), (8, 0)], false);
        let before = id(8, 0);
        assert_eq!(plan(&[undone], 7), [Adoption::New { line: id(7, 1), before }]);
    }

    #[test]
    fn a_second_time_changes_nothing() {
        let adopted = lines(&[(7, 0), (7, 1)], true);
        assert_eq!(plan(std::slice::from_ref(&adopted), 7), [Adoption::Done { line: id(7, 1) }]);
        // It stopped half-way.
        let other = lines(&[(7, 0)], false);
        let new = Adoption::New { line: id(7, 1), before: id(7, 0) };
        assert_eq!(plan(&[adopted, other], 7), [Adoption::Done { line: id(7, 1) }, new]);
    }

    #[test]
    fn a_line_that_has_anything_in_one_repository_is_nobodys_to_adopt() {
        let (adopted, added) = (lines(&[(7, 0), (7, 1)], false), lines(&[(7, 0)], true));
        let new = |before| Adoption::New { line: id(7, 2), before };
        assert_eq!(plan(&[adopted, added], 7), [new(id(7, 1)), new(id(7, 0))]);
        // An empty one that is not written any more would not become it again.
        let mut undone = lines(&[(7, 0), (8, 0)], false);
        undone[0].is_empty = true;
        assert_eq!(plan(&[undone], 7), [Adoption::New { line: id(7, 1), before: id(8, 0) }]);
    }

    #[test]
    fn what_was_never_known_is_not_adopted() {
        let error = Adoption::plan(&"main".parse().unwrap(), &[Vec::new()], SystemId(7));
        assert_eq!(error.unwrap_err().code(), Code::NoSuchCluster);
    }
}
