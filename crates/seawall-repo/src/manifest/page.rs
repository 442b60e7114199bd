use std::collections::BTreeSet;

use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};
use seawall_core::Ulid;

use super::Entry;
use crate::cbor;

/// Entries that decode alone, whichever manifest they are in: the packs and maps they are in are
/// listed before them, and named by their places in the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page(pub Vec<Entry>);

impl<C> Encode<C> for Page {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let mut page = PageBuilder::default();
        self.0.iter().for_each(|entry| page.add(entry));
        encoder.writer_mut().write_all(&page.finish()).map_err(encode::Error::write)
    }
}

impl<'b, C> Decode<'b, C> for Page {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        if decoder.array()? != Some(3) {
            return Err(decode::Error::message("a page has three parts"));
        }
        let mut names = Names { packs: decoder.decode()?, maps: decoder.decode()? };
        let entries: Vec<Entry> = decoder.decode_with(&mut names)?;
        let named_once = names.packs.is_exactly(entries.iter().flat_map(Entry::packs))
            && names.maps.is_exactly(entries.iter().flat_map(Entry::maps));
        if named_once {
            Ok(Self(entries))
        } else {
            Err(decode::Error::message("a page does not list what its entries name"))
        }
    }
}

/// Puts entries into a page, one after another.
#[derive(Debug, Default)]
pub(super) struct PageBuilder {
    names: Names,
    entries: Vec<u8>,
    count: u32,
}

impl PageBuilder {
    pub fn add(&mut self, entry: &Entry) {
        cbor::encode_in(entry, &mut self.names, &mut self.entries);
        self.count += 1;
    }

    /// How many entries it has.
    pub const fn entries(&self) -> u32 {
        self.count
    }

    /// How long the entries are together.
    pub const fn bytes(&self) -> usize {
        self.entries.len()
    }

    /// The page's plaintext.
    pub fn finish(self) -> Vec<u8> {
        let mut page = Vec::with_capacity(self.entries.len() + 64);
        cbor::array_head(3, &mut page);
        cbor::encode_in(&self.names.packs, &mut (), &mut page);
        cbor::encode_in(&self.names.maps, &mut (), &mut page);
        cbor::array_head(self.count, &mut page);
        page.extend(self.entries);
        page
    }
}

/// The packs and maps that a page's entries name by number.
#[derive(Debug, Default)]
pub struct Names {
    pub(super) packs: List,
    pub(super) maps: List,
}

impl AsMut<Self> for Names {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

/// Ids in the order of their numbers.
#[derive(Debug, Default, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct List(#[cbor(n(0), with = "crate::cbor::ulids")] Vec<Ulid>);

impl List {
    /// The number of an id, which is listed if it was not.
    pub fn number(&mut self, id: Ulid) -> u32 {
        // Neighbours lie together: it is found near the end.
        let index = self.0.iter().rposition(|known| *known == id).unwrap_or_else(|| {
            self.0.push(id);
            self.0.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// The id with a number.
    pub fn id(&self, number: u32) -> Result<Ulid, decode::Error> {
        let id = usize::try_from(number).ok().and_then(|number| self.0.get(number));
        id.copied().ok_or_else(|| decode::Error::message("a page does not list what it names"))
    }

    /// Whether it has each of `named` once, and no other.
    fn is_exactly(&self, named: impl Iterator<Item = Ulid>) -> bool {
        let named: BTreeSet<Ulid> = named.collect();
        named.len() == self.0.len() && self.0.iter().all(|id| named.contains(id))
    }
}
