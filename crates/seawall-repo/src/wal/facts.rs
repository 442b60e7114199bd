//! What the log says, in LSN order.

use seawall_core::{Lsn, Result};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::{ChangedBlocks, LastRecord, TablespaceChange, WalFacts};

use super::walk::{Detail, LogStep, LogWalker, WalHole};
use super::{LsnRange, WalArchive};

/// What the next part of the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FactsPart {
    /// Its facts.
    Facts {
        /// The part. A record that crosses into it is reported with it.
        range: LsnRange,
        /// Those of records that end within what was asked for. The map of changed blocks is that
        /// of the whole part.
        facts: Box<WalFacts>,
        /// The last record that ends in the part.
        last_record: Option<LastRecord>,
    },
    /// A break: what crosses it is not known.
    Hole(WalHole),
}

/// Reads facts part by part, so that any length of log fits in memory.
#[derive(Debug)]
pub struct FactsReader {
    walker: LogWalker,
    from: Lsn,
    to: Lsn,
}

/// The blocks that a stretch of the log changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalChanges {
    /// The map; see [`ChangedBlocks::broken`] too.
    pub blocks: ChangedBlocks,
    /// Why the map does not tell all changes. It must not be used to leave blocks out then.
    pub incomplete: Option<String>,
}

impl WalChanges {
    /// Why the map must not be used, if it must not.
    #[must_use]
    pub fn unusable(&self) -> Option<String> {
        let broken = self.blocks.broken();
        let broken = broken.map(|broken| format!("at {}, {}", broken.lsn, broken.reason));
        self.incomplete.clone().or(broken)
    }
}

impl WalArchive {
    /// The facts of records that end in (`from`, `to`] along `ancestry`. Both are where a record
    /// begins or ends; `to` may be the end of all LSNs.
    #[must_use]
    pub fn facts(&self, ancestry: &Ancestry, from: Lsn, to: Lsn) -> FactsReader {
        FactsReader { walker: self.walk(ancestry, from, to, Detail::Facts), from, to }
    }

    /// The blocks changed by records that end in (`from`, `to`]. Changes of other records of the
    /// first and the last range may be among them, which costs copies and loses nothing.
    ///
    /// # Errors
    /// Damage, or a store that fails. A hole is told in [`WalChanges::incomplete`].
    pub async fn changes(&self, ancestry: &Ancestry, from: Lsn, to: Lsn) -> Result<WalChanges> {
        let mut changes = WalChanges { blocks: ChangedBlocks::new(), incomplete: None };
        let mut walker = self.walk(ancestry, from, to, Detail::Facts);
        let mut is_first = true;
        while let Some(step) = walker.next().await? {
            match step {
                LogStep::Hole(hole) => {
                    changes.incomplete = Some(hole.into_error().message().to_owned());
                    break;
                }
                LogStep::Range { index, .. } => {
                    let cut = index.head.as_ref().filter(|head| is_first && head.end > from);
                    if cut.is_some() {
                        changes.incomplete = Some(format!("{from} lies within a record"));
                        break;
                    }
                    changes.blocks.merge_after(&index.facts.changes);
                }
            }
            is_first = false;
        }
        Ok(changes)
    }

    /// What records that end in (`from`, `to`] do to tablespaces, in LSN order.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn tablespace_changes(
        &self,
        ancestry: &Ancestry,
        from: Lsn,
        to: Lsn,
    ) -> Result<Vec<TablespaceChange>> {
        let mut parts = self.facts(ancestry, from, to);
        let mut changes = Vec::new();
        while let Some(part) = parts.next().await? {
            let FactsPart::Facts { facts, .. } = part else { continue };
            changes.extend(facts.events.iter().filter_map(TablespaceChange::of));
        }
        Ok(changes)
    }
}

impl FactsReader {
    /// The same facts, with ranges that cannot be read taken for holes.
    #[must_use]
    pub fn passing_damage(self) -> Self {
        Self { walker: self.walker.passing_damage(), ..self }
    }

    /// The next part; `None` at the end of what is archived, or of what was asked for.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn next(&mut self) -> Result<Option<FactsPart>> {
        let Some(step) = self.walker.next().await? else { return Ok(None) };
        Ok(Some(match step {
            LogStep::Hole(hole) => FactsPart::Hole(hole),
            LogStep::Range { index, crossing } => {
                let range = LsnRange { start: index.start, end: index.end };
                let last_record = index.last_record.or(crossing);
                let mut facts = index.facts;
                self.keep_wanted(&mut facts);
                FactsPart::Facts { range, facts: Box::new(facts), last_record }
            }
        }))
    }

    /// Up to here every record was reported; see [`LogWalker::complete_to`].
    #[must_use]
    pub fn complete_to(&self) -> Lsn {
        self.walker.complete_to()
    }

    fn keep_wanted(&self, facts: &mut WalFacts) {
        let wanted = |end: Lsn| self.from < end && end <= self.to;
        facts.commits.retain(|commit| wanted(commit.end_lsn));
        facts.restore_points.retain(|point| wanted(point.end_lsn));
        facts.events.retain(|event| wanted(event.end_lsn));
        facts.time_marks.retain(|mark| self.from <= mark.lsn && mark.lsn < self.to);
    }
}
