use seawall_core::{
    Action, BackupId, Code, Error, Lsn, Result, TimelineId, WalSegmentSize, counted, hint,
};
use seawall_pgdata::history::Ancestry;

use super::resolver::{Cut, TargetFacts, not_archived, verify_tells};
use super::timeline::{no_such_backup, shown};
use super::{BackupFacts, RemovalLog, Resolver};
use crate::restore::{CoveredSpan, Point, RecordPlace, Target, UnreadableWal, WalCoverage};
use crate::restored::{CommitPlace, Stop};
use crate::verify::NotWhole;

/// What is known of a line along the ancestry that is followed.
#[derive(Debug, Clone)]
pub struct PlanInput {
    /// How far to go.
    pub target: Target,
    /// The backup to start from, if the user chose one.
    pub backup: Option<BackupId>,
    /// The line's backups that can be read.
    pub backups: Vec<BackupFacts>,
    /// Those that cannot, and why.
    pub unusable: Vec<(BackupId, NotWhole)>,
    /// The timeline to follow.
    pub ancestry: Ancestry,
    /// The WAL there is along it.
    pub wal: WalCoverage,
    /// For [`Point::Lsn`]: the first record that begins there or later. For
    /// [`Target::BackupOnly`]: the one that follows the backup ([`Planner::end_of_backup`]).
    pub record_at_target: Option<RecordPlace>,
    /// The cluster's WAL segment size.
    pub segment_size: WalSegmentSize,
}

impl PlanInput {
    /// What cannot be read in a hole.
    fn unreadable_in(&self, from: Lsn, to: Lsn) -> Option<&UnreadableWal> {
        self.wal.unreadable.iter().find(|it| from <= it.start && it.start < to)
    }
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The backup to start from.
    pub backup: BackupFacts,
    /// The timeline PostgreSQL is on when it stops.
    pub timeline: TimelineId,
    /// Where replay stops.
    pub stop: Stop,
    /// WAL is needed up to here.
    pub wal_end: Lsn,
    /// PostgreSQL stops when it reads the record that begins here, and where that ends is not
    /// known: [`Decision::set_stop_record`].
    pub stop_record_at: Option<Lsn>,
    /// The last transaction that is kept.
    pub last_commit_kept: Option<CommitPlace>,
    /// The first one that is left out.
    pub first_commit_left_out: Option<CommitPlace>,
    /// What was dropped before replay stops.
    pub(in crate::restore) removals: RemovalLog,
    /// Where the facts began.
    pub scanned_from: Lsn,
    /// That a verification found the backup damaged, and what else there is; also among the warnings.
    pub found_damaged: Option<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

impl Decision {
    /// Tells which record begins at [`Decision::stop_record_at`]: no WAL is needed behind it.
    pub fn set_stop_record(&mut self, record: RecordPlace) {
        self.wal_end = self.wal_end.min(record.end);
        self.stop_record_at = None;
    }
}

/// A backup whose own WAL is there, and the stretch that holds it.
#[derive(Debug, Clone)]
struct Usable {
    backup: BackupFacts,
    span: usize,
}

/// Chooses where to start and where to stop.
///
/// Ask [`Planner::scan_from`], feed a [`Planner::resolver`] all facts from there on, and give it
/// to [`Planner::decide`].
#[derive(Debug)]
pub struct Planner {
    input: PlanInput,
    /// In the order of their ends.
    usable: Vec<Usable>,
}

impl Planner {
    /// Sorts out which backups can be used at all.
    ///
    /// # Errors
    /// [`Code::NoSuchBackup`] if there is none, or not the one chosen; [`Code::TargetUnreachable`]
    /// and [`Code::WalGap`] if the one chosen cannot be used, with the reason.
    pub fn new(input: PlanInput) -> Result<Self> {
        let mut usable: Vec<Usable> = Vec::new();
        let mut unusable = None;
        for backup in &input.backups {
            if input.backup.is_some_and(|chosen| chosen != backup.id) {
                continue;
            }
            match span_of(&input, backup) {
                Ok(span) => usable.push(Usable { backup: backup.clone(), span }),
                Err(error) => unusable = Some(error),
            }
        }
        usable.sort_by_key(|usable| (usable.backup.stop_lsn, usable.backup.id));
        if usable.is_empty() {
            return Err(match (unusable, input.backup) {
                (Some(error), _) => error,
                (None, Some(id)) if input.unusable.iter().any(|(it, _)| *it == id) => damaged(id),
                (None, Some(id)) => no_such_backup(id),
                (None, None) => no_backup(&input),
            });
        }
        Ok(Self { input, usable })
    }

