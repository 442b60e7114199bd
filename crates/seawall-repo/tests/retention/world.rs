//! A cluster's past as it happened: who wrote what and when. It knows no rule.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use jiff::{SignedDuration, Timestamp};
use seawall_core::{BackupId, Lsn, TimelineId, Ulid, WalSegmentSize};
use seawall_pgdata::history::Ancestry;
use seawall_repo::retention::{
    BackupFacts, BackupFate, BackupSpan, KeepReason, LineFacts, LinePlan, PinFacts, Policy,
    TimelineWal, WalFate, WalSpans, plan,
};
use seawall_repo::wal::LsnRange;

pub const SEGMENT: u64 = 1 << 20;

pub fn segment_size() -> WalSegmentSize {
    WalSegmentSize::new(1 << 20).unwrap()
}

/// WAL that was archived in one piece.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub timeline: TimelineId,
    pub range: LsnRange,
    pub at: Timestamp,
}

/// What happened so far.
#[derive(Debug, Clone)]
pub struct World {
    pub now: Timestamp,
    /// Of each timeline, what it left and where, and where its log ends.
    pub timelines: BTreeMap<TimelineId, (Vec<(TimelineId, Lsn)>, Lsn)>,
    /// The timeline that is written.
    pub on: TimelineId,
    pub backups: Vec<BackupFacts>,
    pub pins: Vec<PinFacts>,
    pub pieces: Vec<Piece>,
    /// How many backups were made, those that are gone too.
    made: u128,
}

impl World {
    pub fn new(now: &str) -> Self {
        let first = (Vec::new(), Lsn(SEGMENT));
        Self {
            now: now.parse().unwrap(),
            timelines: BTreeMap::from([(TimelineId(1), first)]),
            on: TimelineId(1),
            backups: Vec::new(),
            pins: Vec::new(),
            pieces: Vec::new(),
            made: 0,
        }
    }

    pub fn end(&self) -> Lsn {
        self.timelines[&self.on].1
    }

    pub fn wait_hours(&mut self, hours: i64) {
        self.now += SignedDuration::from_hours(hours);
    }

    /// Writes WAL, archived or not.
    pub fn write(&mut self, bytes: u64, is_archived: bool) {
        let (timeline, start) = (self.on, self.end());
        let end = Lsn(start.0 + bytes);
        if is_archived {
            let range = LsnRange { start, end };
            self.pieces.push(Piece { timeline, range, at: self.now });
        }
        self.timelines.get_mut(&timeline).unwrap().1 = end;
    }

    /// A good backup; its index.
    pub fn backup(&mut self) -> usize {
        let start = self.end();
        self.write(SEGMENT / 4, true);
        self.made += 1;
        self.backups.push(BackupFacts {
            id: BackupId(Ulid(self.made)),
            span: BackupSpan {
                start_timeline: self.on,
                start,
                stop_timeline: self.on,
                stop: self.end(),
            },
            written: self.now,
            has_page_errors: false,
            is_doubted: false,
            is_damaged: false,
            is_verified: false,
            is_held: false,
            delete_asked: false,
            stored_bytes: 1000,
        });
        self.backups.len() - 1
    }

    /// A day passes: WAL, then a backup.
    pub fn day(&mut self) -> usize {
        self.write(3 * SEGMENT, true);
        self.wait_hours(24);
        self.backup()
    }

    /// A server is restored to a position of a timeline and promoted.
    pub fn promote(&mut self, from: TimelineId, at: Lsn) {
        let (mut past, _) = self.timelines[&from].clone();
        past.push((from, at));
        let new = TimelineId(self.timelines.keys().next_back().unwrap().0 + 1);
        self.timelines.insert(new, (past, at));
        self.on = new;
    }

    pub fn ancestry(&self, timeline: TimelineId) -> Ancestry {
        let (past, _) = &self.timelines[&timeline];
        let lines: String =
            past.iter().map(|(left, at)| format!("{left}\t{at}\tno recovery target\n")).collect();
        if lines.is_empty() {
            Ancestry::root(timeline)
        } else {
            Ancestry::parse(timeline, lines.as_bytes()).unwrap()
        }
    }

