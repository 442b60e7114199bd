//! Fixed layouts of header, chunk prefix and trailer.

use seawall_pgdata::Cursor;

use super::TAG_BYTES;
use crate::Damage;
use crate::keys::Domain;

/// Length of the header.
pub const HEADER_BYTES: usize = 64;
/// Length of what stands before each chunk's bytes.
pub const CHUNK_PREFIX_BYTES: usize = 16;
/// Length of the trailer.
pub const TRAILER_BYTES: usize = 32;

const MAGIC: &[u8; 8] = b"SEAWALL1";
const END_MAGIC: &[u8; 4] = b"SWND";
const VERSION: u16 = 1;

/// A chunk's plaintext is compressed with zstd.
pub(super) const FLAG_ZSTD: u8 = 1;
/// A chunk is not encrypted.
pub(super) const FLAG_CLEAR: u8 = 2;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ObjectKind {
    /// What format the repository has.
    Format = 1,
    /// An epoch's keys, wrapped for one holder.
    KeySlot = 2,
    /// What the cluster of a line is.
    About = 3,
    /// Frames.
    Pack = 4,
    /// Leaves of block maps.
    Map = 5,
    /// Pages of the files of backups.
    Manifest = 6,
    /// A fact about a backup or a line.
    Event = 7,
    /// A running writer or reader.
    Pin = 8,
    /// A range of WAL within one segment.
    WalHot = 9,
    /// A compacted range of WAL.
    WalCold = 10,
    /// A timeline or backup history file.
    History = 11,
    /// Names of relations.
    Names = 12,
    /// What exists.
    Head = 13,
    /// Condemned objects.
    Gc = 14,
    /// The place of a backup that died.
    Tombstone = 15,
    /// The beginning of a key epoch.
    Epoch = 16,
    /// A key slot that is about to be deleted.
    Removal = 17,
    /// What makes a backup.
    Commit = 19,
}

impl ObjectKind {
    /// How many bytes an object can have that is read whole before anything of it is proven: what is
    /// longer is not what it is said to be. Packs, maps, manifests and WAL are read in parts.
    #[must_use]
    pub const fn whole_bytes_max(self) -> u64 {
        match self {
            Self::Format
            | Self::KeySlot
            | Self::About
            | Self::Event
            | Self::Tombstone
            | Self::Epoch
            | Self::Removal => 1 << 20,
            Self::History => 16 << 20,
            Self::Commit | Self::Pin | Self::Head | Self::Names | Self::Gc => 256 << 20,
            Self::Pack | Self::Map | Self::Manifest | Self::WalHot | Self::WalCold => {
                seawall_store::MAX_READ_BYTES
            }
        }
    }

    /// Whether a part may stand unencrypted, so that it can be read before a key is at hand. The
    /// footer of such an object carries the part's SHA-256, which the reader compares.
    #[must_use]
    pub const fn may_be_clear(self) -> bool {
        matches!(self, Self::Format | Self::KeySlot | Self::Epoch)
    }
}

/// A part of an object; its number is part of every chunk's nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section(pub u8);

impl Section {
    /// The first section: frames, leaves, manifest pages, WAL bytes, or a clear part.
    pub const FIRST: Self = Self(1);
    /// The second section: hash leaves, pack pages, a WAL index.
    pub const SECOND: Self = Self(2);
    /// The last chunk of every object.
    pub const FOOTER: Self = Self(255);

    /// The key domain of this section in an object of this kind.
    #[must_use]
    pub fn domain(self, kind: ObjectKind) -> Domain {
        let body = matches!(kind, ObjectKind::Pack | ObjectKind::WalHot | ObjectKind::WalCold);
        if body && self == Self::FIRST { Domain::Data } else { Domain::Metadata }
    }
}

/// What the first 64 bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: u8,
    pub epoch: u32,
    pub salt: [u8; 32],
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(self.kind);
        bytes.push(0);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&[0; 12]);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        array(&bytes)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let (version, header) = Self::parse(bytes).ok_or(Damage::Header)?;
        match version {
            VERSION => header.ok_or(Damage::Header),
            other => Err(Damage::Version(other)),
        }
    }

    /// The version, and the header if the fields of this version are as they should be. `None` if
    /// the bytes are not a header of any version.
    fn parse(bytes: &[u8]) -> Option<(u16, Option<Self>)> {
        let mut cursor = Cursor::new(bytes);
        let magic = cursor.array::<8>().ok()?;
        let version = cursor.u16().ok()?;
        let kind = cursor.u8().ok()?;
        let zero = cursor.u8().ok()?;
        let epoch = cursor.u32().ok()?;
        let salt = cursor.array().ok()?;
        let zeroes = cursor.array::<12>().ok()?;
        let crc = cursor.u32().ok()?;
        let intact = crc32c::crc32c(bytes.get(..60)?) == crc && &magic == MAGIC;
        let plain = zero == 0 && zeroes == [0; 12];
        intact.then_some((version, plain.then_some(Self { kind, epoch, salt })))
    }
}

