//! Segment files: is it the cluster's, and is it whole?

use seawall_core::{Action, Code, Error, Lsn, Result, hint};
use seawall_pgdata::PgMajor;
use seawall_pgdata::wal::page::{LONG_HEADER_BYTES, WAL_PAGE_BYTES};
use seawall_pgdata::wal::{EndOfWal, PageHeader};

use super::SegmentKind;
use super::stretch::Stretch;

impl Stretch<'_> {
    /// Proves that the file is the segment of this cluster that its name says.
    pub(super) fn prove_identity(&self) -> Result<()> {
        let want = self.segment.size.bytes();
        if self.bytes.len() as u64 != want {
            return Err(self.damaged(format!("it has {} of {want} bytes", self.bytes.len())));
        }
        let first = self.bytes.get(..LONG_HEADER_BYTES).unwrap_or_default();
        let header = PageHeader::parse(first).map_err(|error| self.damaged(error))?;
        let Some(major) = PgMajor::from_wal_page_magic(header.magic) else {
            let what = format!(
                "{} is not WAL of a known PostgreSQL: its first bytes are {:04X}",
                self.name(),
                header.magic
            );
            return Err(Error::new(Code::NotWal, what)
                .with_hint("archive_command has to pass %p, the path of the segment."));
        };
        let long = header.long.ok_or_else(|| self.damaged("its first page has no long header"))?;
        let wrong_cluster = |what: String| {
            Error::new(Code::WalWrongCluster, format!("{} {what}", self.name())).with_hint(hint![
                "After initdb or pg_upgrade run ",
                Action::Adopt { cluster: None },
                ": the server begins a line of its own."
            ])
        };
        if long.system_id != self.system_id {
            return Err(wrong_cluster(format!(
                "is WAL of cluster {}, and the archive is of cluster {}",
                long.system_id, self.system_id
            )));
        }
        if major != self.major {
            return Err(wrong_cluster(format!(
                "is WAL of PostgreSQL {major}, and the archive is of PostgreSQL {}",
                self.major
            )));
        }
        let geometry = (u64::from(long.segment_bytes), u64::from(long.page_bytes));
        if geometry != (want, WAL_PAGE_BYTES) {
            return Err(wrong_cluster(format!(
                "is of segments of {} bytes with pages of {}, and the archive of segments of {want}",
                geometry.0, geometry.1
            )));
        }
        if header.address != self.segment.start() {
            return Err(self.damaged(format!("it says it begins at {}", header.address)));
        }
        if header.timeline > self.segment.timeline {
            return Err(self.damaged(format!("it says it is of timeline {}", header.timeline)));
        }
        Ok(())
    }
}

/// The error of a file that is not whole.
pub(super) fn doubtful(
    file: &Stretch<'_>,
    kind: SegmentKind,
    valid_to: Lsn,
    ended: &EndOfWal,
) -> Error {
    let (name, reason) = (file.name(), ended.reason);
    match kind {
        SegmentKind::Whole => {
            let what = format!(
                "{name} cannot be archived: it is not whole; its records end at {valid_to}, not at its end, with a segment switch or where a timeline left it: at {}, {reason}",
                ended.fault_lsn
            );
            Error::new(Code::WalDamaged, what).with_hint(
                hint!["PostgreSQL keeps the segment and pushes it again; look at the disk, and take a backup. If the server is gone and this is its last segment: ", Action::PushPartialWal { cluster: None }, "."],
            )
        }
        SegmentKind::Partial => {
            let what = format!(
                "{name} cannot be archived: its records end at {valid_to}, and more WAL follows behind: at {}, {reason}",
                ended.fault_lsn
            );
            Error::new(Code::WalDamaged, what)
                .with_hint("Push the history of the timeline that continued, then push this again.")
        }
    }
}