    /// Where the facts must begin.
    #[must_use]
    pub fn scan_from(&self) -> Lsn {
        let from = match &self.input.target {
            Target::BackupOnly => preferred(&self.usable),
            Target::Latest => preferred(self.in_last_span()),
            // Any from the preferred one on may be used in the end.
            Target::To(Point::Lsn(lsn)) | Target::Before(Point::Lsn(lsn)) => {
                let before = self.usable.partition_point(|usable| usable.backup.stop_lsn <= *lsn);
                preferred(self.usable.get(..before).unwrap_or_default())
            }
            Target::To(Point::Time(_) | Point::Xid(_) | Point::Name(_))
            | Target::Before(Point::Time(_) | Point::Xid(_) | Point::Name(_)) => None,
        };
        let first = from.or(self.usable.first());
        let may_be_used = |usable: &&Usable| {
            first.is_none_or(|first| usable.backup.stop_lsn >= first.backup.stop_lsn)
        };
        let starts = self.usable.iter().filter(may_be_used).map(|usable| usable.backup.start_lsn);
        starts.min().unwrap_or(Lsn::INVALID)
    }

    /// For [`Target::BackupOnly`]: the end of the backup that will be used.
    #[must_use]
    pub fn end_of_backup(&self) -> Option<Lsn> {
        let chosen = preferred(&self.usable).filter(|_| self.input.target == Target::BackupOnly)?;
        Some(chosen.backup.stop_lsn)
    }

    /// Tells what [`PlanInput::record_at_target`] was not known before.
    pub const fn set_record_at_target(&mut self, record: Option<RecordPlace>) {
        self.input.record_at_target = record;
    }

    /// What the facts are fed to.
    #[must_use]
    pub fn resolver(&self) -> Resolver {
        let at = |lsn| Some(Cut { lsn, record_end: None });
        let cut = match &self.input.target {
            Target::BackupOnly => {
                preferred(&self.usable).and_then(|usable| at(usable.backup.stop_lsn))
            }
            Target::Before(Point::Lsn(lsn)) => match self.input.record_at_target {
                Some(record) => Some(Cut { lsn: record.lsn, record_end: Some(record.end) }),
                None => at(*lsn),
            },
            // PostgreSQL's inclusive LSN keeps the first record that begins there or later.
            Target::To(Point::Lsn(lsn)) => {
                at(self.input.record_at_target.map_or(*lsn, |record| record.end.align_up()))
            }
            // What the facts are looked through for.
            Target::To(Point::Time(_) | Point::Xid(_) | Point::Name(_))
            | Target::Before(Point::Time(_) | Point::Xid(_) | Point::Name(_)) => None,
            // All of it is wanted.
            Target::Latest => None,
        };
        Resolver::new(self.input.target.clone(), cut)
    }

    /// Decides, once all facts are in.
    ///
    /// # Errors
    /// [`Code::TargetUnreachable`], [`Code::TargetInvalid`], [`Code::WalGap`] and
    /// [`Code::WalMinimal`], each with what can be reached instead.
    pub fn decide(&self, resolver: Resolver) -> Result<Decision> {
        let found = resolver.finish().map_err(|error| match error.hint() {
            Some(_) => error,
            None => error.with_hint(self.earliest()),
        })?;
        let unreadable = found.unreadable.clone();
        let mut decision = self.decide_found(found)?;
        self.prove_known(&decision, &unreadable)?;
        decision.warnings.extend(self.unreadable_warnings(&unreadable));
        Ok(decision)
    }

