use std::ops::ControlFlow;

use async_trait::async_trait;
use seawall_core::{Lsn, Result};
use seawall_pgdata::history::Ancestry;
use seawall_pgdata::wal::TablespaceChange;
use seawall_pgdata::wal::{Event, EventKind, LastRecord, ParameterChange, WalFacts};
use seawall_repo::wal::{Ancestries, Detail, FactsPart, LogStep, WalArchive, WalHole};

use super::{CoveredSpan, Fact, RecordPlace, UnreadableWal, WalCoverage, WalSource, XactFact};

#[async_trait]
impl WalSource for WalArchive {
    async fn ancestries(&self) -> Result<Ancestries> {
        self.ancestries().await
    }

    async fn coverage(&self, ancestry: &Ancestry, from: Lsn) -> Result<WalCoverage> {
        let (stretches, damaged) = self.readable_coverage(ancestry, from).await?;
        let covered = stretches.into_iter().map(|stretch| CoveredSpan {
            start: stretch.range.start,
            end: stretch.complete_to.align_up(),
            last_record: stretch.last_record.map(place),
        });
        let unreadable = damaged.into_iter().filter_map(unreadable);
        Ok(WalCoverage { spans: covered.collect(), unreadable: unreadable.collect() })
    }

    async fn facts(
        &self,
        ancestry: &Ancestry,
        from: Lsn,
        sink: &mut (dyn for<'f> FnMut(&'f Fact) -> ControlFlow<()> + Send),
    ) -> Result<()> {
        let mut parts = self.facts(ancestry, from, Lsn(u64::MAX)).passing_damage();
        while let Some(part) = parts.next().await? {
            let facts = match part {
                FactsPart::Facts { facts, .. } => in_order(*facts),
                FactsPart::Hole(hole) => {
                    unreadable(hole).map(Fact::Unreadable).into_iter().collect()
                }
            };
            if facts.iter().any(|fact| sink(fact).is_break()) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn tablespace_changes(
        &self,
        ancestry: &Ancestry,
        from: Lsn,
        to: Lsn,
    ) -> Result<Vec<TablespaceChange>> {
        self.tablespace_changes(ancestry, from, to).await
    }

    async fn parameter_changes(
        &self,
        ancestry: &Ancestry,
        from: Lsn,
        to: Lsn,
    ) -> Result<Vec<ParameterChange>> {
        // What cannot be read is for the proof to tell.
        let mut parts = self.facts(ancestry, from, to).passing_damage();
        let mut changes = Vec::new();
        while let Some(part) = parts.next().await? {
            let FactsPart::Facts { facts, .. } = part else { continue };
            changes.extend(facts.events.into_iter().filter_map(|event| match event.kind {
                EventKind::ParameterChange(change) => Some(change),
                _ => None,
            }));
        }
        Ok(changes)
    }

    async fn record_at_or_after(
        &self,
        ancestry: &Ancestry,
        lsn: Lsn,
    ) -> Result<Option<RecordPlace>> {
        Ok(self.records_around(ancestry, lsn).await?.at_or_after.map(place))
    }

    async fn prove(&self, ancestry: &Ancestry, from: Lsn, to: Lsn) -> Result<()> {
        // The history file itself is read, not only the name in a listing.
        self.ancestry(ancestry.tip()).await?;
        // A record's padding, up to seven bytes, need not be there before the next record is.
        let to = if to.0.is_multiple_of(8) { Lsn(to.0.saturating_sub(7)) } else { to };
        let last_byte = Lsn(to.0.saturating_sub(1));
        let segment_end = self.segment_at(ancestry.tip(), last_byte).end();
        let mut walker = self.walk(ancestry, from, segment_end, Detail::Bytes);
        while let Some(step) = walker.next().await? {
            match step {
                LogStep::Hole(hole) if hole.range.start < to => return Err(hole.into_error()),
                LogStep::Hole(_) | LogStep::Range { .. } => {}
            }
        }
        Ok(())
    }
}

fn unreadable(hole: WalHole) -> Option<UnreadableWal> {
    Some(UnreadableWal { start: hole.range.start, end: hole.range.end, why: hole.damage? })
}

const fn place(record: LastRecord) -> RecordPlace {
    RecordPlace { lsn: record.lsn, end: record.end }
}

/// What one part of the log says, in LSN order.
fn in_order(facts: WalFacts) -> Vec<Fact> {
    let mut ordered: Vec<Fact> = Vec::with_capacity(facts.commits.len());
    ordered.extend(facts.commits.into_iter().map(|commit| {
        Fact::Xact(XactFact {
            place: RecordPlace { lsn: commit.lsn, end: commit.end_lsn },
            xid: commit.xid,
            time: commit.time.to_timestamp(),
            kind: commit.kind,
            subxids: commit.subxids,
            database: commit.database,
            drops_relations: commit.drops_relations,
        })
    }));
    ordered.extend(facts.restore_points.into_iter().map(|point| Fact::RestorePoint {
        place: RecordPlace { lsn: point.lsn, end: point.end_lsn },
        name: point.name,
        time: point.time.to_timestamp(),
    }));
    ordered.extend(
        facts
            .time_marks
            .into_iter()
            .map(|mark| Fact::TimeMark { lsn: mark.lsn, time: mark.time.to_timestamp() }),
    );
    let minimal = facts.events.iter().filter(|event| event.kind.begins_minimal_wal());
    ordered.extend(minimal.map(|event| Fact::Minimal { lsn: event.lsn }));
    ordered.extend(facts.events.into_iter().filter_map(fact_of));
    ordered.sort_by_key(Fact::lsn);
    ordered
}

/// What an event says of databases, and of transactions that wait for their end.
fn fact_of(event: Event) -> Option<Fact> {
    let (lsn, xid) = (event.lsn, event.xid);
    match event.kind {
        EventKind::DatabaseRowChangedInPlace => Some(Fact::DatabaseRowChanged { lsn }),
        EventKind::DatabaseCreated(create) => {
            Some(Fact::DatabaseCreated { lsn, xid, database: create.database })
        }
        // `ALTER DATABASE … SET TABLESPACE` removes the old directory when it has committed, and in no
        // transaction (movedb, dbcommands.c, 12 to 18).
        EventKind::DatabaseDropped(_) if xid == 0 => None,
        EventKind::DatabaseDropped(drop) => {
            Some(Fact::DatabaseDropped { lsn, xid, database: drop.database })
        }
        EventKind::Prepared { xid, gid } => Some(Fact::Prepared { lsn, xid, gid }),
        _ => None,
    }
}
