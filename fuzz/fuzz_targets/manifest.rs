//! Pages of entries and of packs, as they are inside a manifest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_repo::manifest::Page;
use seawall_repo::pack::PackInfo;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(page) = minicbor::decode::<Page>(bytes) {
        let again = minicbor::to_vec(&page).expect("encodes");
        assert_eq!(minicbor::decode::<Page>(&again).expect("decodes"), page);
    }
    let _ = minicbor::decode::<Vec<PackInfo>>(bytes);
});