    fn decide_found(&self, found: TargetFacts) -> Result<Decision> {
        if self.input.target == Target::BackupOnly {
            let chosen = preferred(&self.usable).ok_or_else(|| no_backup(&self.input))?;
            let (stop, wal_end) = match self.input.record_at_target {
                // PostgreSQL looks whether it is consistent before it replays a record, and after
                // those that end a transaction: it has to see one that follows
                // (recoveryStopsBefore, recoveryStopsAfter; xlogrecovery.c).
                Some(next) => (Stop::Consistent { lsn: chosen.backup.stop_lsn }, next.end),
                None => {
                    let (_, stop, wal_end) = self.after_last_record(chosen.span)?;
                    (stop, wal_end)
                }
            };
            return Ok(self.decision(chosen, stop, wal_end, found));
        }
        let (span, stop, wal_end) = match found.cut {
            Some(cut) => self.stop_at(cut)?,
            None => self.stop_at_end()?,
        };
        self.prove_anchor(span, found.anchor)?;
        let chosen = self.choose(span, stop, &found.minimal)?;
        let is_open = found.cut.is_some_and(|cut| cut.record_end.is_none());
        let mut decision = self.decision(chosen, stop, wal_end, found);
        if let Stop::Before { lsn } = stop {
            decision.stop_record_at = Some(lsn).filter(|_| is_open);
        }
        Ok(decision)
    }

    /// Nothing that was decided may rest on what is not known. What is stored last and cannot be
    /// read is part of all that is archived.
    fn prove_known(&self, decision: &Decision, unreadable: &[UnreadableWal]) -> Result<()> {
        let from = decision.backup.start_lsn;
        let to = match self.input.target {
            Target::Latest => Lsn(u64::MAX),
            Target::BackupOnly | Target::To(_) | Target::Before(_) => decision.stop.kept_until(),
        };
        let needed = |it: &&UnreadableWal| it.start < to && (from < it.end || from <= it.start);
        let all = unreadable.iter().chain(&self.input.wal.unreadable);
        all.into_iter().find(needed).map_or(Ok(()), |unreadable| {
            Err(unreadable.error().with_hint(format!(
                "Restore up to it: `--before lsn:{}`, or use another repository.",
                unreadable.start
            )))
        })
    }

