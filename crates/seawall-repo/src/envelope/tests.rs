use proptest::prelude::*;
use seawall_store::ObjectPath;

use super::open::PLAINTEXT_BYTES_MAX;
use super::{Compressor, ObjectKind, ObjectSealer, Section, WholeObject};
use crate::Damage;
use crate::keys::{EpochKeys, Keyring};

fn keyring() -> Keyring {
    Keyring::new([7; 16], 1, EpochKeys::random().unwrap())
}

fn path(text: &str) -> ObjectPath {
    text.parse().unwrap()
}

fn object(keyring: &Keyring, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut compressor = Compressor::new(1).unwrap();
    let mut sealer = ObjectSealer::begin(keyring, ObjectKind::Map, &path(name), &mut out).unwrap();
    for section in [Section::FIRST, Section::SECOND, Section::FIRST] {
        sealer.chunk(section, &[section.0; 5000], Some(&mut compressor), &mut out).unwrap();
    }
    sealer.chunk(Section::SECOND, b"short", Some(&mut compressor), &mut out).unwrap();
    let length = sealer.finish(b"footer", &mut out).unwrap();
    assert_eq!(length, out.len() as u64);
    out
}

fn open(keyring: &Keyring, name: &str, bytes: &[u8]) -> Result<WholeObject, Damage> {
    WholeObject::open(keyring, ObjectKind::Map, &path(name), bytes)
}

#[test]
fn what_is_sealed_opens_again() {
    let keyring = keyring();
    let bytes = object(&keyring, "map/a");
    assert!(bytes.len() < 1000, "repetitive chunks are compressed");
    let whole = open(&keyring, "map/a", &bytes).unwrap();
    assert_eq!(whole.footer, b"footer");
    let sections: Vec<u8> = whole.chunks.iter().map(|(section, _)| section.0).collect();
    assert_eq!(sections, [1, 2, 1, 2]);
    assert_eq!(whole.chunks[3].1, b"short");
}

#[test]
fn a_chunk_that_is_too_long_to_inflate_is_stored_as_it_is() {
    let keyring = keyring();
    let mut compressor = Compressor::new(1).unwrap();
    for (length, compressed) in [(PLAINTEXT_BYTES_MAX, true), (PLAINTEXT_BYTES_MAX + 1, false)] {
        let mut out = Vec::new();
        let name = path("map/a");
        let mut sealer = ObjectSealer::begin(&keyring, ObjectKind::Map, &name, &mut out).unwrap();
        sealer.chunk(Section::FIRST, &vec![0; length], Some(&mut compressor), &mut out).unwrap();
        sealer.finish(b"", &mut out).unwrap();
        assert_eq!(out.len() < 1 << 20, compressed);
        assert_eq!(open(&keyring, "map/a", &out).unwrap().chunks[0].1.len(), length);
    }
}

#[test]
fn every_flipped_bit_is_damage() {
    let keyring = keyring();
    let bytes = object(&keyring, "map/a");
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let result = open(&keyring, "map/a", &flipped);
        assert!(result.is_err(), "bit {bit} of {}", bytes.len() * 8);
    }
}

#[test]
fn every_truncation_and_extension_is_damage() {
    let keyring = keyring();
    let mut bytes = object(&keyring, "map/a");
    for length in 0..bytes.len() {
        assert!(open(&keyring, "map/a", &bytes[..length]).is_err(), "{length} bytes");
    }
    bytes.push(0);
    assert_eq!(open(&keyring, "map/a", &bytes).err(), Some(Damage::Length));
}

#[test]
fn an_object_is_bound_to_its_name_and_repository() {
    let keyring = keyring();
    let bytes = object(&keyring, "map/a");
    assert!(matches!(open(&keyring, "map/b", &bytes), Err(Damage::Authentication { .. })));
    let other = Keyring::new([8; 16], 1, keyring.epoch(1).unwrap().clone());
    assert!(matches!(open(&other, "map/a", &bytes), Err(Damage::Authentication { .. })));
    let later = Keyring::new([7; 16], 2, keyring.epoch(1).unwrap().clone());
    assert_eq!(open(&later, "map/a", &bytes).err(), Some(Damage::Epoch(1)));
}

#[test]
fn chunks_cannot_change_places_or_objects() {
    let keyring = keyring();
    let build = |first: &[u8], second: &[u8]| {
        let mut out = Vec::new();
        let mut sealer =
            ObjectSealer::begin(&keyring, ObjectKind::Map, &path("map/a"), &mut out).unwrap();
        let length = sealer.chunk(Section::FIRST, first, None, &mut out).unwrap();
        sealer.chunk(Section::FIRST, second, None, &mut out).unwrap();
        sealer.finish(b"", &mut out).unwrap();
        (out, length as usize)
    };
    let (mut swapped, length) = build(b"one", b"two");
    let start = super::HEADER_BYTES;
    let (one, two) = swapped[start..start + 2 * length].split_at_mut(length);
    one.swap_with_slice(two);
    assert!(open(&keyring, "map/a", &swapped).is_err());
    let (mut mixed, _) = build(b"one", b"two");
    let (other, _) = build(b"six", b"ten");
    mixed[start..start + length].copy_from_slice(&other[start..start + length]);
    assert!(open(&keyring, "map/a", &mixed).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_open_and_never_panic(bytes: Vec<u8>) {
        prop_assert!(open(&keyring(), "map/a", &bytes).is_err());
        prop_assert!(WholeObject::peek_clear(ObjectKind::Map, &bytes).is_err());
    }
}
