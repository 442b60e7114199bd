//! What is known of a backup by all events about it.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use seawall_core::{BackupId, Code, Error, Result, Ulid};
use seawall_repo::layout::{LineObject, ObjectName};
use seawall_repo::records::Event;
use seawall_repo::{Line, READS_AT_ONCE};
use serde::Serialize;

use super::{ANNOTATE, DELETE_INTENT, HOLD, OTHERS, REASON, RELEASE, UNTIL, Verdict};

/// Somebody wants a backup to stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// Since when, by the clock of the host it was asked for on.
    pub since: Timestamp,
    /// Until when; for ever, if that is not said.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

/// What is known of a backup by events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What the last verification found.
    pub verdict: Option<Verdict>,
    /// The last hold, unless it was released. It may have run out.
    pub hold: Option<Hold>,
    /// When somebody asked for it to go, unless a hold came after that.
    pub delete_asked_at: Option<Timestamp>,
    /// Notes that were made, or taken away, since the backup was.
    pub annotations: BTreeMap<String, Option<String>>,
}

impl Standing {
    /// The hold that counts at a time.
    #[must_use]
    pub fn hold_at(&self, now: Timestamp) -> Option<&Hold> {
        self.hold.as_ref().filter(|hold| hold.until.is_none_or(|until| now < until))
    }

    /// Whether it is to go on request. A hold wins that the other one did not see.
    #[must_use]
    pub fn is_asked_to_go_at(&self, now: Timestamp) -> bool {
        self.delete_asked_at.is_some() && self.hold_at(now).is_none()
    }

    /// The notes of a backup, with those that were made since.
    #[must_use]
    pub fn annotated(&self, made_with: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut notes = made_with.clone();
        for (name, note) in &self.annotations {
            match note {
                Some(note) => _ = notes.insert(name.clone(), note.clone()),
                None => _ = notes.remove(name),
            }
        }
        notes
    }
}

/// What is known of the backups of a line by events.
#[derive(Debug, Default)]
pub struct Standings {
    /// Of each that has any.
    pub known: BTreeMap<BackupId, Standing>,
    /// Why it is not known of another what its last verification found.
    pub unread: Option<Error>,
    /// Why it is not known of another whether it is held, or asked to go.
    pub undecided: Option<Error>,
}

impl Standings {
    /// What is known of a backup.
    #[must_use]
    pub fn of(&self, id: BackupId) -> Option<&Standing> {
        self.known.get(&id)
    }
}

/// Reads the events of a line. One that cannot be read leaves unknown what it is about, as far as no
/// newer one tells: an older one may say something else.
pub async fn standings(line: &Line) -> Standings {
    let events = match events_of(line).await {
        Ok(events) => events,
        Err(error) => {
            let undecided = Some(Error::new(error.code(), error.chain()));
            return Standings { unread: Some(error), undecided, ..Standings::default() };
        }
    };
    let read = events.into_iter().map(|(subject, numbers)| Reading::of(line, subject, numbers));
    let read: Vec<Reading> = stream::iter(read).buffered(READS_AT_ONCE).collect().await;
    let mut standings = Standings::default();
    for Reading { id, standing, unread, undecided, .. } in read {
        if unread.is_some() {
            standings.unread = standings.unread.or(unread);
        }
        if undecided.is_some() {
            standings.undecided = standings.undecided.or(undecided);
        }
        if standing != Standing::default() {
            standings.known.insert(id, standing);
        }
    }
    standings
}

/// What is known of one backup by events.
///
/// # Errors
/// A store that fails, or an event that cannot be read or understood.
pub(crate) async fn standing_of(line: &Line, id: BackupId) -> Result<Standing> {
    let mut numbers = Vec::new();
    for path in line.repository().list(&line.paths().below(&format!("events/{}", id.0))?).await? {
        if let Some(ObjectName::Line(_, _, LineObject::Event(_, number))) = ObjectName::parse(&path)
        {
            numbers.push(number);
        }
    }
    let Reading { standing, unread, undecided, .. } = Reading::of(line, id.0, numbers).await;
    match unread.or(undecided) {
        None => Ok(standing),
        Some(error) => Err(error),
    }
}

