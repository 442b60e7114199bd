#!/usr/bin/env python3
"""Prints vectors.json: known answers for the pieces of ../format.md, made from fixed inputs.

The sealing half is here and the opening half in seawall_reader.py, which has to read what is made.
`make_vectors.py > vectors.json` after a change of the format; the Rust crate's tests hold the same
file against the program.
"""

import hashlib
import json
import struct
import sys
import tempfile
from pathlib import Path

import zstandard
from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import seawall_reader as reader


def counting(start, length=32):
    return bytes((start + i) % 256 for i in range(length))


REPOSITORY_ID = counting(0xA0, 16)
KEYS = {reader.METADATA: counting(0x00), reader.HASH: counting(0x20), reader.DATA: counting(0x40)}
KEY_FILE_BYTES = counting(0x60)
PASSPHRASE = "correct horse — battery staple"
SLOTS = ["01KDY6XR800000000000000001", "01KDY6XR800000000000000002"]
PACK, MAP = "01KDY6XR800000000000000003", "01KDY6XR800000000000000004"
CHANGED_MAP = "01KDY6XR80000000000000000B"
MANIFESTS = ["01KDY6XR800000000000000007", "01KDY6XR800000000000000008"]
BACKUPS = ["01KDY6XR800000000000000009", "01KDY6XR80000000000000000A"]
SECOND_SLOTS = ["01KDY6XR800000000000000005", "01KDY6XR800000000000000006"]
LINE = "c/main/i/7300000000000000000-0"
PACK_NAME = f"{LINE}/pack/20260102/{PACK}"
CREATED_US = 1_767_319_200_000_000


# --- The encoding half ---------------------------------------------------------------------------


def cbor_head(major, argument):
    if argument < 24:
        return bytes([major << 5 | argument])
    width = next(w for w in range(4) if argument < 1 << (8 << w))
    return bytes([major << 5 | 24 + width]) + argument.to_bytes(1 << width, "big")


def cbor(value):
    """Core deterministic encoding (RFC 8949, 4.2.1)."""
    if value is None or isinstance(value, bool):
        return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
    if isinstance(value, int):
        return cbor_head(0, value) if value >= 0 else cbor_head(1, -1 - value)
    if isinstance(value, bytes):
        return cbor_head(2, len(value)) + value
    if isinstance(value, str):
        return cbor_head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return cbor_head(4, len(value)) + b"".join(map(cbor, value))
    pairs = sorted((cbor(key), cbor(item)) for key, item in value.items())
    return cbor_head(5, len(pairs)) + b"".join(key + item for key, item in pairs)


def varint(value):
    low = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([byte | 0x80 for byte in low[:-1]] + low[-1:])


def varints(*values):
    return b"".join(map(varint, values))


def chunk(key, aad_with, section, counter, text, compress=False, clear=False, trailer=b""):
    """One chunk; `aad_with` makes the additional data of section, flags and trailer."""
    flags = 2 if clear else 1 if compress else 0
    body = text
    if not clear:
        plain = zstandard.ZstdCompressor(level=3).compress(text) if compress else text
        nonce = reader.nonce(section, counter)
        body = AESGCM(key).encrypt(nonce, plain, aad_with(section, flags, trailer))
    head = struct.pack("<BBHII", section, flags, 0, counter, len(body))
    return head + struct.pack("<I", reader.crc32c(head, body)) + body


def seal(name, kind, salt, footer, chunks=(), epoch=1):
    """A whole object; `chunks` are (section, plaintext, {compress, clear})."""
    header = struct.pack("<8sHBBI32s12s", b"SEAWALL1", 1, kind, 0, epoch, salt, bytes(12))
    header += struct.pack("<I", reader.crc32c(header))
    keys = {
        domain: reader.hkdf(KEYS[domain], salt, b"seawall 1 " + text)
        for domain, text in reader.DOMAIN_NAMES.items()
    }

    def aad_with(section, flags, trailer):
        return reader.additional_data(REPOSITORY_ID, header, section, flags, name, trailer)

    data, counters = header, {}
    for section, text, how in chunks:
        counter = counters[section] = counters.get(section, -1) + 1
        body = section == 1 and kind in (reader.PACK, reader.WAL_HOT, reader.WAL_COLD)
        key = keys[reader.DATA if body else reader.METADATA]
        data += chunk(key, aad_with, section, counter, text, **how)
    length = len(data) + 16 + len(footer) + 16 + 32
    trailer = struct.pack("<QQI", length, len(data), len(chunks) + 1)
    data += chunk(keys[reader.METADATA], aad_with, reader.FOOTER, 0, footer, trailer=trailer)
    trailer += bytes(4)
    return data + trailer + struct.pack("<I4s", reader.crc32c(trailer), b"SWND")


