#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_pgwire::{Conninfo, Environment};

fuzz_target!(|text: &str| {
    let Ok(conninfo) = text.parse::<Conninfo>() else { return };
    // Those name files, and any file of this machine is none of the fuzzer's business.
    let files =
        ["passfile", "service", "servicefile", "sslrootcert", "sslcert", "sslkey", "sslcrl"];
    if files.iter().all(|keyword| conninfo.get(keyword).is_none()) {
        let _ = conninfo.resolve(&Environment::new(|_| None).with_os_user("somebody"));
    }
});
