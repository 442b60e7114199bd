use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use seawall_core::{Code, Error, Result};

use super::BLOCK_BYTES;
use crate::{Damage, cbor, error};

/// How many blocks a full frame holds: 128 KiB, see `docs/adr/0002-frame-size.md`.
pub const FRAME_BLOCKS: u32 = 16;

/// No frame's payload is longer.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// No descriptor is longer: two bytes state its length.
const DESCRIPTOR_BYTES_MAX: u64 = u16::MAX as u64;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Consecutive blocks of one file.
    Base,
    /// Scattered blocks of one file or several.
    Delta,
    /// Whole small files.
    Blob,
}

impl FrameKind {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Base => 0,
            Self::Delta => 1,
            Self::Blob => 2,
        }
    }

    /// `None` for kinds that this format does not have.
    pub(super) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Base),
            1 => Some(Self::Delta),
            2 => Some(Self::Blob),
            _ => None,
        }
    }
}

/// What stands behind a frame's payload, so that a frame can be understood alone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Descriptor {
    #[n(0)]
    kind: u8,
    #[n(1)]
    path: Option<ByteVec>,
    #[n(2)]
    first_block: Option<u32>,
    #[n(3)]
    blocks: Option<u32>,
    #[n(4)]
    deltas: Option<Vec<DeltaFile>>,
    #[n(5)]
    files: Option<Vec<BlobFile>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct BlobFile {
    #[n(0)]
    path: ByteVec,
    #[n(1)]
    length: u32,
}

/// What a delta frame has of one file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct DeltaFile {
    /// The file, relative to the data directory.
    #[n(0)]
    pub path: ByteVec,
    /// How many bytes of the payload are its blocks.
    #[n(1)]
    pub length: u32,
    /// Its blocks, ascending; only the last may be short.
    #[n(2)]
    pub blocks: Vec<u32>,
}

impl DeltaFile {
    fn is_sound(&self) -> bool {
        (self.length as usize).div_ceil(BLOCK_BYTES) == self.blocks.len()
            && self.blocks.is_sorted_by(|one, next| one < next)
            && !self.blocks.is_empty()
    }
}

/// What goes into a frame besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramePayload<'a> {
    /// Blocks of one file, from `first_block` on; the bytes are theirs.
    Base {
        /// The file, relative to the data directory.
        path: &'a [u8],
        /// The number of the first block within the file.
        first_block: u32,
    },
    /// Scattered blocks, those of one file after those of another.
    Delta {
        /// The files in the order of their bytes.
        files: &'a [DeltaFile],
    },
    /// Whole files, one after another: path and length.
    Blob {
        /// The files in the order of their bytes.
        files: &'a [(Vec<u8>, u32)],
    },
}

impl FramePayload<'_> {
    pub(super) const fn kind(&self) -> FrameKind {
        match self {
            Self::Base { .. } => FrameKind::Base,
            Self::Delta { .. } => FrameKind::Delta,
            Self::Blob { .. } => FrameKind::Blob,
        }
    }

    /// Appends the descriptor of `payload` and the descriptor's length.
    fn describe(&self, payload_bytes: usize, out: &mut Vec<u8>) -> Result<()> {
        let mut descriptor = Descriptor {
            kind: self.kind().number(),
            path: None,
            first_block: None,
            blocks: None,
            deltas: None,
            files: None,
        };
        match self {
            Self::Base { path, first_block } => {
                descriptor.path = Some(path.to_vec().into());
                descriptor.first_block = Some(*first_block);
                let blocks = u32::try_from(payload_bytes.div_ceil(BLOCK_BYTES));
                descriptor.blocks = Some(blocks.map_err(|_| too_long("a frame's payload"))?);
            }
            Self::Delta { files } => descriptor.deltas = Some(files.to_vec()),
            Self::Blob { files } => {
                let file = |(path, length): &(Vec<u8>, u32)| BlobFile {
                    path: path.clone().into(),
                    length: *length,
                };
                descriptor.files = Some(files.iter().map(file).collect());
            }
        }
        let bytes = cbor::encode(&descriptor);
        let length = u16::try_from(bytes.len()).map_err(|_| too_long("a frame's descriptor"))?;
        out.extend_from_slice(&bytes);
        out.extend_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Puts a frame's plaintext into `out`, and proves that it would be read as what it is: its
    /// content cannot be wrong any more, so that all else is judged here and nothing is unpacked.
    /// Returns how many blocks it has.
    ///
    /// # Errors
    /// [`Code::Internal`] for what a frame cannot be.
    pub(super) fn plaintext(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<usize> {
        out.clear();
        out.extend_from_slice(payload);
        self.describe(payload.len(), out)?;
        let opened =
            split(out, self.kind()).map_err(|damage| error::unreadable("frame", &damage))?;
        if opened.payload_bytes == payload.len() {
            return Ok(opened.pieces.iter().map(|piece| piece.div_ceil(BLOCK_BYTES)).sum());
        }
        let what = format!("{} bytes are named, and {} given", opened.payload_bytes, payload.len());
        Err(error::unreadable("frame", &Damage::Content(what)))
    }
}

fn too_long(what: &str) -> Error {
    Error::new(Code::Internal, format!("{what} is longer than the format can say"))
}

/// How much of a frame its files take: the bytes they have, and those that name them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BundleSize {
    files: u64,
    payload_bytes: u64,
    /// The names and lengths, without what stands before the first.
    names_bytes: u64,
}