# --- The vectors ---------------------------------------------------------------------------------


class Hashes:
    """The reader's content hashes, without a repository around them."""

    hash_key = KEYS[reader.HASH]
    block_key = reader.hkdf(hash_key, b"", b"seawall 1 block")
    frame_key = reader.hkdf(hash_key, b"", b"seawall 1 frame")
    block_hash = reader.Repository.block_hash
    frame_hash = reader.Repository.frame_hash
    object_hash = reader.Repository.object_hash


HASHES = Hashes()


def slot_objects():
    """Both kinds of key slot, with what leads to their keys."""
    vectors = []
    for ulid, method in zip(SLOTS, (1, 2)):
        salt, nonce = counting(0x80 + method), counting(0x10 * method, 12)
        if method == 1:
            parameters = {0: salt}
            kek = reader.hkdf(KEY_FILE_BYTES, salt, b"seawall 1 key file")
        else:
            parameters = {0: salt, 1: 256, 2: 2, 3: 1}
            kek = hash_secret_raw(PASSPHRASE.encode(), salt, time_cost=2, memory_cost=256,
                                  parallelism=1, hash_len=32, type=Type.ID)
        aad = reader.slot_additional_data(REPOSITORY_ID, 1, reader.ulid_bytes(ulid), 7)
        wrapped = AESGCM(kek).encrypt(nonce, b"".join(KEYS.values()), aad)
        clear = cbor({0: REPOSITORY_ID, 1: 1, 2: "first", 3: CREATED_US, 4: method,
                      5: parameters, 6: 7, 7: nonce, 8: wrapped})
        name = f"keys/1/{ulid}"
        footer = cbor({0: hashlib.sha256(clear).digest()})
        data = seal(name, reader.KEY_SLOT, counting(0xC0 + method), footer,
                    [(1, clear, {"clear": True})])
        vectors.append({"name": name, "kind": reader.KEY_SLOT, "method": method, "slot": ulid,
                        "kek": kek, "additional_data": aad, "clear": clear, "footer": footer,
                        "bytes": data})
    return vectors


def second_epoch():
    """What a rotation leaves: the beginning of epoch 2, its slot for the key file, and the slot of
    another rotation that lost. Epoch 2 has the keys of epoch 1 here, which a real one has not."""
    made, epoch_id = [], counting(0xE0, 16)
    clear = cbor({0: REPOSITORY_ID, 1: 2, 2: epoch_id, 3: CREATED_US})
    footer = cbor({0: hashlib.sha256(clear).digest()})
    made.append({"name": "epochs/2", "kind": reader.EPOCH, "clear": clear, "footer": footer,
                 "bytes": seal("epochs/2", reader.EPOCH, counting(0xD0), footer,
                               [(1, clear, {"clear": True})], epoch=2)})
    for ulid, own_id, seed in zip(SECOND_SLOTS, (epoch_id, counting(0xF0, 16)), (0x83, 0x84)):
        salt, nonce = counting(seed), counting(seed, 12)
        kek = reader.hkdf(KEY_FILE_BYTES, salt, b"seawall 1 key file")
        aad = reader.slot_additional_data(REPOSITORY_ID, 2, reader.ulid_bytes(ulid), 7)
        wrapped = AESGCM(kek).encrypt(nonce, b"".join(KEYS.values()), aad)
        clear = cbor({0: REPOSITORY_ID, 1: 2, 2: "rotate", 3: CREATED_US, 4: 1, 5: {0: salt},
                      6: 7, 7: nonce, 8: wrapped, 9: own_id})
        name, footer = f"keys/2/{ulid}", cbor({0: hashlib.sha256(clear).digest()})
        made.append({"name": name, "kind": reader.KEY_SLOT, "clear": clear, "footer": footer,
                     "bytes": seal(name, reader.KEY_SLOT, counting(seed + 0x40), footer,
                                   [(1, clear, {"clear": True})], epoch=2)})
    return made