/// The numbers of the events there are, by what they are about.
async fn events_of(line: &Line) -> Result<BTreeMap<Ulid, Vec<u32>>> {
    let mut events: BTreeMap<Ulid, Vec<u32>> = BTreeMap::new();
    for path in line.repository().list(&line.paths().below("events")?).await? {
        if let Some(ObjectName::Line(_, _, LineObject::Event(subject, number))) =
            ObjectName::parse(&path)
        {
            events.entry(subject).or_default().push(number);
        }
    }
    Ok(events)
}

/// Events of one backup, read from the newest back.
struct Reading {
    id: BackupId,
    standing: Standing,
    /// Whether a newer event tells of a hold or its end.
    is_hold_known: bool,
    /// Whether a newer event tells whether it was asked to go.
    is_wish_known: bool,
    unread: Option<Error>,
    undecided: Option<Error>,
}

impl Reading {
    async fn of(line: &Line, subject: Ulid, numbers: Vec<u32>) -> Self {
        let mut reading = Self {
            id: BackupId(subject),
            standing: Standing::default(),
            is_hold_known: false,
            is_wish_known: false,
            unread: None,
            undecided: None,
        };
        for number in numbers.into_iter().rev() {
            match event(line, subject, number).await {
                Ok(event) => reading.take(&event, number),
                Err(error) => reading.miss(&error),
            }
        }
        reading
    }

    fn take(&mut self, event: &Event, number: u32) {
        if let Some(verdict) = Verdict::of(event) {
            if self.unread.is_none() && self.standing.verdict.is_none() {
                self.standing.verdict = Some(verdict);
            }
            return;
        }
        match event.kind.as_str() {
            HOLD => match hold_of(event) {
                Some(hold) => {
                    self.hold_is(Some(hold));
                    // One that came after a wish takes it back.
                    self.wish_is(None);
                }
                None => self.doubt(event, number),
            },
            RELEASE => self.hold_is(None),
            DELETE_INTENT => self.wish_is(Some(time_of(event))),
            ANNOTATE => {
                for (name, note) in &event.details {
                    let note = Some(note.clone()).filter(|note| !note.is_empty());
                    self.standing.annotations.entry(name.clone()).or_insert(note);
                }
            }
            kind if OTHERS.contains(&kind) => {}
            _ => self.doubt(event, number),
        }
    }

    fn hold_is(&mut self, hold: Option<Hold>) {
        if !self.is_hold_known {
            (self.standing.hold, self.is_hold_known) = (hold, true);
        }
    }

    fn wish_is(&mut self, asked_at: Option<Timestamp>) {
        if !self.is_wish_known {
            (self.standing.delete_asked_at, self.is_wish_known) = (asked_at, true);
        }
    }

    /// An event that cannot be read may say anything.
    fn miss(&mut self, error: &Error) {
        let told = || Error::new(error.code(), error.chain());
        if self.standing.verdict.is_none() {
            self.unread.get_or_insert_with(told);
        }
        if !(self.is_hold_known && self.is_wish_known) {
            self.undecided.get_or_insert_with(told);
        }
    }

    /// One of a later version may keep the backup.
    fn doubt(&mut self, event: &Event, number: u32) {
        let what = format!(
            "event {number} of backup {} is a \"{}\" that this program does not understand",
            self.id, event.kind
        );
        self.undecided.get_or_insert_with(|| {
            Error::new(Code::UnknownFormat, what)
                .with_hint("Use the Seawall that wrote it, or a newer one.")
        });
    }
}

/// `None` for one that says until when, and not in a way that is understood.
fn hold_of(event: &Event) -> Option<Hold> {
    let until = match event.details.get(UNTIL) {
        Some(until) => Some(until.parse().ok()?),
        None => None,
    };
    Some(Hold { since: time_of(event), until, reason: event.details.get(REASON).cloned() })
}

fn time_of(event: &Event) -> Timestamp {
    Timestamp::from_microsecond(event.time_us).unwrap_or_default()
}

async fn event(line: &Line, subject: Ulid, number: u32) -> Result<Event> {
    let path = line.paths().path(&LineObject::Event(subject, number))?;
    line.repository().read_record(&path).await
}
