#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_pgdata::control::{ControlFile, invalidate_checkpoint};

/// Where the CRC is up to 17, and in 18.
const CRC_OFFSETS: [usize; 2] = [288, 292];

fuzz_target!(|bytes: &[u8]| {
    let _ = ControlFile::parse(bytes);
    for offset in CRC_OFFSETS {
        let mut bytes = bytes.to_vec();
        let Some((covered, crc)) = bytes.split_at_mut_checked(offset) else { continue };
        let Some(crc) = crc.first_chunk_mut() else { continue };
        *crc = crc32c::crc32c(covered).to_le_bytes();
        let Ok(control) = ControlFile::parse(&bytes) else { continue };
        invalidate_checkpoint(&mut bytes).expect("what was read can be changed");
        let changed = ControlFile::parse(&bytes).expect("and read again");
        assert_eq!(ControlFile { checkpoint: changed.checkpoint, ..control }, changed);
    }
});