def plain_object(name, kind, salt, footer, chunks=()):
    texts = [{"section": section, "plaintext": text} for section, text, _ in chunks]
    return {"name": name, "kind": kind, "footer": footer, "chunks": texts,
            "bytes": seal(name, kind, salt, footer, chunks)}


def frame(payload, descriptor):
    encoded = cbor(descriptor)
    return payload + encoded + struct.pack("<H", len(encoded))


def objects():
    clear = cbor({0: 1, 1: REPOSITORY_ID, 2: CREATED_US, 3: [], 4: []})
    footer = cbor({0: hashlib.sha256(clear).digest()})
    made = [plain_object("format/1", reader.FORMAT, counting(0xC0), footer,
                         [(1, clear, {"clear": True})])]
    about = {0: "main", 1: 7300000000000000000, 2: 0, 3: 15, 4: 202209061, 5: 1300, 6: 8192,
             7: 131072, 8: 16 << 20, 9: 8192, 10: 1, 13: CREATED_US}
    made.append(plain_object(f"{LINE}/about", reader.ABOUT, counting(0xC3), cbor(about)))
    made.append(pack_object())
    return made + two_backups(made[-1]) + [wal_object()]


def wal_object():
    """A page of WAL with one commit in it, as far as index and footer tell."""
    start, end, time = 3 << 24, (3 << 24) + 8192, 813_000_000_000_000
    record = [start + 40, start + 74]
    row = {0: varints(40), 1: varints(34), 2: varints(2 * 700), 3: varints(2 * time),
           4: varints(0), 5: varints(0), 6: b"", 7: varints(0), 8: varints(0)}
    page = counting(0x21, 8192)
    index = cbor({0: row, 1: [], 2: [], 3: {0: b"", 1: []}, 4: []})
    index_bytes = 16 + len(zstandard.ZstdCompressor(level=3).compress(index)) + 16
    page_bytes = 16 + len(page) + 16
    footer = {0: 1, 1: start, 2: end, 3: 16 << 20, 4: 7300000000000000000, 5: 15,
              6: [64 + page_bytes, index_bytes], 7: varints(page_bytes),
              8: HASHES.block_hash(page), 11: [record[0], 0], 12: record,
              15: {0: start, 2: [*record, time]}}
    name = f"{LINE}/wal/hot/00000001/{start:016X}/{start:016X}-{end:016X}"
    return plain_object(name, reader.WAL_HOT, counting(0xC5), cbor(footer),
                        [(1, page, {}), (2, index, {"compress": True})])


BLOCK = b"seawall " * 1024
LATER_BLOCK = b"harbour " * 1024
SMALL_FILES = [(b"PG_VERSION", b"15\n"), (b"global/zeros", bytes(100))]


def pack_object():
    """Three frames: one block of a relation, compressed; two small files, one of them zeros; a
    block that was added to the relation later."""
    block, files = BLOCK, SMALL_FILES
    frames = [
        frame(block, {0: 0, 1: b"base/1/1259", 2: 0, 3: 1}),
        frame(b"".join(text for _, text in files),
              {0: 2, 5: [[path, len(text)] for path, text in files]}),
        frame(LATER_BLOCK, {0: 1, 4: [[b"base/1/1259", 8192, [1]]]}),
    ]
    compressed = {"compress": True}
    chunks = [(1, frames[0], compressed), (1, frames[1], {}), (1, frames[2], compressed)]
    packed = zstandard.ZstdCompressor(level=3).compress
    lengths = [16 + len(packed(frames[0])) + 16, 16 + len(frames[1]) + 16,
               16 + len(packed(frames[2])) + 16]
    hashes = [HASHES.frame_hash([block]), HASHES.frame_hash([text for _, text in files]),
              HASHES.frame_hash([LATER_BLOCK])]
    footer = cbor({0: 3, 1: varints(*lengths), 2: b"".join(hashes), 3: b"\x00\x02\x01"})
    return plain_object(PACK_NAME, reader.PACK, counting(0xC4), footer, chunks)


def places(made):
    """Where the chunks of an object are: offset and length."""
    found, at = [], 64
    for _ in made["chunks"]:
        length = 16 + struct.unpack_from("<I", made["bytes"], at + 8)[0]
        found.append((at, length))
        at += length
    return found


