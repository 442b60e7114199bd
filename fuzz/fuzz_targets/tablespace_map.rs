#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_pgdata::tablespace_map::TablespaceMap;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(map) = TablespaceMap::parse(bytes) {
        assert_eq!(TablespaceMap::parse(&map.to_bytes()), Ok(map));
    }
});
