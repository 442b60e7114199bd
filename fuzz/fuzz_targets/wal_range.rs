//! Footer, index and body of a range of WAL, sealed with the right keys and with any contents.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_core::Lsn;
use seawall_fuzz::{RangeParts, keyring, path, range_name};
use seawall_repo::envelope::{ObjectKind, ObjectSealer, Section};
use seawall_repo::layout::LineObject;
use seawall_repo::wal::range::open_range;

fuzz_target!(|bytes: &[u8]| {
    let Some(parts) = RangeParts::read(bytes) else { return };
    let name = range_name(Lsn(u64::from(parts.start)), parts.body.len());
    let (keyring, path) = (keyring(), path(&LineObject::WalHot(name)));
    let mut object = Vec::new();
    let mut sealer =
        ObjectSealer::begin(&keyring, ObjectKind::WalHot, &path, &mut object).expect("begins");
    sealer.chunk(Section::FIRST, &parts.body, None, &mut object).expect("seals");
    sealer.chunk(Section::SECOND, &parts.index, None, &mut object).expect("seals");
    sealer.finish(&parts.footer, &mut object).expect("ends");
    let _ = open_range(&keyring, &path, name, &object);
});
