use std::collections::BTreeSet;

use seawall_core::{
    Action, BranchNumber, ClusterName, Code, Error, LineId, Result, SystemId, hint,
};
use seawall_repo::Repository;
use seawall_repo::wal::WalArchive;

use crate::lines::adopt_it;
use crate::lines::lines_of;

/// A repository WAL goes to.
#[derive(Debug, Clone)]
pub struct WalPlace {
    /// Its name in the configuration, or its URL.
    pub name: String,
    /// The repository.
    pub repository: Repository,
    /// zstd level new WAL is compressed with.
    pub compression_level: i32,
}

impl WalPlace {
    /// The archive of the cluster's line: that of the server's branch; where no server says which,
    /// the one that is written now. Never makes a line.
    pub(super) async fn archive(
        &self,
        cluster: &ClusterName,
        system_id: Option<SystemId>,
        branch: Option<BranchNumber>,
    ) -> Result<WalArchive> {
        let of_cluster = self.repository.lines_of(cluster).await?;
        let (known, others): (Vec<LineId>, Vec<LineId>) = of_cluster
            .into_iter()
            .partition(|id| system_id.is_none_or(|wanted| wanted == id.system_id));
        let identifiers: BTreeSet<SystemId> = known.iter().map(|id| id.system_id).collect();
        if identifiers.len() > 1 {
            return Err(several_clusters(cluster));
        }
        let line = match (branch, known.as_slice()) {
            (_, []) => return Err(unknown_cluster(cluster, system_id, &others)),
            (Some(branch), [any, ..]) => LineId { branch, ..*any },
            (None, [only]) => *only,
            (None, [any, ..]) => {
                let lines = lines_of(&self.repository, cluster).await?;
                let mut ids = lines.iter().rev().map(|known| known.line.id());
                ids.find(|id| id.system_id == any.system_id).unwrap_or(*any)
            }
        };
        if !known.contains(&line) {
            return Err(unknown_line(cluster, line));
        }
        let archive = WalArchive::open(self.repository.line(cluster, line)?).await?;
        Ok(archive.with_compression_level(self.compression_level))
    }
}

fn unknown_cluster(cluster: &ClusterName, system_id: Option<SystemId>, others: &[LineId]) -> Error {
    let what = match (system_id, others) {
        (Some(found), [other, ..]) => format!(
            "the WAL is of the cluster with system identifier {found}, and {cluster} in the repository has {}",
            other.system_id
        ),
        _ => format!("the repository knows no cluster {cluster}"),
    };
    let hint = if others.is_empty() {
        let init = Action::Init { cluster: Some(cluster.clone()), repository: None };
        hint!["Add it: ", init, "; or correct archive_command."]
    } else {
        hint![adopt_it(cluster), " Else correct archive_command."]
    };
    Error::new(Code::WalWrongCluster, what).with_hint(hint)
}

fn unknown_line(cluster: &ClusterName, line: LineId) -> Error {
    let what = format!("the server writes line {line} of {cluster}, which the repository has not");
    Error::new(Code::WalWrongCluster, what).with_hint(hint![
        "Give the server a line of its own: ",
        Action::Adopt { cluster: Some(cluster.clone()) },
        "."
    ])
}

fn several_clusters(cluster: &ClusterName) -> Error {
    let what = format!(
        "the repository has several lines of cluster {cluster}, and the file does not tell which it belongs to"
    );
    Error::new(Code::WalWrongCluster, what).with_hint(
        "Set `data_directory` in the configuration, so that its pg_control tells which cluster this is.",
    )
}
