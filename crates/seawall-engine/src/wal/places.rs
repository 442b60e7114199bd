use seawall_core::{ClusterName, Code, Error, LineId, Result, SystemId};
use seawall_repo::Repository;
use seawall_repo::wal::WalArchive;

use crate::adopt::adopt_it;

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
    /// The archive of the cluster's line. Of several lines that share the identifier the youngest
    /// branch is the one that is written. Never makes a line.
    pub(super) async fn archive(
        &self,
        cluster: &ClusterName,
        system_id: Option<SystemId>,
    ) -> Result<WalArchive> {
        let lines = self.repository.lines().await?;
        let of_cluster = lines.into_iter().filter(|(name, _)| name == cluster).map(|(_, id)| id);
        let (known, others): (Vec<LineId>, Vec<LineId>) =
            of_cluster.partition(|id| system_id.is_none_or(|wanted| wanted == id.system_id));
        let mut identifiers: Vec<SystemId> = known.iter().map(|id| id.system_id).collect();
        identifiers.dedup();
        match (known.iter().max_by_key(|id| id.branch), identifiers.as_slice()) {
            (Some(line), [_]) => {
                let archive = WalArchive::open(self.repository.line(cluster, *line)?).await?;
                Ok(archive.with_compression_level(self.compression_level))
            }
            (None, _) => Err(unknown_cluster(cluster, system_id, &others)),
            _ => Err(several_clusters(cluster)),
        }
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
        format!("Add it: `seawall init {cluster} …`; or correct archive_command.")
    } else {
        format!("{} Else correct archive_command.", adopt_it(cluster))
    };
    Error::new(Code::WalWrongCluster, what).with_hint(hint)
}

fn several_clusters(cluster: &ClusterName) -> Error {
    let what = format!(
        "the repository has several lines of cluster {cluster}, and the file does not tell which it belongs to"
    );
    Error::new(Code::WalWrongCluster, what).with_hint(
        "Set `data_directory` in the configuration, so that its pg_control tells which cluster this is.",
    )
}
