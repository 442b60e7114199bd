//! The backups that a restore can start from, and what is known of them.

use jiff::Timestamp;
use seawall_core::{BackupId, Error, Result, WalSegmentSize};
use seawall_repo::Line;

use super::plan::BackupFacts;
use crate::events::{Standings, Verdict, standings};
use crate::pinned::refuse_going;
use crate::verify::NotWhole;

/// The backups of a line.
pub(super) struct Known {
    pub(super) backups: Vec<BackupFacts>,
    pub(super) unusable: Vec<(BackupId, NotWhole)>,
    pub(super) segment_size: WalSegmentSize,
    /// Why it is not known of all of them what verifications found.
    pub(super) unknown_verdicts: Option<Error>,
}

impl Known {
    /// `asked` is the backup that is to be restored, if that was said.
    pub(super) async fn of(line: &Line, asked: Option<BackupId>) -> Result<Self> {
        let mut known = Self {
            backups: Vec::new(),
            unusable: Vec::new(),
            segment_size: WalSegmentSize::DEFAULT,
            unknown_verdicts: None,
        };
        let (mut unread, mut of_other_format) = (None, None);
        let Standings { known: mut standings, unread: unknown, .. } = standings(line).await;
        known.unknown_verdicts = unknown;
        let now = Timestamp::now();
        for summary in line.all_backups().await? {
            if summary.goes_at.is_some() {
                let generation = summary.info.as_ref().map_or(0, |info| info.generation);
                if asked == Some(summary.id) {
                    refuse_going(line, summary.id, generation).await?;
                }
                continue;
            }
            let standing = standings.remove(&summary.id).unwrap_or_default();
            // Who names it may use it as long as it is there.
            if standing.is_asked_to_go_at(now) && asked != Some(summary.id) {
                continue;
            }
            match summary.info {
                Ok(info) => {
                    let found_damaged = match standing.verdict {
                        Some(Verdict::Damaged(found)) => Some(found),
                        Some(Verdict::Whole { .. }) | None => None,
                    };
                    known.backups.push(BackupFacts { found_damaged, ..BackupFacts::from(&info) });
                    let size = WalSegmentSize::new(info.wal_segment_bytes);
                    known.segment_size = size.unwrap_or(WalSegmentSize::DEFAULT);
                }
                Err(error) => {
                    let why = NotWhole::of(error.code());
                    known.unusable.push((summary.id, why));
                    match why {
                        NotWhole::Damaged => {}
                        _ if asked == Some(summary.id) => return Err(error),
                        NotWhole::OtherFormat => of_other_format = Some(error),
                        NotWhole::Unread => unread = Some(error),
                    }
                }
            }
        }
        // Where there is nothing else, it is told why what there is is of no use.
        let is_damaged = |(_, why): &(_, NotWhole)| *why == NotWhole::Damaged;
        let of_other_format = of_other_format.filter(|_| !known.unusable.iter().any(is_damaged));
        match unread.or(of_other_format) {
            Some(error) if known.backups.is_empty() => Err(error),
            _ => Ok(known),
        }
    }
}