def reference(ulid, made):
    return [reader.ulid_bytes(ulid), len(made["bytes"]), HASHES.object_hash(made["footer"])]


def page_address(first, manifest, number, made, entries):
    offset, length = places(made)[number]
    text = made["chunks"][number]["plaintext"]
    return [first, manifest, number, offset, length, entries, HASHES.object_hash(text)]


def commit(number, pages, pack_pages, maps, manifests):
    about = {
        0: reader.ulid_bytes(BACKUPS[number]), 1: 0, 2: 0, 3: 0, 4: "main",
        5: 7300000000000000000, 6: 0, 7: 15, 8: 0x2000028, 9: 1, 10: 0x2000138, 11: 1,
        12: CREATED_US, 13: CREATED_US + 1 + number, 14: False, 15: b"START WAL LOCATION\n", 16: b"",
        17: bytes(16), 18: [], 19: [], 20: [], 21: 0, 25: [], 26: 8295, 27: 8295, 28: 1000, 29: 3,
        31: {"why": "a vector"}, 33: "make_vectors.py", 34: True, 35: 16 << 20, 36: 131072,
    }
    if number:
        about[30] = reader.ulid_bytes(BACKUPS[0])
        about[2] = 1
    footer = cbor([about, {22: pages, 23: pack_pages, 24: maps, 38: manifests}])
    name = f"{LINE}/backup/{BACKUPS[number]}/00000000"
    return plain_object(name, reader.COMMIT, counting(0xC8 + number), footer)


def two_backups(pack):
    """Two maps, and two manifests with their commits. In the second backup a relation is longer, by
    a block that was added and one of zeros, and shares its hashes with the first; this is on a page
    of its own, and the other page is the first's."""
    pack_id, map_id = reader.ulid_bytes(PACK), reader.ulid_bytes(MAP)
    block_map = cbor({0: 1, 1: 8192, 2: 16, 3: [pack_id], 4: varints(1, 1, 0)})
    leaves = [(1, block_map, {}), (2, HASHES.block_hash(BLOCK), {})]
    maps = plain_object(f"{LINE}/map/{MAP}", reader.MAP, counting(0xC5), cbor({0: 1, 1: 1}), leaves)
    addresses = [[0, *place, HASHES.object_hash(text)]
                 for place, (_, text, _) in zip(places(maps), leaves)]

    # One exception in the delta frame, the next of zeros.
    changed_map = cbor({0: 3, 1: 8192, 2: 16, 3: [pack_id], 4: varints(1, 1, 0),
                        5: varints(1, 1, 2, 0, 0, 0),
                        6: HASHES.block_hash(LATER_BLOCK) + bytes(8)})
    changed_maps = plain_object(f"{LINE}/map/{CHANGED_MAP}", reader.MAP, counting(0xCA),
                                cbor({0: 1, 1: 0}), [(1, changed_map, {})])
    changed = [0, *places(changed_maps)[0], HASHES.object_hash(changed_map)]

    def file(path, size, content):
        return {0: path, 1: 1, 2: 0o600, 3: size, 4: CREATED_US, 5: content}

    (version, text), (zeros, nothing) = SMALL_FILES
    pages = [
        [[pack_id], [map_id], [
            file(version, len(text), [0, 0, 1, 0, HASHES.block_hash(text)]),
            file(b"base/1/1259", len(BLOCK), [1, *addresses, [0]]),
        ]],
        [[pack_id], [], [file(zeros, len(nothing), [0, 0, 1, len(text), bytes(8)])]],
    ]
    packs = [reference(PACK, pack)]
    chunks = [(1, cbor(page), {}) for page in pages] + [(2, cbor(packs), {})]
    first = plain_object(f"{LINE}/manifest/{MANIFESTS[0]}", reader.MANIFEST, counting(0xC6),
                         cbor({0: 2, 1: 1}), chunks)
    added = cbor([[pack_id], [reader.ulid_bytes(CHANGED_MAP), map_id], [
        pages[0][2][0],
        file(b"base/1/1259", 3 * 8192, [1, changed, [1, *addresses[1][1:]], [0]]),
    ]])
    second = plain_object(f"{LINE}/manifest/{MANIFESTS[1]}", reader.MANIFEST, counting(0xC7),
                          cbor({0: 1, 1: 0}), [(1, added, {})])
    map_list, manifests = [reference(MAP, maps)], [reference(MANIFESTS[0], first)]

    def pages_of_first(index):
        return [page_address(version, index, 0, first, 2), page_address(zeros, index, 1, first, 1)]

    def packs_of_first(index):
        return [[index, 0, *places(first)[2], 1]]

    before = commit(0, pages_of_first(0), packs_of_first(0), map_list, manifests)
    own = page_address(version, 0, 0, second, 2)
    after = commit(1, [own, pages_of_first(1)[1]], packs_of_first(1),
                   [reference(CHANGED_MAP, changed_maps), *map_list],
                   [reference(MANIFESTS[1], second), *manifests])
    return [maps, first, before, changed_maps, second, after]


