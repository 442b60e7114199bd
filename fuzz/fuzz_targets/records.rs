//! The small objects that are only a footer: what anyone with the keys might have written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_fuzz::{keyring, map_path, seal_footer};
use seawall_repo::manifest::Commit;
use seawall_repo::records::{About, Event, Head, HistoryFile, Pin, Record, Tombstone};

fn open<R: Record + PartialEq + std::fmt::Debug>(footer: &[u8]) {
    let (keyring, path) = (keyring(), map_path());
    if let Ok(record) = R::open(&keyring, &path, &seal_footer(R::KIND, &path, footer)) {
        let sealed = record.seal(&keyring, &path).expect("seals");
        assert_eq!(R::open(&keyring, &path, &sealed).expect("opens"), record);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, footer)) = bytes.split_first() else { return };
    match kind % 7 {
        0 => open::<About>(footer),
        1 => open::<Event>(footer),
        2 => open::<Head>(footer),
        3 => open::<HistoryFile>(footer),
        4 => open::<Pin>(footer),
        5 => open::<Commit>(footer),
        _ => open::<Tombstone>(footer),
    }
});
