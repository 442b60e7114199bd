use jiff::Timestamp;
use seawall_core::{Action, Code, Error, Hint, Lsn, Result, Xid, hint, printable};

use super::RemovalLog;
use crate::restore::{Fact, Point, RecordPlace, Target, UnreadableWal, XactFact};
use crate::restored::CommitPlace;

/// The position where a target cuts the log: everything before it is wanted, nothing from it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub lsn: Lsn,
    /// The end of the record that begins there, if it is known.
    pub record_end: Option<Lsn>,
}

/// What the facts say about a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TargetFacts {
    /// `None`: everything is wanted.
    pub cut: Option<Cut>,
    /// For a time, where the last fact is that is not later and comes before the cut.
    pub anchor: Option<Lsn>,
    pub last_commit_kept: Option<CommitPlace>,
    pub first_commit_left_out: Option<CommitPlace>,
    /// What was dropped before the cut.
    pub removals: RemovalLog,
    pub warnings: Vec<String>,
    /// What is not known of the log, as far as it was read.
    pub unreadable: Vec<UnreadableWal>,
    /// Where `wal_level` became `minimal`, as far as the log was read.
    pub minimal: Vec<Lsn>,
}

/// What to do about a target behind the end of the archive.
pub(super) fn not_archived() -> Hint {
    hint![
        "If the server still runs, have its last WAL archived: \
         `SELECT pg_catalog.pg_switch_wal();`, and try again a little later. If it is lost and its \
         disk can be read, push what is in its pg_wal: ",
        Action::PushPartialWal { cluster: None },
        ". Else, or if nothing was committed since, `--latest` is all there is."
    ]
}

/// What to do about a transaction or a restore point that is not found.
fn not_found() -> Hint {
    hint![
        "If it was made just now it is not archived yet: `SELECT pg_catalog.pg_switch_wal();` on \
         the server, then try again. Else check the spelling and the timeline; ",
        Action::Info,
        " shows the recovery window."
    ]
}

/// What to do about damage.
pub(super) fn verify_tells() -> Hint {
    hint![Action::Verify, " tells what is damaged; another repository may be whole."]
}

impl UnreadableWal {
    /// What is the matter, in words.
    pub(super) fn told(&self) -> String {
        format!("WAL from LSN {} on cannot be read: {}", self.start, self.why)
    }

    pub(super) fn error(&self) -> Error {
        Error::new(Code::ObjectDamaged, self.told()).with_hint(verify_tells())
    }
}

/// Finds where a target cuts the log. It is fed the log's facts in LSN order and keeps none of
/// them, however many there are.
#[derive(Debug)]
pub struct Resolver {
    target: Target,
    cut: Option<Cut>,
    /// Records that a name or a transaction number refers to.
    matches: Vec<Lsn>,
    rolled_back: bool,
    /// The transaction wanted was prepared there, by that name.
    prepared: Option<(Lsn, String)>,
    /// The last fact before the cut that is not later than the time wanted.
    anchor: Option<Lsn>,
    /// A fact later than the time wanted came.
    passed: bool,
    latest_time: Option<Timestamp>,
    last_commit_kept: Option<CommitPlace>,
    first_commit_left_out: Option<CommitPlace>,
    removals: RemovalLog,
    unreadable: Vec<UnreadableWal>,
    minimal: Vec<Lsn>,
}

impl Resolver {
    /// `cut` is given where it is known without any fact.
    pub(super) fn new(target: Target, cut: Option<Cut>) -> Self {
        Self {
            target,
            cut,
            matches: Vec::new(),
            rolled_back: false,
            prepared: None,
            anchor: None,
            passed: false,
            latest_time: None,
            last_commit_kept: None,
            first_commit_left_out: None,
            removals: RemovalLog::default(),
            unreadable: Vec::new(),
            minimal: Vec::new(),
        }
    }