    fn unreadable_warnings(&self, unreadable: &[UnreadableWal]) -> Vec<String> {
        let mut warnings: Vec<String> = Vec::new();
        for unreadable in unreadable.iter().chain(&self.input.wal.unreadable) {
            let warning = format!("This restore does without: {}.", unreadable.told());
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        warnings
    }

    fn decision(&self, chosen: &Usable, stop: Stop, wal_end: Lsn, found: TargetFacts) -> Decision {
        let timeline = self.input.ancestry.timeline_at(stop.position());
        // What an abandoned end of the timeline has behind its fork is of no use.
        let fork = self.input.ancestry.fork_lsn_of(timeline);
        let wal_end = fork.map_or(wal_end, |fork| wal_end.min(fork));
        let found_damaged = self.found_damaged(&chosen.backup);
        let mut warnings: Vec<String> = found_damaged.iter().cloned().collect();
        warnings.extend(self.warnings(&chosen.backup, stop));
        warnings.extend(found.warnings);
        Decision {
            backup: chosen.backup.clone(),
            timeline,
            stop,
            wal_end,
            stop_record_at: None,
            last_commit_kept: found.last_commit_kept,
            first_commit_left_out: found.first_commit_left_out,
            removals: found.removals,
            scanned_from: self.scan_from(),
            found_damaged,
            warnings,
        }
    }

    fn warnings(&self, chosen: &BackupFacts, stop: Stop) -> Vec<String> {
        let mut warnings = Vec::new();
        if chosen.page_errors > 0 {
            warnings.push(format!(
                "Backup {} has {}, as its database had.",
                chosen.id,
                counted(chosen.page_errors, "damaged page")
            ));
        }
        let skipped = self.usable.iter().map(|usable| &usable.backup).filter(|backup| {
            backup.stop_lsn > chosen.stop_lsn && backup.stop_lsn <= stop.kept_until()
        });
        for backup in skipped {
            let why = match &backup.found_damaged {
                Some(found) => format!("a verification found it damaged {found}"),
                None if backup.page_errors > 0 => "it has page errors".to_owned(),
                None => continue,
            };
            warnings.push(format!("Newer backup {} is not used: {why}.", backup.id));
        }
        for (id, why) in self.input.unusable.iter().filter(|(id, _)| *id > chosen.id) {
            warnings.push(format!("Newer backup {id} {} and is not used.", why.predicate()));
        }
        warnings
    }

    /// What is damaged may be whole again, or not be needed: the proof before the first byte tells.
    fn found_damaged(&self, chosen: &BackupFacts) -> Option<String> {
        let found = chosen.found_damaged.as_ref()?;
        let is_whole = |usable: &&Usable| usable.backup.found_damaged.is_none();
        let other = match (self.input.backup, self.usable.iter().rfind(is_whole)) {
            (Some(_), _) => String::new(),
            (None, Some(Usable { backup, .. })) => format!(
                ", and no other leads to this target; the newest that was not is {}, `--backup {}`",
                backup.id, backup.id
            ),
            (None, None) => ", and so was every other".to_owned(),
        };
        Some(format!(
            "Backup {} was found damaged by a verification {found}{other}. All that this restore needs of it is read before anything is written, and what is damaged still stops it there.",
            chosen.id
        ))
    }

    fn in_last_span(&self) -> &[Usable] {
        let last = self.input.wal.spans.len().saturating_sub(1);
        let from = self.usable.partition_point(|usable| usable.span < last);
        self.usable.get(from..).unwrap_or_default()
    }

    fn stop_at_end(&self) -> Result<(usize, Stop, Lsn)> {
        let last = self.input.wal.spans.len().saturating_sub(1);
        self.after_last_record(last)
    }

    fn after_last_record(&self, index: usize) -> Result<(usize, Stop, Lsn)> {
        let record = self.input.wal.spans.get(index).and_then(|span| span.last_record);
        let record = record.ok_or_else(|| {
            Error::new(Code::TargetUnreachable, "the archived WAL holds no whole record")
                .with_hint(hint![Action::ListWal, " shows what is archived."])
        })?;
        let stop = Stop::After { lsn: record.lsn, end: record.end.align_up() };
        Ok((index, stop, record.end))
    }

    fn stop_at(&self, cut: Cut) -> Result<(usize, Stop, Lsn)> {
        let spans = &self.input.wal.spans;
        let reaches = |span: &CoveredSpan| cut.lsn <= self.record_position(span.end);
        let Some(index) = spans.iter().position(reaches) else {
            let end = spans.last().map_or(Lsn::INVALID, |span| span.end);
            if let Some(unreadable) = self.input.unreadable_in(end, Lsn(u64::MAX)) {
                return Err(unreadable.error());
            }
            return Err(Error::new(
                Code::TargetUnreachable,
                format!("{} is not archived: the archive ends at LSN {end}", cut.lsn),
            )
            .with_hint(not_archived()));
        };
        let Some(span) = spans.get(index).filter(|span| span.start <= cut.lsn) else {
            let from = index.checked_sub(1).and_then(|before| spans.get(before));
            return Err(match (from, spans.get(index)) {
                (Some(before), Some(after)) => gap(&self.input, before.end, after.start),
                _ => self.too_early(),
            });
        };
        if span.last_record.is_some_and(|last| last.lsn >= cut.lsn) {
            let wal_end = cut.record_end.unwrap_or(span.end);
            Ok((index, Stop::Before { lsn: cut.lsn }, wal_end))
        } else {
            self.after_last_record(index)
        }
    }

    /// What shows that a stretch of WAL was not yet past the time wanted has to lie in it. A time
    /// within the hole before it would else be taken for the quiet one until its first commit.
    fn prove_anchor(&self, index: usize, anchor: Option<Lsn>) -> Result<()> {
        let spans = &self.input.wal.spans;
        let before = index.checked_sub(1).and_then(|before| spans.get(before));
        match (anchor, before, spans.get(index)) {
            (Some(anchor), Some(before), Some(span)) if anchor < span.start => {
                Err(gap(&self.input, before.end, span.start))
            }
            _ => Ok(()),
        }
    }

    /// The backup to reach `stop` from, which lies in one stretch of WAL. What was written with
    /// `wal_level = minimal` is in backups that were made afterwards, and not in the WAL before.
    fn choose(&self, span: usize, stop: Stop, minimal: &[Lsn]) -> Result<&Usable> {
        let until = self.usable.partition_point(|it| it.backup.stop_lsn <= stop.kept_until());
        let early_enough = self.usable.get(..until).unwrap_or_default();
        let from = early_enough.partition_point(|usable| usable.span < span);
        let in_stretch = early_enough.get(from..).unwrap_or_default();
        let lacking = |usable: &Usable| {
            let replayed = usable.backup.start_lsn..stop.kept_until();
            minimal.iter().find(|lsn| replayed.contains(lsn)).copied()
        };
        let candidates: Vec<&Usable> =
            in_stretch.iter().filter(|usable| lacking(usable).is_none()).collect();
        if let Some(chosen) = preferred(candidates.iter().copied()) {
            return Ok(chosen);
        }
        if let Some(newest) = in_stretch.last()
            && let Some(lsn) = lacking(newest)
        {
            return Err(self.minimal(newest, lsn));
        }
        let Some(nearest) = early_enough.last() else { return Err(self.too_early()) };
        let ends = |index: usize| self.input.wal.spans.get(index);
        Err(match (ends(nearest.span), ends(nearest.span + 1)) {
            (Some(before), Some(after)) => gap(&self.input, before.end, after.start),
            _ => self.too_early(),
        })
    }

    /// That a backup cannot be rolled forward past a change to `wal_level = minimal`.
    fn minimal(&self, newest: &Usable, lsn: Lsn) -> Error {
        let later = self.usable.iter().find(|usable| usable.backup.start_lsn > lsn);
        let what = format!(
            "wal_level was set to minimal at LSN {lsn}, after backup {} began: what was written then is not in the WAL, and a restore across it would lose it or fail",
            newest.backup.id
        );
        let beyond = match later {
            Some(Usable { backup, .. }) => format!(
                "the next moment that can be restored is the end of backup {}, LSN {}, about {}",
                backup.id,
                backup.stop_lsn,
                shown(backup.finished_at)
            )
            .into(),
            None => hint![
                "what came after can be restored only from a backup made since: if the server still runs, ",
                Action::Backup { cluster: None },
                " now"
            ],
        };
        let up_to = format!("Restore up to it: `--before lsn:{lsn}`; ");
        Error::new(Code::WalMinimal, what).with_hint(hint![up_to, beyond, "."])
    }

    fn too_early(&self) -> Error {
        let what = match self.input.backup {
            Some(id) => format!("backup {id} is consistent only after the target"),
            None => "the target lies before the end of the first backup".to_owned(),
        };
        Error::new(Code::TargetUnreachable, what).with_hint(self.earliest())
    }

    /// The earliest moment that can be restored, as a sentence.
    fn earliest(&self) -> String {
        let Some(Usable { backup, .. }) = self.usable.first() else { return String::new() };
        format!(
            "The earliest moment that can be restored{} is LSN {}, about {}: `--backup {} --backup-only`.",
            if self.input.backup.is_some() { " from it" } else { "" },
            backup.stop_lsn,
            shown(backup.finished_at),
            backup.id,
        )
    }

    /// Where a record begins that follows what ends at `lsn`: behind a page header if a page does.
    fn record_position(&self, lsn: Lsn) -> Lsn {
        record_position(lsn, self.input.segment_size)
    }
}

/// The newest without page errors that no verification found damaged, else the newest that none did,
/// else the newest. Page errors were the database's own, and such a backup can be restored.
fn preferred<'u>(
    candidates: impl IntoIterator<Item = &'u Usable, IntoIter: DoubleEndedIterator + Clone>,
) -> Option<&'u Usable> {
    let mut candidates = candidates.into_iter();
    let is_whole = |usable: &&Usable| usable.backup.found_damaged.is_none();
    let is_best = |usable: &&Usable| is_whole(usable) && usable.backup.page_errors == 0;
    let best = candidates.clone().rfind(is_best).or_else(|| candidates.clone().rfind(is_whole));
    best.or_else(|| candidates.next_back())
}