impl BundleSize {
    /// The size with one more file, whole.
    #[must_use]
    pub fn with_file(self, path: &[u8], file_bytes: u64) -> Self {
        self.with(path, file_bytes, 0)
    }

    /// The size with so many blocks of one more file.
    #[must_use]
    pub fn with_blocks(self, path: &[u8], blocks: u64) -> Self {
        // The longest that the number of a block, or of blocks, can be.
        const NUMBER_BYTES: u64 = 5;
        let numbers_bytes = blocks.saturating_add(1).saturating_mul(NUMBER_BYTES);
        self.with(path, blocks.saturating_mul(BLOCK_BYTES as u64), numbers_bytes)
    }

    fn with(self, path: &[u8], bytes: u64, numbers_bytes: u64) -> Self {
        let path_bytes = path.len() as u64;
        let named = 1 + cbor::head_bytes(path_bytes) + path_bytes + cbor::head_bytes(bytes);
        Self {
            files: self.files.saturating_add(1),
            payload_bytes: self.payload_bytes.saturating_add(bytes),
            names_bytes: self.names_bytes.saturating_add(named).saturating_add(numbers_bytes),
        }
    }

    /// The bytes of all files.
    #[must_use]
    pub const fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Whether one frame can hold them. Many small files have more names than bytes.
    #[must_use]
    pub fn fits(&self) -> bool {
        // A map of two keys, each of one byte with its number, and the head of the list.
        let descriptor_bytes = (4 + cbor::head_bytes(self.files)).saturating_add(self.names_bytes);
        self.payload_bytes <= PAYLOAD_BYTES_MAX as u64 && descriptor_bytes <= DESCRIPTOR_BYTES_MAX
    }
}

/// The payload of an opened frame, and the lengths of the pieces its hash is made over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    pub payload_bytes: usize,
    /// How long each file's part of the payload is; a base frame has one.
    pub pieces: Vec<usize>,
}

/// Splits a frame's plaintext.
pub(super) fn split(plaintext: &[u8], kind: FrameKind) -> std::result::Result<Opened, Damage> {
    let bad = |what: &str| Damage::Content(format!("a frame's descriptor {what}"));
    let length_at = plaintext.len().checked_sub(2).ok_or_else(|| bad("is missing"))?;
    let length = plaintext
        .get(length_at..)
        .and_then(|bytes| <[u8; 2]>::try_from(bytes).ok())
        .map_or(0, |bytes| usize::from(u16::from_le_bytes(bytes)));
    let payload_bytes = length_at.checked_sub(length).ok_or_else(|| bad("is cut"))?;
    let descriptor: Descriptor =
        cbor::decode(plaintext.get(payload_bytes..length_at).unwrap_or_default())?;
    let pieces = match (kind, &descriptor.deltas, &descriptor.files) {
        (FrameKind::Base, None, None) => vec![payload_bytes],
        (FrameKind::Delta, Some(files), None) if files.iter().all(DeltaFile::is_sound) => {
            files.iter().map(|file| file.length as usize).collect()
        }
        (FrameKind::Blob, None, Some(files)) => {
            files.iter().map(|file| file.length as usize).collect()
        }
        _ => return Err(bad("is of another kind than the frame table says")),
    };
    let sound = descriptor.kind == kind.number()
        && payload_bytes <= PAYLOAD_BYTES_MAX
        && pieces.iter().sum::<usize>() == payload_bytes;
    if sound { Ok(Opened { payload_bytes, pieces }) } else { Err(bad("does not fit its payload")) }
}

/// The blocks of a payload made of `pieces`: each piece is cut into blocks of its own.
pub(super) fn blocks_of<'p>(
    payload: &'p [u8],
    pieces: &'p [usize],
) -> impl Iterator<Item = &'p [u8]> {
    let mut start = 0;
    pieces.iter().flat_map(move |length| {
        let piece = payload.get(start..start + length).unwrap_or_default();
        start += length;
        piece.chunks(BLOCK_BYTES)
    })
}