    /// Takes the next fact, which begins after all before.
    pub fn feed(&mut self, fact: &Fact) {
        if let Some(time) = fact.time() {
            self.note_time(fact.lsn(), time);
        }
        match fact {
            Fact::Unreadable(unreadable) => self.unreadable.push(unreadable.clone()),
            Fact::Minimal { lsn } => self.minimal.push(*lsn),
            Fact::Xact(xact) => {
                self.note_xact(xact);
                self.note_commit(xact);
            }
            Fact::RestorePoint { place, name, .. } => self.note_restore_point(*place, name),
            Fact::Prepared { lsn, xid, gid } => {
                if self.is_wanted(*xid) {
                    self.prepared = Some((*lsn, gid.clone()));
                }
            }
            Fact::TimeMark { .. }
            | Fact::DatabaseRowChanged { .. }
            | Fact::DatabaseCreated { .. }
            | Fact::DatabaseDropped { .. } => {}
        }
        if self.cut.is_none_or(|cut| fact.lsn() < cut.lsn) {
            self.removals.feed(fact);
            self.removals.keep_last();
        }
    }

    /// Whether facts that follow cannot change anything any more.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        let unique = match self.target.point() {
            Some(Point::Xid(_) | Point::Name(_)) => false,
            Some(Point::Time(_) | Point::Lsn(_)) | None => true,
        };
        unique && self.cut.is_some() && self.first_commit_left_out.is_some()
    }

    fn note_time(&mut self, lsn: Lsn, (earliest, latest): (Timestamp, Timestamp)) {
        self.latest_time = self.latest_time.max(Some(earliest));
        self.passed |= self.target.is_past(earliest) == Some(true);
        if self.target.is_past(latest) == Some(false) && self.cut.is_none() {
            self.anchor = Some(lsn);
        }
    }

    fn note_xact(&mut self, xact: &XactFact) {
        let place = xact.place;
        if self.target.is_past(xact.time) == Some(true) && self.cut.is_none() {
            self.cut = Some(Cut { lsn: place.lsn, record_end: Some(place.end) });
        }
        if self.is_wanted(xact.xid) || xact.subxids.iter().any(|xid| self.is_wanted(*xid)) {
            self.rolled_back = !xact.kind.is_commit();
            self.note_match(place);
        }
    }

    /// Whether a transaction is the target. The log has 32 bits of its number; so does
    /// `recovery_target_xid`.
    fn is_wanted(&self, xid: Xid) -> bool {
        match self.target.point() {
            Some(Point::Xid(wanted)) => u64::from(xid) == wanted & u64::from(u32::MAX),
            Some(Point::Time(_) | Point::Lsn(_) | Point::Name(_)) | None => false,
        }
    }

    fn note_restore_point(&mut self, place: RecordPlace, name: &str) {
        match self.target.point() {
            Some(Point::Name(wanted)) if wanted == name => self.note_match(place),
            Some(Point::Name(_) | Point::Time(_) | Point::Lsn(_) | Point::Xid(_)) | None => {}
        }
    }

    fn note_match(&mut self, place: RecordPlace) {
        self.matches.push(place.lsn);
        if self.cut.is_none() {
            self.cut = match self.target {
                Target::To(_) => Some(Cut { lsn: place.end.align_up(), record_end: None }),
                Target::Before(_) => Some(Cut { lsn: place.lsn, record_end: Some(place.end) }),
                Target::Latest | Target::BackupOnly => None,
            };
        }
    }

    fn note_commit(&mut self, xact: &XactFact) {
        if !xact.kind.is_commit() {
            return;
        }
        let commit = CommitPlace { xid: xact.xid, lsn: xact.place.lsn, time: xact.time };
        if self.cut.is_none_or(|cut| xact.place.lsn < cut.lsn) {
            self.last_commit_kept = Some(commit);
        } else if self.first_commit_left_out.is_none() {
            self.first_commit_left_out = Some(commit);
        }
    }

    /// What all facts together say.
    pub(super) fn finish(self) -> Result<TargetFacts> {
        let mut warnings = Vec::new();
        match self.target.point() {
            Some(Point::Time(wanted)) => self.prove_time(*wanted)?,
            Some(point @ (Point::Xid(_) | Point::Name(_))) => {
                self.prove_unique(point)?;
                if self.rolled_back {
                    warnings.push(format!("{point} was rolled back: none of its changes exist."));
                }
            }
            // Where that cuts the log is known without any fact.
            Some(Point::Lsn(_)) | None => {}
        }
        Ok(TargetFacts {
            cut: self.cut,
            anchor: self.anchor,
            last_commit_kept: self.last_commit_kept,
            first_commit_left_out: self.first_commit_left_out,
            removals: self.removals,
            warnings,
            unreadable: self.unreadable,
            minimal: self.minimal,
        })
    }

    fn prove_time(&self, wanted: Timestamp) -> Result<()> {
        if !self.passed {
            let latest = self.latest_time.map_or_else(
                || "no time at all is known from the archived WAL".to_owned(),
                |latest| format!("the archived WAL reaches to {latest}"),
            );
            return Err(Error::new(
                Code::TargetUnreachable,
                format!(
                    "{wanted} is later than what is archived: {latest}{}",
                    self.and_unreadable()
                ),
            )
            .with_hint(not_archived()));
        }
        if self.anchor.is_none() {
            return Err(Error::new(
                Code::TargetUnreachable,
                format!("{wanted} is earlier than the first backup that could lead there"),
            ));
        }
        Ok(())
    }

    /// How the target was given.
    const fn option(&self) -> &'static str {
        if matches!(self.target, Target::To(_)) { "--to" } else { "--before" }
    }

    /// Where else it may be, to go on a sentence with.
    fn and_unreadable(&self) -> String {
        let told = |unreadable: &UnreadableWal| format!("; {}", unreadable.told());
        self.unreadable.first().map(told).unwrap_or_default()
    }

    fn prove_unique(&self, point: &Point) -> Result<()> {
        match (self.matches.as_slice(), &self.prepared) {
            ([], Some((lsn, gid))) => Err(self.not_ended(point, *lsn, gid)),
            (matches, _) => self.prove_one(point, matches),
        }
    }

    /// A prepared transaction that waits for its end.
    fn not_ended(&self, point: &Point, lsn: Lsn, gid: &str) -> Error {
        let gid = printable(gid).replace('\'', "''");
        let what = format!(
            "{point} was prepared at LSN {lsn} as '{gid}', and has neither committed nor been rolled back in the archived WAL{}",
            self.and_unreadable()
        );
        Error::new(Code::TargetUnreachable, what).with_hint(format!(
            "With `--to lsn:{lsn}` the restored server has it prepared, to be ended there: `COMMIT PREPARED '{gid}';`. If it was ended just now on the server it is not archived yet: `SELECT pg_catalog.pg_switch_wal();` there, then try again."
        ))
    }

    fn prove_one(&self, point: &Point, matches: &[Lsn]) -> Result<()> {
        match matches {
            [] => Err(Error::new(
                Code::TargetUnreachable,
                format!(
                    "{point} is not in the archived WAL since the first usable backup{}",
                    self.and_unreadable()
                ),
            )
            .with_hint(not_found())),
            [one] => match self.unreadable.first() {
                None => Ok(()),
                Some(unreadable) => Err(unreadable
                    .error()
                    .context(format!("{point} is at LSN {one}, and it may be there a second time"))
                    .with_hint(hint![
                        format!(
                            "Say which one by its place, such as `{} lsn:{one}`; ",
                            self.option()
                        ),
                        Action::Verify,
                        " tells what is damaged."
                    ])),
            },
            several => {
                let places: Vec<String> = several.iter().map(Lsn::to_string).collect();
                Err(Error::new(
                    Code::TargetInvalid,
                    format!(
                        "{point} is in the WAL {} times: at {}",
                        several.len(),
                        places.join(", ")
                    ),
                )
                .with_hint(format!(
                    "Say which one by its place, such as `{} lsn:{}`.",
                    self.option(),
                    places.last().map_or("", String::as_str)
                )))
            }
        }
    }
}