/// Where a record begins that follows what ends at `lsn`: behind a page header if a page begins
/// there (`SizeOfXLogShortPHD`, `SizeOfXLogLongPHD`; xlog_internal.h).
#[must_use]
pub(in crate::restore) const fn record_position(lsn: Lsn, segment_size: WalSegmentSize) -> Lsn {
    if lsn.0.is_multiple_of(segment_size.bytes()) {
        lsn.saturating_add(40)
    } else if lsn.0.is_multiple_of(8192) {
        lsn.saturating_add(24)
    } else {
        lsn
    }
}

/// The stretch of WAL that leads from a backup's start to its end.
fn span_of(input: &PlanInput, backup: &BackupFacts) -> Result<usize> {
    let on_the_way = input.ancestry.contains(backup.stop_timeline, backup.stop_lsn)
        && input.ancestry.contains(backup.start_timeline, backup.start_lsn);
    if !on_the_way {
        return Err(Error::new(Code::TargetUnreachable, not_on_the_way(&input.ancestry, backup))
            .with_hint(format!(
                "Follow its own timeline: `--timeline {}`.",
                backup.stop_timeline
            )));
    }
    let holds = |span: &CoveredSpan| span.start <= backup.start_lsn && backup.stop_lsn <= span.end;
    input.wal.spans.iter().position(holds).ok_or_else(|| {
        if let Some(unreadable) = input.unreadable_in(backup.start_lsn, backup.stop_lsn) {
            return unreadable.error();
        }
        Error::new(
            Code::WalGap,
            format!(
                "WAL of backup {} is missing: it needs LSN {} to {}",
                backup.id, backup.start_lsn, backup.stop_lsn
            ),
        )
        .with_hint(hint![
            Action::ListWal,
            " shows what is archived; use an older backup or another repository."
        ])
    })
}

