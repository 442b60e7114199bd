#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_pgdata::backup_label::{BackupHistory, BackupLabel};

fuzz_target!(|bytes: &[u8]| {
    let _ = BackupLabel::parse(bytes);
    let _ = BackupHistory::parse(bytes);
});
