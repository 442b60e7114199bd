//! The checksum of a data page (checksum_impl.h, unchanged from 12 to 18).
//!
//! The page is read as 64 rows of 32 little-endian words. Each of the 32 columns is hashed on its
//! own, so a compiler can keep the columns side by side in vector registers.

use seawall_core::BlockNumber;

use crate::page::Page;

/// How many columns are hashed side by side (`N_SUMS`).
const COLUMNS: usize = 32;
const ROW_BYTES: usize = COLUMNS * 4;
/// The multiplier of the FNV-1a hash.
const FNV_PRIME: u32 = 16_777_619;

/// What each column's hash starts from (`checksumBaseOffsets`).
#[rustfmt::skip]
const BASE_OFFSETS: [u32; COLUMNS] = [
    0x5B1F_36E9, 0xB852_5960, 0x02AB_50AA, 0x1DE6_6D2A, 0x79FF_467A, 0x9BB9_F8A3, 0x217E_7CD2, 0x83E1_3D2C,
    0xF8D4_474F, 0xE39E_B970, 0x42C6_AE16, 0x9932_16FA, 0x7B09_3B5D, 0x98DA_FF3C, 0xF718_902A, 0x0B1C_9CDB,
    0xE58F_764B, 0x1876_36BC, 0x5D7B_3BB1, 0xE73D_E7DE, 0x92BE_C979, 0xCCA6_C0B2, 0x304A_0979, 0x85AA_43D4,
    0x7831_25BB, 0x6CA8_EAA2, 0xE407_EAC6, 0x4B5C_FC3E, 0x9FBF_8C76, 0x15CA_20BE, 0xF2CA_9FD3, 0x959B_D756,
];

/// Leaves out the checksum's own place: the lower half of the third word of the first row.
const FIRST_ROW_MASKS: [u32; COLUMNS] = {
    let mut masks = WHOLE_ROW_MASKS;
    masks[2] = 0xFFFF_0000;
    masks
};
const WHOLE_ROW_MASKS: [u32; COLUMNS] = [u32::MAX; COLUMNS];

/// The checksum PostgreSQL would store in the page. Never zero.
///
/// `block` counts from the start of the relation fork, not of the segment file. The checksum that
/// stands in the page does not enter. It means nothing for a page that was never written to.
#[must_use]
pub fn page_checksum(page: &Page, block: BlockNumber) -> u16 {
    reduce(dispatch::hash(page), block)
}

/// Mixes in the block number, so that a page in the wrong place is noticed.
fn reduce(hash: u32, block: BlockNumber) -> u16 {
    let remainder = (hash ^ block) % u32::from(u16::MAX);
    u16::try_from(remainder + 1).unwrap_or(u16::MAX)
}

/// The hash of all columns, with `pd_checksum` taken as zero.
#[inline(always)]
fn hash(page: &Page) -> u32 {
    let (rows, _) = page.as_chunks::<ROW_BYTES>();
    let mut sums = BASE_OFFSETS;
    let mut masks = &FIRST_ROW_MASKS;
    for row in rows {
        let (words, _) = row.as_chunks::<4>();
        for ((sum, word), mask) in sums.iter_mut().zip(words).zip(masks) {
            *sum = mix(*sum, u32::from_le_bytes(*word) & mask);
        }
        masks = &WHOLE_ROW_MASKS;
    }
    for _ in 0..2 {
        for sum in &mut sums {
            *sum = mix(*sum, 0);
        }
    }
    sums.iter().fold(0, |folded, sum| folded ^ sum)
}

#[inline(always)]
const fn mix(sum: u32, word: u32) -> u32 {
    let mixed = sum ^ word;
    mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17)
}

/// Chooses the widest vectors the processor has. The compiler vectorises the same code.
#[cfg(target_arch = "x86_64")]
mod dispatch {
    use super::Page;

    #[target_feature(enable = "avx2")]
    fn hash_avx2(page: &Page) -> u32 {
        super::hash(page)
    }

    #[expect(unsafe_code, reason = "calling code compiled for a processor feature")]
    pub(super) fn hash(page: &Page) -> u32 {
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor was just found to have AVX2.
            return unsafe { hash_avx2(page) };
        }
        super::hash(page)
    }
}

/// Elsewhere the baseline has vectors wide enough (NEON on 64-bit ARM).
#[cfg(not(target_arch = "x86_64"))]
mod dispatch {
    pub(super) use super::hash;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::PAGE_BYTES;
    use proptest::prelude::*;

    const ROWS: usize = PAGE_BYTES / ROW_BYTES;

    /// The definition, one column at a time, on a page whose checksum was zeroed.
    fn reference(page: &Page, block: BlockNumber) -> u16 {
        let mut bytes = page.to_vec();
        bytes.splice(8..10, [0, 0]);
        let word = |at: usize| {
            bytes.iter().skip(at).take(4).rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
        };
        let columns = BASE_OFFSETS.iter().enumerate().map(|(column, base)| {
            let words = (0..ROWS).map(|row| word(row * ROW_BYTES + column * 4)).chain([0, 0]);
            words.fold(*base, mix)
        });
        let folded = columns.fold(0, |folded, sum| folded ^ sum) ^ block;
        (folded % 65_535 + 1) as u16
    }

    fn any_page() -> impl Strategy<Value = Box<Page>> {
        proptest::collection::vec(any::<u8>(), PAGE_BYTES)
            .prop_map(|bytes| bytes.try_into().unwrap_or_else(|_| Box::new([0; PAGE_BYTES])))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_form_computes_the_definition(page in any_page(), block: u32) {
            let expected = reference(&page, block);
            prop_assert_eq!(page_checksum(&page, block), expected);
            prop_assert_eq!(reduce(hash(&page), block), expected);
        }

        #[test]
        fn the_stored_checksum_does_not_enter(mut page in any_page(), stored: [u8; 2]) {
            let before = page_checksum(&page, 7);
            for (byte, new) in page.iter_mut().skip(8).zip(stored) {
                *byte = new;
            }
            prop_assert_eq!(page_checksum(&page, 7), before);
        }
    }

    #[test]
    fn the_result_is_never_zero() {
        assert_eq!(reduce(0, 0), 1);
        assert_eq!(reduce(65_534, 0), 65_535);
        assert_eq!(reduce(65_535, 0), 1);
        assert_eq!(reduce(u32::MAX, 0), 1);
    }
}
