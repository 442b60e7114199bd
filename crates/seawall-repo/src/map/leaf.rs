use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use seawall_core::Ulid;

use super::block_map::{BlockMap, BlockSource, Exception, ExceptionSource, Run, number_in};
use crate::hash::BlockHash;
use crate::pack::FRAME_BLOCKS;
use crate::{Damage, cbor, varint};

const BLOCK_BYTES: u64 = crate::pack::BLOCK_BYTES as u64;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Leaf {
    #[n(0)]
    blocks: u32,
    #[n(1)]
    last_block_bytes: u32,
    #[n(2)]
    frame_blocks: u32,
    #[cbor(n(3), with = "crate::cbor::ulids")]
    packs: Vec<Ulid>,
    #[n(4)]
    runs: ByteVec,
    #[n(5)]
    exceptions: Option<ByteVec>,
    #[n(6)]
    exception_hashes: Option<ByteVec>,
}

impl BlockMap {
    /// The leaf's plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut packs: Vec<Ulid> = Vec::new();
        let runs = encode_runs(&self.runs, &mut packs);
        let exceptions = encode_exceptions(&self.exceptions, &mut packs);
        let hashes = self.exceptions.iter().flat_map(|exception| exception.hash).collect();
        let if_any = |bytes: Vec<u8>| (!bytes.is_empty()).then(|| ByteVec::from(bytes));
        cbor::encode(&Leaf {
            blocks: self.blocks(),
            last_block_bytes: last_block_bytes(self.file_bytes),
            frame_blocks: FRAME_BLOCKS,
            packs,
            runs: runs.into(),
            exceptions: if_any(exceptions),
            exception_hashes: if_any(hashes),
        })
    }

    /// Reads a leaf.
    ///
    /// # Errors
    /// [`Damage::Content`] if some block has no place or several.
    pub fn decode(plaintext: &[u8]) -> Result<Self, Damage> {
        let leaf: Leaf = cbor::decode(plaintext)?;
        let bad = |what: &str| Damage::Content(format!("a block map {what}"));
        if leaf.frame_blocks != FRAME_BLOCKS {
            return Err(bad("has frames of another size than this program knows"));
        }
        let hashes = leaf.exception_hashes.as_deref().map_or(&[][..], Vec::as_slice);
        let exceptions = leaf.exceptions.as_deref().map_or(&[][..], Vec::as_slice);
        let map = Self {
            runs: decode_runs(&leaf.runs, &leaf.packs).ok_or_else(|| bad("is cut"))?,
            exceptions: decode_exceptions(exceptions, hashes, &leaf.packs)
                .ok_or_else(|| bad("has exceptions that are cut"))?,
            file_bytes: file_bytes(leaf.blocks, leaf.last_block_bytes),
        };
        let fits = map.blocks() == leaf.blocks && map.is_sound() && names_all(&leaf.packs, &map);
        if fits { Ok(map) } else { Err(bad("does not cover its file")) }
    }
}

/// Whether each of these packs is one that a block is in.
fn names_all(packs: &[Ulid], map: &BlockMap) -> bool {
    let sorted = |mut packs: Vec<Ulid>| {
        packs.sort();
        packs
    };
    sorted(packs.to_vec()) == sorted(map.packs())
}

fn encode_runs(runs: &[Run], packs: &mut Vec<Ulid>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for run in runs {
        varint::put(&mut bytes, u64::from(run.blocks));
        match run.source {
            BlockSource::Zero => varint::put(&mut bytes, 0),
            BlockSource::Frames { pack, first_frame } => {
                varint::put(&mut bytes, number_in(packs, pack) as u64 + 1);
                varint::put(&mut bytes, u64::from(first_frame));
            }
        }
    }
    bytes
}

fn decode_runs(mut rest: &[u8], packs: &[Ulid]) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    let mut first_block = 0u32;
    while !rest.is_empty() {
        let blocks = take(&mut rest).filter(|blocks| *blocks > 0)?;
        let source = match take(&mut rest)?.checked_sub(1) {
            None => BlockSource::Zero,
            Some(number) => BlockSource::Frames {
                pack: *packs.get(number as usize)?,
                first_frame: take(&mut rest)?,
            },
        };
        runs.push(Run { first_block, blocks, source });
        first_block = first_block.checked_add(blocks)?;
    }
    Some(runs)
}

fn encode_exceptions(exceptions: &[Exception], packs: &mut Vec<Ulid>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut next = 0;
    for exception in exceptions {
        varint::put(&mut bytes, u64::from(exception.block.saturating_sub(next)));
        next = exception.block.saturating_add(1);
        match exception.source {
            ExceptionSource::Zero => varint::put(&mut bytes, 0),
            ExceptionSource::Delta { pack, frame, slot } => {
                varint::put(&mut bytes, number_in(packs, pack) as u64 + 1);
                varint::put(&mut bytes, u64::from(frame));
                varint::put(&mut bytes, u64::from(slot));
            }
        }
    }
    bytes
}