def page():
    """Every kind of entry; the lists have the packs and maps in the order of their first use."""
    leaf_hash, hashes_hash = counting(0x01, 16), counting(0x11, 16)
    entries = [
        {0: b"PG_VERSION", 1: 1, 2: 0o640, 3: 3, 4: CREATED_US,
         5: [0, 0, 1, 0, HASHES.block_hash(b"15\n")]},
        {0: b"base", 1: 0, 2: 0o700},
        {0: b"base/1/1259", 1: 1, 2: 0o600, 3: 24 * 8192, 4: -1,
         5: [1, [0, 64, 70, leaf_hash], [0, 134, 224, hashes_hash], [1, 0]]},
        {0: b"base/1/2613", 1: 1, 2: 0o600, 3: 0, 4: CREATED_US},
        {0: b"server.key", 1: 2, 2: 0o777, 6: b"/etc/ssl/\xff.key"},
    ]
    packs = [reader.ulid_bytes(PACK), reader.ulid_bytes(MANIFESTS[0])]
    return {"cbor": cbor([packs, [reader.ulid_bytes(MAP)], entries]), "packs": [PACK, MANIFESTS[0]],
            "map": MAP}


def leaf():
    """40 blocks: 20 in two frames from number 7 on, 19 of zeros, one short block in a frame."""
    packs = [reader.ulid_bytes(PACK), reader.ulid_bytes(MAP)]
    runs = varints(20, 1, 7, 19, 0, 1, 2, 300)
    encoded = cbor({0: 40, 1: 100, 2: 16, 3: packs, 4: runs})
    meaning = [{"blocks": 20, "pack": PACK, "first_frame": 7}, {"blocks": 19},
               {"blocks": 1, "pack": MAP, "first_frame": 300}]
    return {"cbor": encoded, "file_bytes": 39 * 8192 + 100, "runs": meaning}


def changed_leaf():
    """The same file, later: block 17 is of zeros, 38 and 39 are in a delta frame, and so is block 40,
    which is new. Block 39 has its full length now."""
    packs = [reader.ulid_bytes(PACK), reader.ulid_bytes(MAP), reader.ulid_bytes(CHANGED_MAP)]
    exceptions = varints(17, 0, 20, 3, 5, 0, 0, 3, 5, 1, 0, 3, 6, 31)
    hashes = [bytes(8)] + [counting(start, 8) for start in (1, 2, 3)]
    encoded = cbor({0: 41, 1: 8192, 2: 16, 3: packs, 4: varints(20, 1, 7, 19, 0, 1, 2, 300),
                    5: exceptions, 6: b"".join(hashes)})
    meaning = [{"block": 17}, {"block": 38, "frame": 5, "slot": 0},
               {"block": 39, "frame": 5, "slot": 1}, {"block": 40, "frame": 6, "slot": 31}]
    for one, own in zip(meaning, hashes):
        one["hash"] = own
    return {"cbor": encoded, "pack": CHANGED_MAP, "exceptions": meaning}


