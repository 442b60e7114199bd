use crate::{ObjectPath, ObjectPlace, ObjectPrefix, StoreUrl};

/// A kind of call to a [`Store`](crate::Store) or one of its writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Store::create`](crate::Store::create).
    Create,
    /// [`Store::create_large`](crate::Store::create_large).
    CreateLarge,
    /// [`ObjectWriter::write`](crate::ObjectWriter::write), of all writers together.
    Write,
    /// [`ObjectWriter::finish`](crate::ObjectWriter::finish).
    Finish,
    /// [`Store::read`](crate::Store::read) and [`Store::read_within`](crate::Store::read_within).
    Read,
    /// [`Store::read_range`](crate::Store::read_range).
    ReadRange,
    /// [`Store::read_end`](crate::Store::read_end).
    ReadEnd,
    /// [`Store::stat`](crate::Store::stat).
    Stat,
    /// [`Store::list`](crate::Store::list).
    List,
    /// [`Store::list_children`](crate::Store::list_children).
    ListChildren,
    /// [`Store::make_durable`](crate::Store::make_durable).
    MakeDurable,
    /// [`Store::delete`](crate::Store::delete).
    Delete,
    /// [`Store::delete_many`](crate::Store::delete_many).
    DeleteMany,
    /// [`Store::sweep_unfinished`](crate::Store::sweep_unfinished).
    SweepUnfinished,
}

impl Call {
    /// Every kind of call.
    pub const ALL: [Self; 14] = [
        Self::Create,
        Self::CreateLarge,
        Self::Write,
        Self::Finish,
        Self::Read,
        Self::ReadRange,
        Self::ReadEnd,
        Self::Stat,
        Self::List,
        Self::ListChildren,
        Self::MakeDurable,
        Self::Delete,
        Self::DeleteMany,
        Self::SweepUnfinished,
    ];
}

/// What a call is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum About<'a> {
    Object(&'a ObjectPath),
    Prefix(&'a ObjectPrefix),
    Store,
}

/// A call on its way to a store.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'a> {
    pub(crate) call: Call,
    pub(crate) url: &'a StoreUrl,
    pub(crate) about: About<'a>,
    /// The bytes it brings.
    pub(crate) written_bytes: u64,
}

impl<'a> Asked<'a> {
    pub(crate) const fn new(call: Call, url: &'a StoreUrl, about: About<'a>) -> Self {
        Self { call, url, about, written_bytes: 0 }
    }

    pub(crate) const fn object(call: Call, url: &'a StoreUrl, path: &'a ObjectPath) -> Self {
        Self::new(call, url, About::Object(path))
    }

    pub(crate) const fn bringing(mut self, bytes: &[u8]) -> Self {
        self.written_bytes = bytes.len() as u64;
        self
    }

    pub(crate) fn place(&self) -> ObjectPlace {
        match self.about {
            About::Object(path) => ObjectPlace::object(self.url, path),
            About::Prefix(prefix) => ObjectPlace::prefix(self.url, prefix),
            About::Store => ObjectPlace::store(self.url),
        }
    }
}
