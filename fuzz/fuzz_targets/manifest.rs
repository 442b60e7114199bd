//! Pages of entries, as they are inside a manifest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_repo::manifest::Entry;
use seawall_repo::pack::PackInfo;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entries) = minicbor::decode::<Vec<Entry>>(bytes) {
        let again = minicbor::to_vec(&entries).expect("encodes");
        assert_eq!(minicbor::decode::<Vec<Entry>>(&again).expect("decodes"), entries);
    }
    let _ = minicbor::decode::<Vec<PackInfo>>(bytes);
});
