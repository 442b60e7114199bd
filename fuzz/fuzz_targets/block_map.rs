#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_repo::map::BlockMap;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(map) = BlockMap::decode(bytes) {
        let covered: u64 = map.runs.iter().map(|run| u64::from(run.blocks)).sum();
        assert_eq!(covered, u64::from(map.blocks()));
        assert_eq!(BlockMap::decode(&map.encode()).as_ref(), Ok(&map));
    }
});