def pieces():
    salt = counting(0xC3)
    name = f"{LINE}/about"
    header = seal(name, reader.ABOUT, salt, b"")[:64]
    return {
        "hkdf_object_keys": [
            {"salt": salt, "domain": text.decode(), "root_key": KEYS[domain],
             "key": reader.hkdf(KEYS[domain], salt, b"seawall 1 " + text)}
            for domain, text in reader.DOMAIN_NAMES.items()
        ],
        "nonces": [{"section": s, "counter": c, "nonce": reader.nonce(s, c)}
                   for s, c in [(1, 0), (1, 0x01020304), (255, 0)]],
        "additional_data": {"name": name, "header": header, "section": 1, "flags": 1,
                            "bytes": reader.additional_data(REPOSITORY_ID, header, 1, 1, name)},
        "varints": [{"value": v, "bytes": varint(v)}
                    for v in [0, 1, 127, 128, 300, 16383, 16384, (1 << 32) - 1, (1 << 64) - 1]],
        "crc32c": {"of": b"123456789", "value": reader.crc32c(b"123456789")},
        "ulid": {"text": PACK, "bytes": reader.ulid_bytes(PACK)},
    }


def hashes():
    blocks = [b"\x01" * 64, bytes(64), b"short"]
    return {
        "block_key": HASHES.block_key,
        "frame_key": HASHES.frame_key,
        "blocks": [{"block": block, "hash": HASHES.block_hash(block)} for block in blocks],
        "frame_of_these_blocks": HASHES.frame_hash(blocks),
        "object": {"plaintext": b"plaintext", "hash": HASHES.object_hash(b"plaintext")},
    }


def vectors():
    digits = hashlib.sha256(KEY_FILE_BYTES).hexdigest()[:8]
    return {
        "repository_id": REPOSITORY_ID,
        "keys": {"epoch": 1, "metadata": KEYS[1], "hash": KEYS[2], "data": KEYS[4]},
        "key_file": {"bytes": KEY_FILE_BYTES,
                     "line": f"seawall-key-1-{KEY_FILE_BYTES.hex()}-{digits}"},
        "passphrase": PASSPHRASE,
        "pieces": pieces(),
        "hashes": hashes(),
        "slots": slot_objects(),
        "second_epoch": second_epoch(),
        "objects": objects(),
        "page": page(),
        "leaf": leaf(),
        "changed_leaf": changed_leaf(),
    }


def read_back(made):
    """The reader has to open what was sealed, with either slot."""
    assert reader.parse_key_file("# a comment\n" + made["key_file"]["line"]) == KEY_FILE_BYTES
    decoded = reader.decode_cbor(made["page"]["cbor"])
    assert cbor(decoded) == made["page"]["cbor"]
    assert [entry.get(5, [None])[0] for entry in reader.resolved(decoded)] == [0, None, 1, None, None]
    with tempfile.TemporaryDirectory() as directory:
        for one in made["slots"] + made["objects"]:
            place = Path(directory, one["name"])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(one["bytes"])
        for unlock in {"key": KEY_FILE_BYTES}, {"passphrase": PASSPHRASE}:
            repository = reader.Repository(directory, **unlock)
            assert repository.epochs == {1: KEYS}
            for one in made["objects"]:
                found = reader.Object(repository, one["name"], one["kind"])
                assert found.footer_text == one["footer"]
                texts = [(section, text) for section, _, text in found.chunks()]
                assert texts == [(c["section"], c["plaintext"]) for c in one["chunks"]]
        for one in made["second_epoch"]:
            place = Path(directory, one["name"])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(one["bytes"])
        assert reader.Repository(directory, key=KEY_FILE_BYTES).epochs == {1: KEYS, 2: KEYS}
        pack = made["objects"][2]
        footer_hash = HASHES.object_hash(pack["footer"])
        found = reader.Pack(repository, LINE, reader.ulid_bytes(PACK), len(pack["bytes"]),
                            footer_hash)
        assert [len(found.frame(number)[1]) for number in (0, 1, 2)] == [8192, 103, 8192]
        before, after = reader.backups(repository)
        assert after.places[22][1][1] == 1, "the last page is the first manifest's"
        for backup, relation in (before, BLOCK), (after, BLOCK + LATER_BLOCK + bytes(8192)):
            files = {**dict(SMALL_FILES), b"base/1/1259": relation}
            assert [entry[0] for entry in backup.entries()] == sorted(files)
            for entry in backup.entries():
                size = min(8192, entry[3])
                blocks = [block or bytes(size) for block in backup.blocks(entry)]
                assert b"".join(blocks) == files[entry[0]]


def main():
    made = vectors()
    read_back(made)
    json.dump(made, sys.stdout, indent=1, default=bytes.hex, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
