//! What is condemned, and who may still rely on what (format.md, 10).

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use seawall_core::{BackupId, Code, Error, ExitClass, Result, Ulid};

use crate::layout::{LineObject, ObjectName};
use crate::objects::ObjectSet;
use crate::records::{Condemnation, Decision, Record};
use crate::repository::LIST_PAGE;
use crate::{Line, READS_AT_ONCE, error};

/// One condemnation of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// Its id.
    pub id: Ulid,
    /// When it was written, by the clock of the store.
    pub since: Timestamp,
    /// How long what it names stays at least.
    pub grace: SignedDuration,
    /// What it names; what was spared is none of it any more.
    pub objects: ObjectSet,
    /// Whether it is decided: then all that it names is deleted, and perhaps gone already.
    pub is_decided: bool,
}

impl Condemned {
    /// Until when what it names stays at least, by the clock of the store.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.since.checked_add(self.grace).unwrap_or(Timestamp::MAX)
    }
}

/// All condemnations of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condemnations(pub Vec<Condemned>);

impl Condemnations {
    /// Whether an object is to go: nobody may rely on it any more.
    #[must_use]
    pub fn contains(&self, object: &LineObject) -> bool {
        self.0.iter().any(|one| one.objects.contains(object))
    }

    /// Whether it was decided that an object is deleted. It may be gone.
    #[must_use]
    pub fn is_decided(&self, object: &LineObject) -> bool {
        self.0.iter().any(|one| one.is_decided && one.objects.contains(object))
    }

    /// Those that are decided.
    #[must_use]
    pub fn decided(mut self) -> Self {
        self.0.retain(|one| one.is_decided);
        self
    }

    /// Until when a commit stays at least that is to go, by the clock of the store; `None` for one
    /// that stays.
    #[must_use]
    pub fn until(&self, id: BackupId, generation: u32) -> Option<Timestamp> {
        let commit = LineObject::Backup(id, generation);
        self.0.iter().filter(|one| one.objects.contains(&commit)).map(Condemned::until).min()
    }
}

impl Line {
    /// What is condemned in the line. What a collector finishes meanwhile may be among it or not:
    /// it is gone, or it was spared.
    ///
    /// # Errors
    /// Damage, or a store that fails.
    pub async fn condemnations(&self) -> Result<Condemnations> {
        self.each_condemnation().await?.into_iter().collect::<Result<_>>().map(Condemnations)
    }

    /// The same without those that cannot be read, of which `verify` tells: they keep no backup from
    /// being made or restored.
    ///
    /// # Errors
    /// A store that fails.
    pub(crate) async fn known_condemnations(&self) -> Result<Condemnations> {
        let is_unreadable = |error: &Error| {
            error.exit_class() == ExitClass::Integrity || error.code() == Code::UnknownFormat
        };
        let mut known = Condemnations::default();
        for one in self.each_condemnation().await? {
            match one {
                Ok(one) => known.0.push(one),
                Err(error) if is_unreadable(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(known)
    }

    async fn each_condemnation(&self) -> Result<Vec<Result<Condemned>>> {
        let mut found: BTreeMap<Ulid, Found> = BTreeMap::new();
        let below = self.paths().below("gc")?;
        let mut after = None;
        loop {
            let page = self.store().list(&below, after.as_ref(), LIST_PAGE).await?;
            for object in page.objects {
                match ObjectName::parse(&object.path) {
                    Some(ObjectName::Line(_, _, LineObject::Gc(id, LineObject::CONDEMNED))) => {
                        found.entry(id).or_default().since = Some(object.modified);
                    }
                    Some(ObjectName::Line(_, _, LineObject::Gc(id, LineObject::DECIDED))) => {
                        found.entry(id).or_default().is_decided = true;
                    }
                    Some(ObjectName::Line(_, _, LineObject::Gc(..))) => {
                        return Err(error::inconsistent(&object.path, "its number is unknown"));
                    }
                    _ => {}
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let read = found.into_iter().map(async |(id, found)| self.condemned(id, found).await);
        let read: Vec<_> = stream::iter(read).buffered(READS_AT_ONCE).collect().await;
        Ok(read.into_iter().filter_map(Result::transpose).collect())
    }

    /// Reads one; `None` if it is finished, or gone meanwhile.
    async fn condemned(&self, id: Ulid, found: Found) -> Result<Option<Condemned>> {
        let Some(since) = found.since else { return Ok(None) };
        let Some(condemnation) = self.gc_record::<Condemnation>(id, LineObject::CONDEMNED).await?
        else {
            return Ok(None);
        };
        let mut objects = condemnation.names;
        if found.is_decided {
            // It goes last: without it the condemnation is finished.
            let Some(decision) = self.gc_record::<Decision>(id, LineObject::DECIDED).await? else {
                return Ok(None);
            };
            let spared: BTreeSet<String> = decision.spared.into_iter().collect();
            objects.retain(|name| !spared.contains(name));
        }
        let path = self.paths().path(&LineObject::Gc(id, LineObject::CONDEMNED))?;
        let objects = objects.into_iter().map(|name| match self.paths().named(&name) {
            Some(object) if ObjectSet::holds(&object) => Ok(object),
            _ => {
                let what = format!("it condemns {name:?}, which this program does not know");
                Err(Error::new(Code::UnknownFormat, format!("{path}: {what}"))
                    .with_hint("Use a newer Seawall with this repository."))
            }
        });
        let grace_s = i64::try_from(condemnation.grace_s).unwrap_or(i64::MAX);
        Ok(Some(Condemned {
            id,
            since,
            grace: SignedDuration::from_secs(grace_s),
            objects: objects.collect::<Result<_>>()?,
            is_decided: found.is_decided,
        }))
    }

    /// `None` if it is gone.
    async fn gc_record<R: Record>(&self, id: Ulid, number: u32) -> Result<Option<R>> {
        let path = self.paths().path(&LineObject::Gc(id, number))?;
        match self.repository().read_record(&path).await {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.code() == Code::ObjectMissing => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Refuses to rely on what is to go. Whoever wants to has written a pin that names it *before*,
    /// and looks only *after* this whether it is there: a collector lists pins, decides, deletes,
    /// and takes the condemnation away, in this order.
    ///
    /// # Errors
    /// [`Code::Condemned`], damage, or a store that fails.
    pub async fn refuse_condemned(
        &self,
        mut objects: impl Iterator<Item = LineObject>,
    ) -> Result<()> {
        let condemned = self.condemnations().await?;
        let found = match condemned.0.is_empty() {
            true => None,
            false => objects.find(|object| condemned.contains(object)),
        };
        let Some(object) = found else { return Ok(()) };
        let name = self.paths().name(&object)?;
        Err(Error::new(Code::Condemned, format!("{name} of {} is to be deleted", self.cluster()))
            .with_hint("A backup that is held before it is deleted stays, and can be used from the next prune on."))
    }
}

/// What names tell of a condemnation.
#[derive(Debug, Default)]
struct Found {
    /// When it was written.
    since: Option<Timestamp>,
    is_decided: bool,
}
