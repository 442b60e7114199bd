//! Pages of WAL in any state: the reader finds the same whether it gets all at once or in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_core::Lsn;
use seawall_fuzz::start_at;
use seawall_pgdata::wal::WalReader;

#[path = "../../crates/seawall-pgdata/tests/wal_support/mod.rs"]
mod wal_support;

use wal_support::read_all;

fuzz_target!(|bytes: &[u8]| {
    let Some((lsn, rest)) = bytes.split_first_chunk() else { return };
    let Some((piece_bytes, wal)) = rest.split_first_chunk() else { return };
    let start = start_at(Lsn(u64::from_le_bytes(*lsn) >> 1), None);
    let (Ok(mut whole), Ok(mut pieces)) = (WalReader::new(start), WalReader::new(start)) else {
        return;
    };
    let piece_bytes = usize::from(u16::from_le_bytes(*piece_bytes)).max(1);
    let at_once = read_all(&mut whole, [wal]);
    assert_eq!(read_all(&mut pieces, wal.chunks(piece_bytes)), at_once);
    assert_eq!((whole.end(), whole.tail()), (pieces.end(), pieces.tail()));
    assert_eq!(whole.position(), pieces.position());
});
