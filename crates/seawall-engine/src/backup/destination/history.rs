use std::fs;
use std::io;
use std::path::Path;

use seawall_core::{Code, Error, Result, TimelineId, WalFileName};
use seawall_repo::Line;
use seawall_repo::wal::WalArchive;

/// Gives the repository the history of the timeline a backup is made on. PostgreSQL archives such a
/// file when the timeline begins, which may have been before this repository was there, and it
/// recovers along no timeline whose history it does not find (`validateRecoveryParameters`).
///
/// # Errors
/// [`Code::HistoryConflict`] if another history is archived, [`Code::ClusterUnreadable`], and those
/// of the repository.
pub(super) async fn store_history(
    line: &Line,
    data_directory: &Path,
    timeline: TimelineId,
) -> Result<()> {
    if timeline <= TimelineId(1) {
        return Ok(());
    }
    let name = WalFileName::TimelineHistory(timeline);
    let path = data_directory.join("pg_wal").join(name.to_string());
    let content = match fs::read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let what = format!("cannot read {}", path.display());
            return Err(Error::new(Code::ClusterUnreadable, what).with_source(error));
        }
    };
    WalArchive::open(line.clone()).await?.store_history(name, &content).await.map(drop)
}