/// The key epoch that an object's first 64 bytes name.
pub(crate) fn epoch_of(header: &[u8]) -> Result<u32, Damage> {
    Header::decode(header).map(|header| header.epoch)
}

/// What kind of object begins with these bytes, by its number. Its own word, and not yet proven.
pub(crate) fn kind_of(header: &[u8]) -> Result<u8, Damage> {
    let header = header.get(..HEADER_BYTES).ok_or(Damage::Length)?;
    Header::decode(header).map(|header| header.kind)
}

/// What stands before a chunk's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkPrefix {
    pub section: u8,
    pub flags: u8,
    pub counter: u32,
    pub length: u32,
    pub crc: u32,
}

impl ChunkPrefix {
    /// The prefix of `body`, with its checksum; `None` if it is longer than a chunk can be.
    pub fn over(section: Section, flags: u8, counter: u32, body: &[u8]) -> Option<Self> {
        let length = u32::try_from(body.len()).ok()?;
        let mut prefix = Self { section: section.0, flags, counter, length, crc: 0 };
        prefix.crc = prefix.checksum(body);
        Some(prefix)
    }

    pub fn encode(&self) -> [u8; CHUNK_PREFIX_BYTES] {
        let mut bytes = [0; CHUNK_PREFIX_BYTES];
        let fields = [self.section, self.flags, 0, 0]
            .into_iter()
            .chain(self.counter.to_le_bytes())
            .chain(self.length.to_le_bytes())
            .chain(self.crc.to_le_bytes());
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Reads a prefix; the checksum is tested with the body, by [`ChunkPrefix::matches`].
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let section = cursor.u8().ok()?;
        let flags = cursor.u8().ok()?;
        let zero = cursor.u16().ok()?;
        let counter = cursor.u32().ok()?;
        let length = cursor.u32().ok()?;
        let crc = cursor.u32().ok()?;
        (zero == 0 && flags & !(FLAG_ZSTD | FLAG_CLEAR) == 0).then_some(Self {
            section,
            flags,
            counter,
            length,
            crc,
        })
    }

    pub fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.length as usize && self.checksum(body) == self.crc
    }

    fn checksum(&self, body: &[u8]) -> u32 {
        let prefix = self.encode();
        let start = crc32c::crc32c(prefix.get(..12).unwrap_or_default());
        crc32c::crc32c_append(start, body)
    }

    /// The nonce: section, three zero bytes, the counter in eight bytes.
    pub fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        let fields =
            [self.section, 0, 0, 0].into_iter().chain(u64::from(self.counter).to_le_bytes());
        nonce.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        nonce
    }
}

/// What the last 32 bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trailer {
    pub object_bytes: u64,
    pub footer_offset: u64,
    pub chunks: u32,
}

impl Trailer {
    /// The trailer of an object whose footer of `footer_plain_bytes` is its chunk number `chunks`.
    pub fn after(footer_offset: u64, footer_body_bytes: usize, chunks: u32) -> Self {
        let tail = CHUNK_PREFIX_BYTES + footer_body_bytes + TRAILER_BYTES;
        Self { object_bytes: footer_offset + tail as u64, footer_offset, chunks }
    }

    /// The part that the footer authenticates.
    pub fn authenticated(&self) -> [u8; 20] {
        array(self.encode().get(..20).unwrap_or_default())
    }

    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut bytes = Vec::with_capacity(TRAILER_BYTES);
        bytes.extend_from_slice(&self.object_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.footer_offset.to_le_bytes());
        bytes.extend_from_slice(&self.chunks.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.extend_from_slice(END_MAGIC);
        array(&bytes)
    }

    /// Reads the trailer of an object that has `object_bytes` bytes.
    pub fn decode(bytes: &[u8], object_bytes: u64) -> Result<Self, Damage> {
        let parse = || {
            let mut cursor = Cursor::new(bytes);
            let trailer = Self {
                object_bytes: cursor.u64().ok()?,
                footer_offset: cursor.u64().ok()?,
                chunks: cursor.u32().ok()?,
            };
            let least =
                trailer.footer_offset.checked_add((CHUNK_PREFIX_BYTES + TAG_BYTES) as u64)?;
            let sound = trailer.encode() == bytes
                && trailer.object_bytes == object_bytes
                && trailer.footer_offset >= HEADER_BYTES as u64
                && trailer.chunks > 0
                && least.checked_add(TRAILER_BYTES as u64)? <= object_bytes;
            sound.then_some(trailer)
        };
        parse().ok_or(Damage::Length)
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    array
}
