use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::BLOCK_BYTES;
use crate::{Damage, cbor};

/// How many blocks a full frame holds: 128 KiB, see `docs/adr/0002-frame-size.md`.
pub const FRAME_BLOCKS: u32 = 16;

/// No frame's payload is longer.
pub(super) const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Consecutive blocks of one file.
    Base,
    /// Whole small files.
    Blob,
}

impl FrameKind {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Base => 0,
            Self::Blob => 2,
        }
    }

    /// `None` for kinds that this format has and this program does not write or read.
    pub(super) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Base),
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
            Self::Blob { .. } => FrameKind::Blob,
        }
    }

    /// Appends the descriptor of `payload` and the descriptor's length.
    pub(super) fn describe(&self, payload_bytes: usize, out: &mut Vec<u8>) {
        let mut descriptor = Descriptor {
            kind: self.kind().number(),
            path: None,
            first_block: None,
            blocks: None,
            files: None,
        };
        match self {
            Self::Base { path, first_block } => {
                descriptor.path = Some(path.to_vec().into());
                descriptor.first_block = Some(*first_block);
                descriptor.blocks = Some(payload_bytes.div_ceil(BLOCK_BYTES) as u32);
            }
            Self::Blob { files } => {
                let file = |(path, length): &(Vec<u8>, u32)| BlobFile {
                    path: path.clone().into(),
                    length: *length,
                };
                descriptor.files = Some(files.iter().map(file).collect());
            }
        }
        let bytes = cbor::encode(&descriptor);
        out.extend_from_slice(&bytes);
        out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    }
}

/// The payload of an opened frame, and the lengths of the pieces its hash is made over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    pub payload_bytes: usize,
    /// Each file's bytes in the payload; one for a base frame.
    pub pieces: Vec<usize>,
}

/// Splits a frame's plaintext.
pub(super) fn split(plaintext: &[u8], kind: FrameKind) -> Result<Opened, Damage> {
    let bad = |what: &str| Damage::Content(format!("a frame's descriptor {what}"));
    let length_at = plaintext.len().checked_sub(2).ok_or_else(|| bad("is missing"))?;
    let length = plaintext
        .get(length_at..)
        .and_then(|bytes| <[u8; 2]>::try_from(bytes).ok())
        .map_or(0, |bytes| usize::from(u16::from_le_bytes(bytes)));
    let payload_bytes = length_at.checked_sub(length).ok_or_else(|| bad("is cut"))?;
    let descriptor: Descriptor =
        cbor::decode(plaintext.get(payload_bytes..length_at).unwrap_or_default())?;
    let pieces = match (kind, &descriptor.files) {
        (FrameKind::Base, None) => vec![payload_bytes],
        (FrameKind::Blob, Some(files)) => files.iter().map(|file| file.length as usize).collect(),
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