fn decode_exceptions(mut rest: &[u8], hashes: &[u8], packs: &[Ulid]) -> Option<Vec<Exception>> {
    let (hashes, cut): (&[BlockHash], _) = hashes.as_chunks();
    let mut exceptions = Vec::new();
    let mut next = 0u32;
    for hash in hashes {
        let block = next.checked_add(take(&mut rest)?)?;
        let source = match take(&mut rest)?.checked_sub(1) {
            None => ExceptionSource::Zero,
            Some(number) => ExceptionSource::Delta {
                pack: *packs.get(number as usize)?,
                frame: take(&mut rest)?,
                slot: take(&mut rest)?,
            },
        };
        exceptions.push(Exception { block, source, hash: *hash });
        next = block.checked_add(1)?;
    }
    (rest.is_empty() && cut.is_empty()).then_some(exceptions)
}

fn take(bytes: &mut &[u8]) -> Option<u32> {
    varint::take(bytes).and_then(|value| u32::try_from(value).ok())
}

fn last_block_bytes(file_bytes: u64) -> u32 {
    // At most a block's length.
    let bytes = match file_bytes % BLOCK_BYTES {
        0 if file_bytes > 0 => BLOCK_BYTES,
        rest => rest,
    };
    u32::try_from(bytes).unwrap_or_default()
}