    pub fn facts(&self) -> LineFacts {
        let mut wal = BTreeMap::<TimelineId, TimelineWal>::new();
        for piece in &self.pieces {
            let of = wal.entry(piece.timeline).or_insert_with(|| TimelineWal {
                timeline: piece.timeline,
                spans: WalSpans::default(),
                written: piece.at,
                objects: 0,
                stored_bytes: 0,
            });
            of.spans.add(piece.range);
            of.written = of.written.max(piece.at);
            of.objects += 1;
        }
        LineFacts {
            now: self.now,
            segment_size: segment_size(),
            timelines: self.timelines.keys().map(|timeline| self.ancestry(*timeline)).collect(),
            backups: self.backups.clone(),
            unread: Vec::new(),
            pins: self.pins.clone(),
            wal: wal.into_values().collect(),
            unknown: Vec::new(),
        }
    }

    pub fn plan(&self, policy: &Policy) -> LinePlan {
        plan(&self.facts(), policy).unwrap()
    }

    /// The indexes of the backups that a plan keeps.
    pub fn kept(&self, plan: &LinePlan) -> Vec<usize> {
        let kept = plan.backups.iter().filter(|it| matches!(it.fate, BackupFate::Keep(_)));
        let place = |id: BackupId| self.backups.iter().position(|backup| backup.id == id);
        let mut kept: Vec<usize> = kept.map(|it| place(it.id.0).unwrap()).collect();
        kept.sort_unstable();
        kept
    }

    /// The days on which backups that are kept were made.
    pub fn kept_with(&self, policy: &Policy) -> Vec<usize> {
        self.kept(&self.plan(policy))
    }

    /// Deletes what a plan lets go: backups, and pieces of WAL that lie wholly in what goes.
    pub fn prune(&mut self, policy: &Policy) {
        let plan = self.plan(policy);
        let kept = self.kept(&plan);
        let mut index = 0;
        self.backups.retain(|_| {
            index += 1;
            kept.contains(&(index - 1))
        });
        self.pieces.retain(|piece| !goes(&plan, piece.timeline, piece.range));
    }

    /// Whether a backup leads to a position with the WAL of which `is_there` is true, byte by byte of
    /// what was archived.
    pub fn leads_to(
        &self,
        backup: &BackupFacts,
        timeline: TimelineId,
        to: Lsn,
        is_there: impl Fn(&Piece) -> bool,
    ) -> bool {
        let ancestry = self.ancestry(timeline);
        if !ancestry.contains(backup.span.stop_timeline, backup.span.stop) || backup.span.stop > to
        {
            return false;
        }
        let mut at = backup.span.start;
        while at < to {
            let wrote = ancestry.timeline_at(at);
            let until = ancestry.fork_lsn_of(wrote).unwrap_or(Lsn(u64::MAX));
            let next = self.pieces.iter().find(|piece| {
                piece.timeline == wrote
                    && piece.range.start <= at
                    && at < piece.range.end
                    && is_there(piece)
            });
            match next {
                Some(piece) => at = piece.range.end.min(until),
                None => return false,
            }
        }
        true
    }
}

/// Whether all of a piece goes: an object of which a part stays, stays.
pub fn goes(plan: &LinePlan, timeline: TimelineId, range: LsnRange) -> bool {
    let mut left = vec![range];
    for (_, going) in plan.going_wal().filter(|(of, _)| *of == timeline) {
        going.subtract_from(&mut left);
    }
    left.is_empty()
}

/// Whether all of a stretch stays.
pub fn stays(plan: &LinePlan, timeline: TimelineId, range: LsnRange) -> bool {
    let going = plan.wal.iter().filter(|wal| wal.fate == WalFate::Go && wal.timeline == timeline);
    going.map(|wal| wal.range).all(|going| going.overlap(range).is_none())
}

pub fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

pub fn last(count: u32) -> Policy {
    Policy { last: NonZeroU32::new(count), ..Policy::none() }
}

pub fn window(of_days: i64) -> Policy {
    Policy { window: Some(days(of_days)), ..Policy::none() }
}

/// Why a backup is kept.
pub fn why(plan: &LinePlan, backup: &BackupFacts) -> Vec<KeepReason> {
    let decided = plan.backups.iter().find(|it| it.id.0 == backup.id).unwrap();
    match &decided.fate {
        BackupFate::Keep(why) => why.clone(),
        BackupFate::Go(_) => Vec::new(),
    }
}