fn not_on_the_way(ancestry: &Ancestry, backup: &BackupFacts) -> String {
    let (timeline, tip) = (backup.stop_timeline, ancestry.tip());
    let forked = match ancestry.fork_lsn_of(timeline) {
        Some(fork) => format!(": that leaves timeline {timeline} at LSN {fork}"),
        None => String::new(),
    };
    format!(
        "backup {} ended at LSN {} on timeline {timeline}, which is not on the way to timeline {tip}{forked}",
        backup.id, backup.stop_lsn
    )
}

/// The hole between two stretches: nothing is archived there, or nothing that can be read.
fn gap(input: &PlanInput, from: Lsn, to: Lsn) -> Error {
    let error = match input.unreadable_in(from, to) {
        Some(unreadable) => unreadable.error(),
        None => Error::new(Code::WalGap, format!("WAL from LSN {from} to {to} is not archived")),
    };
    error.with_hint(format!(
        "Restore up to the hole: `--before lsn:{from}`, or use another repository."
    ))
}

fn no_backup(input: &PlanInput) -> Error {
    let error = Error::new(Code::NoSuchBackup, "there is no backup that can be restored");
    if input.unusable.is_empty() {
        error.with_hint(hint!["Make one: ", Action::Backup { cluster: None }, "."])
    } else {
        error.with_hint(verify_tells())
    }
}

fn damaged(id: BackupId) -> Error {
    Error::new(Code::ObjectDamaged, format!("backup {id} is damaged")).with_hint(verify_tells())
}