fn file_bytes(blocks: u32, last_block_bytes: u32) -> u64 {
    match blocks.checked_sub(1) {
        Some(full) => u64::from(full) * BLOCK_BYTES + u64::from(last_block_bytes),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::BlockMapBuilder;
    use super::*;
    use proptest::prelude::*;

    fn pack(n: u128) -> Ulid {
        Ulid(n)
    }

    fn delta(block: u32, frame: u32, slot: u32) -> Exception {
        let source = ExceptionSource::Delta { pack: pack(9), frame, slot };
        Exception { block, source, hash: [1; 8] }
    }

    /// Five full frames and a short one.
    fn base() -> BlockMap {
        let mut builder = BlockMapBuilder::default();
        for frame in 0..5 {
            builder.frame(16, pack(1), frame);
        }
        builder.frame(3, pack(1), 5);
        builder.finish(83 * 8192).unwrap()
    }

    #[test]
    fn consecutive_full_frames_are_one_run() {
        let mut builder = BlockMapBuilder::default();
        for frame in 5..10 {
            builder.frame(16, pack(1), frame);
        }
        builder.frame(3, pack(1), 10);
        builder.zero(1);
        builder.frame(16, pack(1), 11);
        let map = builder.finish((5 * 16 + 3 + 1 + 16) * 8192 - 100).unwrap();
        assert_eq!(map.runs.len(), 3);
        assert_eq!(map.runs[0].frames(), 6);
        assert_eq!(BlockMap::decode(&map.encode()).unwrap(), map);
    }

    #[test]
    fn a_frame_after_a_short_one_begins_a_run() {
        let mut builder = BlockMapBuilder::default();
        builder.frame(3, pack(1), 0);
        builder.frame(16, pack(1), 1);
        assert_eq!(builder.finish(19 * 8192).unwrap().runs.len(), 2);
    }

    #[test]
    fn a_map_that_does_not_cover_its_file_is_refused() {
        let mut builder = BlockMapBuilder::default();
        builder.zero(2);
        assert!(builder.clone().finish(3 * 8192).is_none());
        let mut map = builder.finish(2 * 8192).unwrap();
        map.file_bytes = 8192;
        assert!(BlockMap::decode(&map.encode()).is_err());
        map.file_bytes = 3 * 8192;
        assert!(BlockMap::decode(&map.encode()).is_err());
    }

    #[test]
    fn a_file_that_grew_has_exceptions_behind_its_runs_and_one_that_shrank_shorter_runs() {
        let grown = base().changed(85 * 8192, &[delta(7, 0, 0), delta(83, 0, 1), delta(84, 0, 2)]);
        let grown = grown.unwrap();
        assert_eq!((grown.run_blocks(), grown.exceptions.len()), (83, 3));
        assert_eq!(BlockMap::decode(&grown.encode()).unwrap(), grown);
        assert!(base().changed(85 * 8192, &[delta(84, 0, 0)]).is_none(), "block 83 is nowhere");
        let shrunk = grown.changed(20 * 8192, &[]).unwrap();
        assert_eq!((shrunk.run_blocks(), shrunk.exceptions.len()), (20, 1));
        assert_eq!(BlockMap::decode(&shrunk.encode()).unwrap(), shrunk);
        // What was cut off does not come back with the length.
        assert!(shrunk.changed(85 * 8192, &[]).is_none());
    }

    #[test]
    fn a_block_of_another_length_is_another_block() {
        let short = 83 * 8192 - 100;
        assert!(base().changed(short, &[]).is_none());
        let map = base().changed(short, &[delta(82, 0, 0)]).unwrap();
        assert!(map.changed(83 * 8192, &[]).is_none());
        assert!(map.changed(84 * 8192, &[delta(83, 1, 0)]).is_none());
        assert!(map.changed(84 * 8192, &[delta(82, 1, 0), delta(83, 1, 1)]).is_some());
    }

    #[test]
    fn exceptions_that_contradict_each_other_are_refused() {
        let with = |exceptions: &[Exception]| {
            let map = BlockMap { exceptions: exceptions.to_vec(), ..base() };
            BlockMap::decode(&map.encode()).is_ok()
        };
        assert!(with(&[delta(3, 0, 0), delta(4, 0, 1)]));
        assert!(!with(&[delta(83, 0, 0)]), "behind the end");
        let zero = Exception { source: ExceptionSource::Zero, ..delta(3, 0, 0) };
        assert!(!with(&[zero]), "a zero block with a hash");
        assert!(with(&[Exception { hash: [0; 8], ..zero }]));
        assert!(
            !with(&[Exception { hash: [0; 8], ..delta(3, 0, 0) }]),
            "a block with a zero's hash"
        );
    }

    /// What a block of a modelled file holds: a pack's frame and slot, or nothing.
    type Model = Vec<Option<(u128, u32, u32)>>;

    /// Where the map has a block.
    fn place(map: &BlockMap, block: u32) -> Option<(u128, u32, u32)> {
        if let [exception] = map.exceptions_within(block..block + 1) {
            return match exception.source {
                ExceptionSource::Zero => None,
                ExceptionSource::Delta { pack, frame, slot } => Some((pack.0, frame, slot)),
            };
        }
        let run = map.runs.iter().find(|run| run.end() > block).unwrap();
        let BlockSource::Frames { pack, first_frame } = run.source else { return None };
        let at = block - run.first_block;
        Some((pack.0, first_frame + at / 16, at % 16))
    }

    proptest! {
        #[test]
        fn maps_round_trip(
            pieces in proptest::collection::vec((1u32..=16, 0u128..4, 0u32..1000), 0..50),
            cut in 0u64..8192,
        ) {
            let mut builder = BlockMapBuilder::default();
            let mut blocks = 0u64;
            for (count, source, frame) in pieces {
                if source == 0 { builder.zero(count) } else { builder.frame(count, pack(source), frame) }
                blocks += u64::from(count);
            }
            let map = builder.finish((blocks * 8192).saturating_sub(cut)).unwrap();
            prop_assert_eq!(BlockMap::decode(&map.encode()).unwrap(), map);
        }

        /// A file is changed, cut and extended, and each of its maps says of every block where it
        /// was stored last.
        #[test]
        fn e35_maps_of_a_file_through_its_history_say_where_each_block_was_stored_last(
            first in 1u32..100,
            history in proptest::collection::vec(
                (1u32..120, proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..20)),
                0..12,
            ),
        ) {
            let mut builder = BlockMapBuilder::default();
            let mut model = Model::new();
            for (frame, start) in (0..).zip((0..first).step_by(16)) {
                let count = (first - start).min(16);
                builder.frame(count, pack(1), frame);
                model.extend((0..count).map(|slot| Some((1, frame, slot))));
            }
            let mut map = builder.finish(u64::from(first) * 8192).unwrap();
            for (round, (blocks, touched)) in (2u128..).zip(history) {
                let before = model.len() as u32;
                let mut changes: std::collections::BTreeMap<u32, bool> =
                    (before..blocks).map(|block| (block, false)).collect();
                changes.extend(touched.iter().map(|(at, zero)| (at.index(blocks as usize) as u32, *zero)));
                let exceptions: Vec<Exception> = (0u32..).zip(&changes).map(|(slot, (block, zero))| {
                    if *zero {
                        return Exception { block: *block, source: ExceptionSource::Zero, hash: [0; 8] };
                    }
                    let source = ExceptionSource::Delta { pack: pack(round), frame: slot / 32, slot: slot % 32 };
                    Exception { block: *block, source, hash: [2; 8] }
                }).collect();
                model.resize(blocks as usize, None);
                for exception in &exceptions {
                    model[exception.block as usize] = match exception.source {
                        ExceptionSource::Zero => None,
                        ExceptionSource::Delta { pack, frame, slot } => Some((pack.0, frame, slot)),
                    };
                }
                map = map.changed(u64::from(blocks) * 8192, &exceptions).unwrap();
                map = BlockMap::decode(&map.encode()).unwrap();
                let found: Model = (0..blocks).map(|block| place(&map, block)).collect();
                prop_assert_eq!(&found, &model);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = BlockMap::decode(&bytes);
        }
    }
}
