//! Whatever is done to an object without its keys is noticed; what was sealed is what is opened.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use seawall_fuzz::{Damage, keyring, map_path, repair_checksums};
use seawall_repo::envelope::{Compressor, ObjectKind, ObjectSealer, Section, WholeObject};

#[derive(Debug, Arbitrary)]
struct Input {
    chunks: Vec<(bool, bool, Vec<u8>)>,
    footer: Vec<u8>,
    damages: Vec<Damage>,
    repair: bool,
    anything: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let (keyring, path) = (keyring(), map_path());
    let open = |bytes: &[u8]| WholeObject::open(&keyring, ObjectKind::Map, &path, bytes);
    let mut compressor = Compressor::new(1).expect("zstd");
    let mut object = Vec::new();
    let mut sealer =
        ObjectSealer::begin(&keyring, ObjectKind::Map, &path, &mut object).expect("begins");
    let mut chunks = Vec::new();
    for (second, compressed, bytes) in input.chunks {
        let section = if second { Section::SECOND } else { Section::FIRST };
        let compressor = compressed.then_some(&mut compressor);
        sealer.chunk(section, &bytes, compressor, &mut object).expect("seals");
        chunks.push((section, bytes));
    }
    sealer.finish(&input.footer, &mut object).expect("ends");

    let opened = open(&object).expect("opens");
    assert_eq!((&opened.chunks, &opened.footer), (&chunks, &input.footer));

    let mut damaged = object.clone();
    input.damages.iter().for_each(|damage| damage.apply(&mut damaged));
    if input.repair {
        repair_checksums(&mut damaged);
    }
    assert!(damaged == object || open(&damaged).is_err());
    let _ = open(&input.anything);
    for kind in [ObjectKind::Map, ObjectKind::Format, ObjectKind::KeySlot] {
        let _ = WholeObject::peek_clear(kind, &damaged);
        let _ = WholeObject::peek_clear(kind, &input.anything);
    }
});
