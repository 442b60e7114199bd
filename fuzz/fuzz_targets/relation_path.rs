#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_pgdata::PgMajor;
use seawall_pgdata::exclusion::verdict;
use seawall_pgdata::relation_path::RelationPath;

fuzz_target!(|path: &[u8]| {
    for major in PgMajor::ALL {
        if let Some(RelationPath::File(file)) = RelationPath::parse(path, major) {
            assert_eq!(file.path(major).to_string().as_bytes(), path);
        }
        let _ = (verdict(path, true, major), verdict(path, false, major));
    }
});
