//! Heads: what exists, so that something that vanishes is noticed.

use jiff::Timestamp;
use seawall_core::{BackupId, Result, Ulid};
use seawall_store::ObjectPath;

use crate::Line;
use crate::condemned::Condemnations;
use crate::layout::{LineObject, ObjectName, formats, key_slots};
use crate::records::{Head, Numbered};
use crate::repository::new_ulid;
use crate::wal::wal_of;

impl Line {
    /// Writes the head that lists everything in the line and announces `next`. The caller commits
    /// that object right after, naming the head in it.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn write_head(&self, next: &ObjectPath, now: Timestamp) -> Result<Ulid> {
        // First: what is condemned later outlives by its grace the head that lists it.
        let condemned = self.known_condemnations().await?;
        let head = self.survey(&condemned, now).await?;
        self.create_head(&Head { next: next.to_string(), ..head }, now).await
    }

    /// Writes a head that lists what remains and stands for all heads before; those are deleted then.
    /// What is condemned and not decided remains: whoever deletes it writes such a head after it.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn replace_heads(&self, now: Timestamp) -> Result<Ulid> {
        let decided = self.condemnations().await?.decided();
        let head = Head { replaces: Some(true), ..self.survey(&decided, now).await? };
        let id = self.create_head(&head, now).await?;
        let path = |head: Ulid| self.paths().path(&LineObject::Head(head));
        let replaced = head.heads.into_iter().map(path).collect::<Result<Vec<_>>>()?;
        self.store().delete_many(&replaced).await?;
        Ok(id)
    }

    async fn create_head(&self, head: &Head, now: Timestamp) -> Result<Ulid> {
        let id = new_ulid(now)?;
        let path = self.paths().path(&LineObject::Head(id))?;
        self.repository().create_record(&path, head).await?;
        Ok(id)
    }

    /// What exists now, as a head tells it: without what is to go, which may be gone tomorrow.
    async fn survey(&self, going: &Condemnations, now: Timestamp) -> Result<Head> {
        let stays = |object: LineObject| !going.contains(&object);
        let mut head = Head {
            time_us: now.as_microsecond(),
            formats: Vec::new(),
            key_slots: Vec::new(),
            backups: self.numbered("backup").await?,
            events: self.numbered("events").await?,
            histories: self.history_names().await?,
            wal: wal_of(self, going).await?,
            heads: self.heads().await?,
            next: String::new(),
            replaces: None,
        };
        head.backups.retain(|one| stays(LineObject::Backup(BackupId(one.id), one.number)));
        head.events.retain(|one| stays(LineObject::Event(one.id, one.number)));
        for path in self.repository().list(&formats()?).await? {
            if let Some(ObjectName::Format(n)) = ObjectName::parse(&path) {
                head.formats.push(n);
            }
        }
        let begun = self.repository().epochs_begun().await?;
        for path in self.repository().list(&key_slots()?).await? {
            if let Some(ObjectName::Key(epoch, slot)) = ObjectName::parse(&path)
                && begun.contains(&epoch)
            {
                head.key_slots.push(Numbered { id: slot, number: epoch });
            }
        }
        Ok(head)
    }

    /// The ids of the heads there are, oldest first.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn heads(&self) -> Result<Vec<Ulid>> {
        let paths = self.repository().list(&self.paths().below("head")?).await?;
        Ok(paths
            .iter()
            .filter_map(|path| match ObjectName::parse(path) {
                Some(ObjectName::Line(_, _, LineObject::Head(id))) => Some(id),
                _ => None,
            })
            .collect())
    }

    async fn history_names(&self) -> Result<Vec<String>> {
        let paths = self.repository().list(&self.paths().below("history")?).await?;
        Ok(paths.iter().map(|path| path.file_name().to_owned()).collect())
    }
}
