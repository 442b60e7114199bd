#!/usr/bin/env python3
"""Restores PostgreSQL backups from a Seawall repository in a local directory, with nothing but the
repository, a key and this file. Written from ../format.md alone; "§" refers to its sections.

It checks all that the format lets a reader check, and stops at the first thing that is wrong.
"""

import argparse, hashlib, hmac, os, re, struct, sys  # noqa: E401
from datetime import datetime, timedelta, timezone
from functools import cached_property, lru_cache
from pathlib import Path

import blake3, google_crc32c, zstandard  # noqa: E401
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT, KEY_SLOT, ABOUT, PACK, MAP, MANIFEST, EVENT, PIN = range(1, 9)
WAL_HOT, WAL_COLD, HISTORY, NAMES, HEAD, GC, TOMBSTONE, EPOCH = range(9, 17)
COMMIT = 19
METADATA, HASH, DATA = 1, 2, 4  # the domains, as bits of a slot (§5)
DOMAIN_NAMES = {METADATA: b"metadata", DATA: b"data"}
FOOTER = 255
BLOCK, MAX_PAYLOAD = 8192, 256 * 1024
# Frames are small; manifest pages and WAL indexes are the largest chunks there are.
MAX_CHUNK = 1 << 30


class Damaged(Exception):
    """The bytes of the repository are not what was written."""


class Refused(Exception):
    """Nothing is known to be broken, but this reader cannot or must not go on."""


# --- CBOR, varints, keys: the alphabet -----------------------------------------------------------


class Cursor:
    """Reads bytes from front to back and never past the end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise ValueError("ends too early")
        self.at += count
        return piece

    def varint(self):
        """Unsigned LEB128, at most 64 bits."""
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if value >= 1 << 64 or (byte == 0 and shift > 7):
                    raise ValueError("varint out of range or not the shortest")
                return value
            if shift > 63:
                raise ValueError("varint too long")

    def cbor(self, depth=0):
        """One value in core deterministic encoding (RFC 8949, 4.2.1); no floats, no tags."""
        (first,) = self.take(1)
        major, argument = first >> 5, first & 31
        if major == 7:
            if argument not in (20, 21, 22):
                raise ValueError("a simple value other than false, true and null")
            return {20: False, 21: True, 22: None}[argument]
        if argument >= 24:
            if argument > 27:
                raise ValueError("indefinite length")
            width = 1 << (argument - 24)
            argument = int.from_bytes(self.take(width), "big")
            if argument < (24 if width == 1 else 1 << (4 * width)):
                raise ValueError("an integer that is not the shortest")
        if major in (0, 1):
            return argument if major == 0 else -1 - argument
        if major in (2, 3):
            text = bytes(self.take(argument))
            return text if major == 2 else text.decode()
        if major == 6 or depth > 16:
            raise ValueError("a tag, or nested too deeply")
        if major == 4:
            return [self.cbor(depth + 1) for _ in range(argument)]
        result, before = {}, b""
        for _ in range(argument):
            start = self.at
            key = self.cbor(depth + 1)
            encoded = bytes(self.data[start : self.at])
            if encoded <= before or not isinstance(key, (int, str, bytes)):
                raise ValueError("map keys out of order")
            result[key], before = self.cbor(depth + 1), encoded
        return result


def decode_cbor(data):
    cursor = Cursor(data)
    value = cursor.cbor()
    if cursor.at != len(data):
        raise ValueError("bytes after the end")
    return value


def decode_varints(data):
    cursor, values = Cursor(data), []
    while cursor.at < len(data):
        values.append(cursor.varint())
    return values


def hkdf(ikm, salt, info):
    """HKDF-SHA-256 for one block of output (RFC 5869): 32 bytes. An empty salt is 32 zero bytes."""
    extracted = hmac.digest(salt or bytes(32), ikm, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def crc32c(*pieces):
    value = 0
    for piece in pieces:
        value = google_crc32c.extend(value, bytes(piece))
    return value


CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid_text(binary):
    number = int.from_bytes(binary, "big")
    return "".join(CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def ulid_bytes(text):
    if not re.fullmatch(f"[0-7][{CROCKFORD}]{{25}}", text):
        raise ValueError(f"{text} is no ULID")
    number = 0
    for character in text:
        number = number << 5 | CROCKFORD.index(character)
    return number.to_bytes(16, "big")


def parse_key_file(text):
    """The 32 bytes of a key file (§5)."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line.startswith("seawall-key-1-")]
    match = re.fullmatch("seawall-key-1-([0-9a-f]{64})-([0-9a-f]{8})", "\n".join(lines))
    if not match:
        raise Refused("the key file does not have one line seawall-key-1-…")
    key = bytes.fromhex(match[1])
    if hashlib.sha256(key).hexdigest()[:8] != match[2]:
        raise Refused("the key file is mistyped: its check digits do not match")
    return key


# --- Envelope (§3) -------------------------------------------------------------------------------


def nonce(section, counter):
    return bytes([section, 0, 0, 0]) + counter.to_bytes(8, "little")


def additional_data(repository_id, header, section, flags, name, trailer_start=b""):
    """What a chunk's tag covers besides its text; `trailer_start` only for the footer."""
    name = name.encode()
    named = bytes([section, flags]) + len(name).to_bytes(2, "little") + name
    return repository_id + header + named + trailer_start


class Object:
    """One object, opened: header and trailer are checked, chunks when they are read."""

    def __init__(self, repository, name, kind):
        self.repository, self.name, self.kind = repository, name, kind
        try:
            self.file = open(repository.root / name, "rb")
        except FileNotFoundError:
            raise Damaged(f"{name} is missing") from None
        self.size = os.fstat(self.file.fileno()).st_size
        self.header = self.read_at(0, 64)
        magic, version, found_kind, _, self.epoch, self.salt, _, crc = struct.unpack(
            "<8sHBBI32s12sI", self.header
        )
        if magic != b"SEAWALL1" or crc != crc32c(self.header[:60]):
            self.damaged("the header is not one, or its CRC does not match")
        if version != 1:
            raise Refused(f"{name} has format version {version}, this reader knows 1")
        if found_kind != kind or any(self.header[11:12] + self.header[48:60]):
            self.damaged(f"kind {found_kind} in the header, or bytes that must be zero are not")
        trailer = self.read_at(self.size - 32, 32)
        length, self.footer_offset, self.count, zero, crc, magic = struct.unpack(
            "<QQIII4s", trailer
        )
        if magic != b"SWND" or crc != crc32c(trailer[:24]) or zero != 0:
            self.damaged("truncated: it does not end in a trailer")
        if length != self.size or not 64 <= self.footer_offset <= self.size - 48:
            self.damaged(f"truncated or grown: {self.size} bytes, the trailer says {length}")
        self.trailer_start = trailer[:20]

    def damaged(self, what):
        raise Damaged(f"{self.name}: {what}")

    def read_at(self, offset, length):
        data = os.pread(self.file.fileno(), length, offset) if min(offset, length) >= 0 else b""
        if len(data) != length or length == 0:
            self.damaged(f"truncated: no {length} bytes at {offset}")
        return data

    def decoding(self, what, decoder, data):
        try:
            return decoder(data)
        except (ValueError, IndexError, KeyError, TypeError) as error:
            self.damaged(f"{what}: {error}")

    def chunk(self, offset, length=None):
        """The chunk at an offset: its section, counter, plaintext and stored length."""
        head = self.read_at(offset, 16)
        section, flags, zero, counter, n, crc = struct.unpack("<BBHIII", head)
        end = self.size - 32 if offset == self.footer_offset else self.footer_offset
        if offset + 16 + n > end or (length is not None and length != 16 + n) or zero != 0:
            self.damaged(f"the chunk at {offset} does not have the length it should have")
        if (section == FOOTER) != (offset == self.footer_offset):
            self.damaged(f"section {section} at {offset}, the footer is at {self.footer_offset}")
        body = self.read_at(offset + 16, n) if n else b""
        if crc != crc32c(head[:12], body):
            self.damaged(f"CRC of the chunk at {offset}")
        # Nothing but these two may be clear: else who can write could pass off text of his own.
        if flags == 2 and section == 1 and self.kind in (FORMAT, KEY_SLOT, EPOCH):
            return section, counter, body, 16 + n
        if flags not in (0, 1):
            self.damaged(f"flags {flags} of the chunk at {offset}")
        text = self.decrypt(section, flags, counter, body)
        return section, counter, self.decompress(text) if flags == 1 else text, 16 + n

    def decrypt(self, section, flags, counter, body):
        domain = DATA if section == 1 and self.kind in (PACK, WAL_HOT, WAL_COLD) else METADATA
        root = self.repository.root_key(self.epoch, domain, self.name)
        key = hkdf(root, self.salt, b"seawall 1 " + DOMAIN_NAMES[domain])
        aad = additional_data(
            self.repository.id, self.header, section, flags, self.name,
            self.trailer_start if section == FOOTER else b"",
        )
        try:
            return AESGCM(key).decrypt(nonce(section, counter), body, aad)
        except (InvalidTag, ValueError):
            self.damaged(f"section {section}, chunk {counter} was not written under this name")

    def decompress(self, text):
        try:
            size = zstandard.frame_content_size(text)
            if not 0 <= size <= MAX_CHUNK:
                self.damaged(f"a compressed chunk states {size} bytes")
            return zstandard.ZstdDecompressor().decompress(text, allow_extra_data=False)
        except zstandard.ZstdError as error:
            self.damaged(f"zstd: {error}")

    def chunks(self):
        """All chunks but the footer, as (section, counter, plaintext); their order is checked."""
        offset, next_counter, seen = 64, {}, 0
        while offset < self.footer_offset:
            section, counter, text, length = self.chunk(offset)
            if section not in next_counter and section < max(next_counter, default=0):
                self.damaged(f"section {section} first appears after a higher one")
            if counter != next_counter.get(section, 0):
                self.damaged(f"section {section} goes on with chunk {counter}")
            next_counter[section], seen, offset = counter + 1, seen + 1, offset + length
            yield section, counter, text
        if offset != self.footer_offset or seen + 1 != self.count:
            self.damaged(f"{seen + 1} chunks, the trailer says {self.count}")

    @cached_property
    def footer_text(self):
        section, counter, text, length = self.chunk(self.footer_offset)
        if (section, counter) != (FOOTER, 0) or self.footer_offset + length != self.size - 32:
            self.damaged("the last chunk is not the footer")
        return text

    @cached_property
    def footer(self):
        return self.decoding("footer", decode_cbor, self.footer_text)

    def clear_section(self):
        """Section 1 of a format object, epoch or key slot, before any key is known."""
        section, counter, text, length = self.chunk(64)
        if (section, counter) != (1, 0) or 64 + length != self.footer_offset or self.count != 2:
            self.damaged("not one clear section and a footer")
        return text

    def prove_clear_section(self):
        if self.footer.get(0) != hashlib.sha256(self.clear_section()).digest():
            self.damaged("the clear section is not the one whose hash the footer carries")


# --- Repository and keys (§2, §4, §5) ------------------------------------------------------------


class Repository:
    def __init__(self, root, key=None, passphrase=None):
        self.root, self.epochs = Path(root), {}
        formats = self.names("format")
        if not formats:
            raise Refused(f"{root} is no Seawall repository: it has no object format/1")
        if any(name != "1" for name in formats):
            raise Refused(f"the repository has formats {formats}, this reader knows 1")
        about = Object(self, "format/1", FORMAT)
        clear = about.decoding("section 1", decode_cbor, about.clear_section())
        self.id = clear[1]
        if clear[0] != 1 or clear.get(3):
            raise Refused(f"format {clear[0]} with features {clear.get(3)} is beyond this reader")
        self.open_slots(key, passphrase)
        about.prove_clear_section()

    def names(self, directory):
        """Names one level below a directory, without what was never finished (§2)."""
        path = self.root / directory
        names = os.listdir(path) if path.is_dir() else []
        return sorted(name for name in names if not name.endswith(".seawall-tmp"))

    def epoch_ids(self):
        """The id that the slots of each epoch carry which has begun; epoch 1 has none."""
        self.begun, ids = [], {1: None}
        for name in self.names("epochs"):
            epoch = Object(self, f"epochs/{name}", EPOCH)
            try:
                clear = epoch.decoding("section 1", decode_cbor, epoch.clear_section())
            except Damaged as error:
                print(f"warning: damaged: {error}", file=sys.stderr)
                slots = [self.slot(int(name), slot)[1] for slot in self.names(f"keys/{name}")]
                carried = {clear.get(9) for clear in slots if clear[0] == self.id}
                if len(carried) == 1:
                    ids[int(name)] = carried.pop()
                continue
            if clear[0] != self.id:
                continue  # left over from a repository that was here before
            if clear[1] != int(name):
                epoch.damaged(f"says epoch {clear[1]}")
            ids[int(name)] = clear[2]
            self.begun.append((int(name), epoch))
        return ids

    def slot(self, epoch, name):
        slot = Object(self, f"keys/{epoch}/{name}", KEY_SLOT)
        return slot, slot.decoding("section 1", decode_cbor, slot.clear_section())

    def open_slots(self, key, passphrase):
        ids, newest = self.epoch_ids(), 0
        for epoch in ids:
            for name in self.names(f"keys/{epoch}"):
                slot, clear = self.slot(epoch, name)
                if clear[0] != self.id or clear.get(9) != ids[epoch]:
                    continue  # left over from an init or a rotation that died or lost
                newest = max(newest, epoch)
                keys = self.unwrap(slot, clear, epoch, ulid_bytes(name), key, passphrase)
                if keys:
                    self.epochs.setdefault(epoch, {}).update(keys)
                    slot.prove_clear_section()
        if newest not in self.epochs:
            raise Refused("wrong key: it opens no slot of the highest key epoch")
        for epoch, begun in self.begun:
            if epoch in self.epochs:
                begun.prove_clear_section()
            elif epoch > newest:
                print(f"warning: the keys of epoch {epoch} are gone", file=sys.stderr)
        if len({keys[HASH] for keys in self.epochs.values() if HASH in keys}) > 1:
            raise Damaged("keys: the epochs do not have the same hash key")

    def unwrap(self, slot, clear, epoch, ulid, key, passphrase):
        """The domain keys in a slot, or None where the slot is not for this key."""
        if clear[1] != epoch:
            slot.damaged(f"says epoch {clear[1]}")
        method, parameters, domains = clear[4], clear[5], clear[6]
        if method == 1 and key:
            kek = hkdf(key, parameters[0], b"seawall 1 key file")
        elif method == 2 and passphrase:
            if parameters[1] > 1 << 20 or parameters[2] > 64:
                raise Refused(f"{slot.name} asks for more than 1 GiB or 64 passes of Argon2id")
            kek = hash_secret_raw(
                passphrase.encode(), parameters[0], time_cost=parameters[2],
                memory_cost=parameters[1], parallelism=parameters[3], hash_len=32, type=Type.ID,
            )
        else:
            return None
        aad = slot_additional_data(self.id, epoch, ulid, domains)
        try:
            keys = AESGCM(kek).decrypt(clear[7], clear[8], aad)
        except InvalidTag:
            return None
        held = [domain for domain in (METADATA, HASH, DATA) if domains & domain]
        return {domain: keys[32 * i : 32 * i + 32] for i, domain in enumerate(held)}

    def root_key(self, epoch, domain, name):
        try:
            return self.epochs[epoch][domain]
        except KeyError:
            raise Refused(f"{name} needs keys of epoch {epoch} that this key opens not") from None

    @cached_property
    def block_key(self):
        return hkdf(self.hash_key, b"", b"seawall 1 block")

    @cached_property
    def frame_key(self):
        return hkdf(self.hash_key, b"", b"seawall 1 frame")

    @property
    def hash_key(self):
        return self.root_key(max(self.epochs), HASH, "every content hash")

    def block_hash(self, block):
        return keyed(self.block_key, block)[:8] if any(block) else bytes(8)

    def frame_hash(self, blocks):
        return keyed(self.frame_key, b"".join(keyed(self.block_key, b) for b in blocks))[:16]

    def object_hash(self, text):
        return keyed(self.frame_key, text)[:16]


def slot_additional_data(repository_id, epoch, ulid, domains):
    return b"seawall 1 slot" + repository_id + struct.pack("<I", epoch) + ulid + bytes([domains])


def keyed(key, data):
    return blake3.blake3(data, key=key).digest()


def cut(data, size=BLOCK):
    return [data[at : at + size] for at in range(0, len(data), size)]


# --- Packs, maps, manifests, commits (§6, §7, §8) ---------------------------------------------------------


class Pack(Object):
    def __init__(self, repository, line, ulid, length, footer_hash):
        milliseconds = int.from_bytes(ulid[:6], "big")
        day = datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%Y%m%d")
        super().__init__(repository, f"{line}/pack/{day}/{ulid_text(ulid)}", PACK)
        expect_object(self, length, footer_hash)
        self.lengths = self.decoding("stored lengths", decode_varints, self.footer[1])
        self.offsets, at = [], 64
        for stored in self.lengths:
            self.offsets.append(at)
            at += stored
        count = self.footer[0]
        if (len(self.lengths), len(self.footer[2]), len(self.footer[3]), at, self.count) != (
            count, 16 * count, count, self.footer_offset, count + 1,
        ):
            self.damaged("the footer does not fit the frames")
        self.frame = lru_cache(maxsize=8)(self.read_frame)

    def read_frame(self, number):
        """A frame's descriptor and payload, proven by its hash."""
        if not 0 <= number < len(self.offsets):
            self.damaged(f"has no frame {number}")
        section, counter, text, _ = self.chunk(self.offsets[number], self.lengths[number])
        if (section, counter) != (1, number):
            self.damaged(f"chunk {section}/{counter} stands where frame {number} should")
        split = len(text) - 2 - int.from_bytes(text[-2:], "little")
        if len(text) < 2 or not 0 <= split <= MAX_PAYLOAD:
            self.damaged(f"frame {number} has no descriptor")
        payload = text[:split]
        descriptor = self.decoding("descriptor", decode_cbor, text[split:-2])
        kind = descriptor[0]
        if kind != self.footer[3][number]:
            self.damaged(f"frame {number} is not of the kind the footer says")
        if kind == 0:
            blocks = cut(payload)
            fits = len(blocks) == descriptor[3]
        elif kind in (1, 2):
            blocks, at = [], 0
            for _, length, *numbers in descriptor[4 if kind == 1 else 5]:
                part = cut(payload[at : at + length])
                if kind == 1 and len(part) != len(numbers[0]):
                    self.damaged(f"frame {number} has other blocks than its descriptor says")
                blocks += part
                at += length
            fits = at == len(payload)
        else:
            raise Refused(f"{self.name}: frame {number} is of kind {kind}, unknown to this reader")
        hashes = self.footer[2]
        if not fits or hashes[16 * number : 16 * number + 16] != self.repository.frame_hash(blocks):
            self.damaged(f"frame {number} does not hold what its hash says")
        return descriptor, payload


def expect_object(found, length, footer_hash):
    """Checks an object against the reference that a commit keeps of it."""
    if found.size != length or found.repository.object_hash(found.footer_text) != footer_hash:
        found.damaged("is not the object that the backup refers to")


def kind_at_commit(path):
    """What lies at the place of a commit, by the kind in its header."""
    with open(path, "rb") as file:
        return file.read(11)[10:]


class Backup:
    """One generation of a backup: its commit, and the pages and packs that it names."""

    def __init__(self, repository, line, ulid, generation):
        self.repository, self.line = repository, line
        name = f"{line}/backup/{ulid}/{generation:08}"
        self.object = Object(repository, name, COMMIT)
        self.about, self.places = self.object.footer
        about = self.about
        if about.get(25):
            raise Refused(f"backup {ulid} needs features {about[25]}, unknown to this reader")
        if about[0] != ulid_bytes(ulid) or about[1] != generation:
            self.object.damaged("carries another id or generation than its name")
        cluster = Object(repository, f"{line}/about", ABOUT)
        if [about[4], about[5], about[6], about[7], about[35]] != [
            cluster.footer[key] for key in (0, 1, 2, 3, 8)
        ]:
            self.object.damaged(f"is of another cluster than {cluster.name}")
        self.id, self.finished = ulid, about[13]
        self.pack = lru_cache(maxsize=64)(lambda ulid: Pack(repository, line, *self.known[ulid]))
        self.map = lru_cache(maxsize=64)(lambda ulid: self.open("map", MAP, self.maps[ulid]))

    def open(self, directory, kind, reference):
        """An object that the commit refers to by [ULID, length, footer hash]."""
        ulid, length, footer_hash = reference
        found = Object(self.repository, f"{self.line}/{directory}/{ulid_text(ulid)}", kind)
        expect_object(found, length, footer_hash)
        return found

    @cached_property
    def manifests(self):
        return [self.open("manifest", MANIFEST, reference) for reference in self.places[38]]

    def page(self, section, manifest, number, offset, length, expected_hash=None):
        """A page, and the manifest that it is in."""
        if manifest >= len(self.manifests):
            self.object.damaged(f"names manifest {manifest} of {len(self.manifests)}")
        manifest = self.manifests[manifest]
        found, counter, text, _ = manifest.chunk(offset, length)
        if (found, counter) != (section, number) or number >= manifest.footer[section - 1]:
            manifest.damaged(f"page {number} of section {section} is not at {offset}")
        if expected_hash not in (None, self.repository.object_hash(text)):
            manifest.damaged(f"page {number} is not the one that the backup refers to")
        return manifest, manifest.decoding("page", decode_cbor, text)

    @cached_property
    def packs(self):
        """References to packs [ULID, length, footer hash]."""
        packs = []
        for manifest, number, offset, length, count in self.places[23]:
            found, rows = self.page(2, manifest, number, offset, length)
            if len(rows) != count:
                found.damaged(f"page {number} of packs has {len(rows)} of {count}")
            packs += rows
        return packs

    @cached_property
    def known(self):
        return {pack[0]: pack for pack in self.packs}

    @cached_property
    def maps(self):
        return {reference[0]: reference for reference in self.places[24]}

    def entries(self):
        """All entries by path, their packs and maps named by ULID and no longer by number."""
        last, packs, maps = None, set(), set()
        for first, manifest, number, offset, length, count, expected in self.places[22]:
            found, page = self.page(1, manifest, number, offset, length, expected)
            rows = found.decoding("page", resolved, page)
            packs.update(page[0])
            maps.update(page[1])
            if not rows or len(rows) != count or rows[0][0] != first:
                found.damaged(f"page {number} does not begin with {first} or has not {count}")
            for entry in rows:
                path = entry[0]
                if last is not None and path <= last:
                    self.object.damaged(f"{path} is out of order")
                if path and any(part in (b"", b".", b"..") for part in path.split(b"/")):
                    self.object.damaged(f"{path} leads out of the data directory")
                yield entry
                last = path
        if packs != self.known.keys() or maps != self.maps.keys():
            self.object.damaged("does not list the packs and maps that its pages name")

    def leaf(self, address, section):
        ulid, offset, length, expected = address
        if ulid not in self.maps:
            self.object.damaged(f"does not list map {ulid_text(ulid)}")
        found = self.map(ulid)
        at, _, text, _ = found.chunk(offset, length)
        if at != section or self.repository.object_hash(text) != expected:
            found.damaged(f"the leaf at {offset} is not the one that the page refers to")
        return text

    def blocks(self, entry):
        """The blocks of a file in order, each checked; None stands for a block of zeros."""
        content = entry.get(5)
        if content is None:
            return
        if content[0] == 0:
            pieces, hashes = self.small(entry), cut(content[4], 8)
        else:
            pieces, hashes = self.large(entry)
        number = -1
        for number, block in enumerate(pieces):
            found = bytes(8) if block is None else self.repository.block_hash(block)
            if number >= len(hashes) or found != hashes[number]:
                self.object.damaged(f"block {number} of {entry[0]} is not the one backed up")
            yield block
        if number + 1 != len(hashes):
            self.object.damaged(f"{entry[0]} has {len(hashes)} hashes for {number + 1} blocks")

    def small(self, entry):
        _, ulid, number, offset, _ = entry[5]
        if ulid not in self.known:
            self.object.damaged(f"{entry[0]} is in pack {ulid_text(ulid)}, which is not listed")
        pack = self.pack(ulid)
        descriptor, payload = pack.frame(number)
        at = 0
        for path, length in descriptor.get(5, []):
            if (path, at, length) == (entry[0], offset, entry[3]):
                return cut(payload[at : at + length])
            at += length
        pack.damaged(f"frame {number} does not hold {entry[0]} at {offset}")

    def large(self, entry):
        """The blocks of a file with a block map, and their hashes."""
        try:
            leaf = decode_cbor(self.leaf(entry[5][1], 1))
            runs, exceptions = self.runs(leaf), self.exceptions(leaf)
        except (ValueError, KeyError, IndexError) as error:
            self.object.damaged(f"block map of {entry[0]}: {error}")
        if sorted(leaf[3]) != sorted(entry[5][3]):
            self.object.damaged(f"{entry[0]} is in other packs than its page says")
        size = (leaf[0] - 1) * BLOCK + leaf[1]
        if size != entry[3] or not 1 <= leaf[1] <= BLOCK:
            self.object.damaged(f"the block map of {entry[0]} is for {size} bytes, not {entry[3]}")
        covered = runs[-1][1] if runs else 0
        behind = [block for block in sorted(exceptions) if block >= covered]
        if covered > leaf[0] or behind != list(range(covered, leaf[0])):
            self.object.damaged(f"the runs of {entry[0]} cover {covered} of {leaf[0]} blocks")
        hashes = cut(self.leaf(entry[5][2], 2), 8)[: leaf[0]]
        if len(hashes) < covered:
            self.object.damaged(f"{entry[0]} has {len(hashes)} hashes for {covered} blocks")
        hashes += [b""] * (leaf[0] - len(hashes))
        for block, (*_, found) in exceptions.items():
            hashes[block] = found
        return self.joined(entry, leaf, runs, exceptions), hashes

    @staticmethod
    def runs(leaf):
        """[first block, block behind the last, pack or nothing, first frame]"""
        cursor, found, block = Cursor(leaf[4]), [], 0
        while cursor.at < len(leaf[4]):
            first, block = block, block + cursor.varint()
            pack = cursor.varint()
            found.append([first, block, *((leaf[3][pack - 1], cursor.varint()) if pack else (None, 0))])
        return found

    @staticmethod
    def exceptions(leaf):
        """block: (pack or nothing, frame, slot, hash)"""
        cursor, found, block = Cursor(leaf.get(5, b"")), {}, -1
        hashes = cut(leaf.get(6, b""), 8)
        for own in hashes:
            block, pack = block + 1 + cursor.varint(), cursor.varint()
            place = (leaf[3][pack - 1], cursor.varint(), cursor.varint()) if pack else (None, 0, 0)
            found[block] = (*place, own)
        if cursor.at != len(leaf.get(5, b"")):
            raise ValueError("exceptions without hashes")
        return found

    def joined(self, entry, leaf, runs, exceptions):
        for first, behind, pack, number in runs:
            for block in range(first, behind, leaf[2]):
                count = min(leaf[2], behind - block)
                blocks = [None] * count
                if pack is not None:
                    blocks = self.base_frame(pack, number, entry, block, count)
                number += 1
                for at, own in enumerate(blocks, block):
                    if at in exceptions:
                        own = self.exception(entry, at, exceptions[at])
                    elif own is not None and len(own) != min(BLOCK, entry[3] - at * BLOCK):
                        self.object.damaged(f"block {at} of {entry[0]} has another length")
                    yield own
        for block in range(runs[-1][1] if runs else 0, leaf[0]):
            yield self.exception(entry, block, exceptions[block])

    def frame(self, ulid, number, entry):
        if ulid not in self.known:
            self.object.damaged(f"{entry[0]} is in pack {ulid_text(ulid)}, which is not listed")
        return self.pack(ulid).frame(number)

    def exception(self, entry, block, place):
        pack, number, slot, _ = place
        if pack is None:
            return None
        descriptor, payload = self.frame(pack, number, entry)
        at = 0
        for path, length, blocks in descriptor.get(4, []):
            if path == entry[0] and block in blocks and slot == blocks.index(block):
                return cut(payload[at : at + length])[slot]
            at, slot = at + length, slot - len(blocks)
        self.pack(pack).damaged(f"frame {number} does not hold block {block} of {entry[0]}")

    def base_frame(self, ulid, number, entry, first, count):
        descriptor, payload = self.frame(ulid, number, entry)
        blocks = cut(payload)
        head = {key: descriptor.get(key) for key in (0, 1, 2)}
        if head != {0: 0, 1: entry[0], 2: first} or len(blocks) < count:
            self.pack(ulid).damaged(f"frame {number} does not hold {entry[0]} from {first} on")
        return blocks[:count]


def resolved(page):
    """The entries of a page, its numbers replaced by what they stand for in its lists (§8)."""
    packs, maps, rows = page
    named_packs, named_maps = set(), set()

    def pack(number):
        named_packs.add(packs[number])
        return packs[number]

    def leaf(address):
        named_maps.add(maps[address[0]])
        return [maps[address[0]], *address[1:]]

    for entry in rows:
        content = entry.get(5)
        if content and content[0] == 0:
            entry[5] = [0, pack(content[1]), *content[2:]]
        elif content and content[0] == 1:
            entry[5] = [1, leaf(content[1]), leaf(content[2]), [pack(n) for n in content[3]]]
        elif content:
            raise ValueError(f"content of kind {content[0]}")
    if [sorted(packs), sorted(maps)] != [sorted(named_packs), sorted(named_maps)]:
        raise ValueError("its lists are not what its entries name")
    return rows


# --- WAL (§9) ------------------------------------------------------------------------------------


class Range(Object):
    """A range of WAL; all of it is checked when its bytes are read."""

    def __init__(self, backup, timeline, segment, start, end):
        name = f"{backup.line}/wal/hot/{timeline:08X}/{segment:016X}/{start:016X}-{end:016X}"
        super().__init__(backup.repository, name, WAL_HOT)
        footer, size = self.footer, backup.about[35]
        self.start, self.end = start, end
        if [footer[0], footer[1], footer[2], footer[3], footer[4]] != [
            timeline, start, end, size, backup.about[5],
        ]:
            self.damaged("belongs elsewhere: footer and name do not agree")
        if segment % size or not segment <= start < self.end <= segment + size:
            self.damaged("is not within its segment")

    def content(self):
        pieces, lengths, offset = [], decode_varints(self.footer[7]), 64
        for number, length in enumerate(lengths):
            section, counter, text, _ = self.chunk(offset, length)
            last = number == len(lengths) - 1
            if (section, counter) != (1, number) or not (last or len(text) == MAX_PAYLOAD):
                self.damaged(f"chunk {section}/{counter} stands where {number} should")
            pieces.append(text)
            offset += length
        section, counter, text, _ = self.chunk(*self.footer[6])
        if (section, counter, offset) != (2, 0, self.footer[6][0]):
            self.damaged("the index is not where the footer says")
        self.decoding("index", decode_cbor, text)
        content = b"".join(pieces)
        if len(content) != self.end - self.start:
            self.damaged(f"holds {len(content)} bytes of {self.end - self.start}")
        first = BLOCK - self.start % BLOCK
        pages = [content[:first]] + cut(content[first:])
        if self.footer[8] != b"".join(map(self.repository.block_hash, pages)):
            self.damaged("does not hold what its page hashes say")
        return content


class Wal:
    """The archived WAL that a restored backup can be recovered with."""

    def __init__(self, backup):
        self.backup, self.size = backup, backup.about[35]
        self.histories, self.parents = {}, {}
        for name in backup.repository.names(f"{backup.line}/history"):
            if re.fullmatch("[0-9A-F]{8}", name):
                self.read_history(int(name, 16))

    def read_history(self, timeline):
        name = f"{self.backup.line}/history/{timeline:08X}"
        found = Object(self.backup.repository, name, HISTORY)
        if found.footer[0] != f"{timeline:08X}.history":
            found.damaged(f"holds {found.footer[0]}")
        self.histories[timeline] = found.footer[1]
        ancestry = []
        for line in found.footer[1].decode().splitlines():
            if match := re.match(r"\s*(\d+)\s+([0-9A-Fa-f]+)/([0-9A-Fa-f]+)", line):
                ancestry.append((int(match[1]), int(match[2], 16) << 32 | int(match[3], 16)))
        self.parents[timeline] = ancestry

    def timelines(self):
        """The backup's timeline, then those that left it, or a descendant, after the backup."""
        own, stop = self.backup.about[11], self.backup.about[10]
        younger = sorted(
            timeline
            for timeline, ancestry in self.parents.items()
            if any(parent == own and switch >= stop for parent, switch in ancestry)
        )
        return [own, *younger]

    def ranges(self, timeline, segment):
        directory = f"{self.backup.line}/wal/hot/{timeline:08X}/{segment:016X}"
        names = [name.split("-") for name in self.backup.repository.names(directory)]
        if old := [name for name in names if len(name) != 2]:
            raise Refused(f"{directory}/{old[0][0]} is no WAL of this format")
        places = sorted((int(start, 16), int(end, 16)) for start, end in names)
        return [Range(self.backup, timeline, segment, start, end) for start, end in places]

    def refuse_compacted(self, timeline, lsn):
        """What is missing at a position may be in a kind of object that is not written yet."""
        directory = f"{self.backup.line}/wal/cold/{timeline:08X}"
        for name in self.backup.repository.names(directory):
            start, end = (int(part, 16) for part in name.split("-")[:2])
            if start <= lsn < end:
                raise Refused(f"{directory}/{name} is compacted WAL, unknown to this reader")

    def assemble(self, timeline, segment):
        """A segment's bytes up to the first hole. What a timeline has from before its own
        beginning was written by its parent and is stored there."""
        content, filler = bytearray(), segment + self.size
        ancestry = self.parents.get(timeline, [])
        for writer, until in [*ancestry, (timeline, segment + self.size)]:
            if until <= segment + len(content):
                continue
            for piece in self.ranges(writer, segment):
                at = piece.start - segment
                if at > len(content) or piece.start >= until:
                    break
                data = piece.content()[: until - piece.start]
                filler = min(filler, piece.footer.get(14, filler))
                both = min(len(content), at + len(data), filler - segment)
                if content[at:both] != data[: max(both - at, 0)]:
                    piece.damaged("contradicts the range before it")
                content[at : at + len(data)] = data
            if segment + len(content) < min(until, segment + self.size):
                self.refuse_compacted(writer, segment + len(content))
                break
        return bytes(content)

    def segments(self, timeline):
        """(file name, bytes) of each segment, as far as the WAL reaches without a hole."""
        first = self.backup.about[8] // self.size * self.size
        below = f"{self.backup.line}/wal/hot/{timeline:08X}"
        stored = [int(name, 16) for name in self.backup.repository.names(below)]
        stored = sorted(segment for segment in stored if segment >= first)
        per_id = (1 << 32) // self.size
        for at, segment in enumerate(stored):
            content = self.assemble(timeline, segment)
            number = segment // self.size
            name = f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"
            if content:
                yield name, segment, content
            whole = len(content) == self.size
            if at + 1 < len(stored) and not (whole and stored[at + 1] == segment + self.size):
                end = segment + len(content)
                print(f"warning: WAL of timeline {timeline} has a hole at {lsn_text(end)}; "
                      "what lies beyond was left out", file=sys.stderr)
                return


def lsn_text(lsn):
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:08X}"


# --- Restore -------------------------------------------------------------------------------------


class Restore:
    def __init__(self, backup, into, tablespaces):
        self.backup, self.into, self.tablespaces = backup, Path(into), tablespaces
        for place in [self.into, *map(Path, tablespaces.values())]:
            if place.exists() and any(place.iterdir()):
                raise Refused(f"{place} is not empty")
        known = set(re.findall(rb"(?m)^(\d+) ", backup.about.get(16) or b""))
        self.in_place = known - tablespaces.keys()
        if unknown := tablespaces.keys() - known:
            raise Refused(f"the backup has no tablespace {sorted(unknown)}")
        modes = (entry[2] for entry in backup.entries() if entry[0] == b"base")
        self.group = next(modes, 0) & 0o050

    def place(self, path):
        """Where a path of the data directory goes: tablespaces may be mapped elsewhere."""
        parts = path.split(b"/")
        if parts[0] == b"pg_tblspc" and len(parts) > 1 and parts[1] in self.tablespaces:
            return Path(self.tablespaces[parts[1]], os.fsdecode(b"/".join(parts[2:])))
        return self.into / os.fsdecode(path)

    def run(self):
        for place in [self.into, *map(Path, self.tablespaces.values())]:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.chmod(0o700 | self.group)
        directories, links, files = [], [], 0
        for entry in self.backup.entries():
            if entry[1] == 1:
                self.write_file(entry)
                files += 1
            elif entry[1] == 0:
                directories.append(entry)
                self.place(entry[0]).mkdir(mode=0o700, parents=True, exist_ok=True)
            elif entry[1] == 2:
                links.append(entry)
            else:
                raise Refused(f"{entry[0]} has type {entry[1]}, unknown to this reader")
        segments = self.write_wal()
        # Last, so that no file was ever written through a link.
        for entry in links:
            if not self.place(entry[0]).exists():  # pg_wal may have been one
                os.symlink(entry[6], self.place(entry[0]))
        for oid, target in self.tablespaces.items():
            os.symlink(os.path.abspath(target), self.into / "pg_tblspc" / oid.decode())
        for entry in reversed(directories):
            self.place(entry[0]).chmod(entry[2])
        self.write_control_files()
        return files, segments

    def write(self, place, blocks):
        """Makes a file, readable by the group if the data directory is; returns where it ended."""
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(place, "xb") as file:
            place.chmod(0o600 | self.group & 0o040)
            for block in blocks:
                if block is None:
                    file.seek(BLOCK, os.SEEK_CUR)
                else:
                    file.write(block)
            return file.tell()

    def write_file(self, entry):
        place, size = self.place(entry[0]), entry.get(3, 0)
        end = self.write(place, self.backup.blocks(entry))
        if (end + BLOCK - 1) // BLOCK != (size + BLOCK - 1) // BLOCK:
            self.backup.object.damaged(f"{entry[0]} has {end} bytes, not {size}")
        os.truncate(place, size)  # it may end in zeros that are not stored
        place.chmod(entry[2])
        os.utime(place, ns=(entry[4] * 1000, entry[4] * 1000))

    def write_wal(self):
        wal, written, reached = Wal(self.backup), 0, 0
        for timeline in wal.timelines():
            if timeline in wal.histories:
                history = self.into / "pg_wal" / f"{timeline:08X}.history"
                self.write(history, [wal.histories[timeline]])
            for name, segment, content in wal.segments(timeline):
                self.write(self.into / "pg_wal" / name, [content.ljust(wal.size, b"\0")])
                written += 1
                if timeline == self.backup.about[11]:
                    reached = segment + len(content)
        if reached < self.backup.about[10]:
            raise Damaged(
                f"{self.backup.line}/wal: WAL ends at {lsn_text(reached)}, the backup needs it "
                f"up to {lsn_text(self.backup.about[10])}"
            )
        return written

    def write_control_files(self):
        """Without pg_control no server starts: it comes when all else is safe on disk."""
        self.write(self.into / "backup_label", [self.backup.about[15]])
        lines = []
        for oid, target in self.tablespaces.items():
            target = re.sub(r"([\\\n\r])", r"\\\1", os.path.abspath(target))
            lines.append(oid + b" " + os.fsencode(target) + b"\n")
        if lines:
            self.write(self.into / "tablespace_map", lines)
        os.sync()
        self.write(self.into / "global" / "pg_control", [self.backup.about[17]])
        os.sync()


# --- Command line --------------------------------------------------------------------------------


def backups(repository):
    """All committed backups, oldest first, each in its highest generation that is whole."""
    found = []
    for cluster in repository.names("c"):
        for line in repository.names(f"c/{cluster}/i"):
            line = f"c/{cluster}/i/{line}"
            for ulid in repository.names(f"{line}/backup"):
                found += newest_generation(repository, line, ulid)
    return sorted(found, key=lambda backup: (backup.finished, backup.id))


def newest_generation(repository, line, ulid):
    for name in reversed(repository.names(f"{line}/backup/{ulid}")):
        place = f"{line}/backup/{ulid}/{name}"
        try:
            kind = kind_at_commit(repository.root / place)
            if name == "00000000" and kind == bytes([TOMBSTONE]):
                Object(repository, place, TOMBSTONE).footer
                return []
            if kind == bytes([MANIFEST]):
                Object(repository, place, MANIFEST).footer_text
                raise Refused(f"{place} is a backup of the format before this one (§8)")
            return [Backup(repository, line, ulid, int(name))]
        except Damaged as error:
            print(f"warning: damaged: {error}", file=sys.stderr)
    return []


def list_backups(found):
    for backup in found:
        about = backup.about
        finished = datetime(1970, 1, 1) + timedelta(microseconds=backup.finished)
        wal = f"{about[9]}:{lsn_text(about[8])} .. {about[11]}:{lsn_text(about[10])}"
        kind = {0: "full", 1: "incremental"}.get(about[2], "?")
        print(f"{backup.id}  {about[4]} {about[5]}-{about[6]}  PostgreSQL {about[7]}  {kind}  "
              f"{wal}  {finished:%Y-%m-%d %H:%M:%S} UTC  {about[29]} files, "
              f"{about[26]} bytes")


def choose(found, wanted):
    if wanted != "latest":
        found = [backup for backup in found if backup.id == wanted]
    elif len({backup.line for backup in found}) > 1:
        raise Refused("backups of several lines are here: say which with --backup ID")
    if not found:
        raise Refused("there is no such backup")
    return found[-1]


def restore(found, arguments):
    backup = choose(found, arguments.backup)
    mapped = dict(pair.split("=", 1) for pair in arguments.map_tablespace)
    tablespaces = {oid.encode(): target for oid, target in mapped.items()}
    task = Restore(backup, arguments.into, tablespaces)
    files, segments = task.run()
    print(f"restored {backup.id}: {files} files, {segments} WAL segments")
    if task.in_place:
        print("tablespaces lie below pg_tblspc: PostgreSQL 15 and newer recover with them "
              "when started with -c allow_in_place_tablespaces=on")
    for setting, path, content in backup.about.get(18) or []:
        if arguments.configuration_into:
            place = Path(arguments.configuration_into)
            place.mkdir(parents=True, exist_ok=True)
            (place / os.path.basename(os.fsdecode(path))).write_bytes(content)
        print(f"{setting} was outside the data directory, at {path!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["list", "restore"])
    parser.add_argument("repository")
    parser.add_argument("--key", help="the key file")
    parser.add_argument("--passphrase-file", help="a file with the passphrase instead")
    parser.add_argument("--backup", default="latest", help="its id, or latest")
    parser.add_argument("--into", help="the data directory to make; must be empty or absent")
    parser.add_argument("--map-tablespace", action="append", default=[], metavar="OID=DIR",
                        help="where a tablespace goes; else it goes below pg_tblspc")
    parser.add_argument("--configuration-into", metavar="DIR",
                        help="where configuration files from outside go")
    arguments = parser.parse_args()
    try:
        key = passphrase = None
        if arguments.key:
            key = parse_key_file(Path(arguments.key).read_text())
        if arguments.passphrase_file:
            passphrase = Path(arguments.passphrase_file).read_text().rstrip("\n")
        found = backups(Repository(arguments.repository, key, passphrase))
        if arguments.command == "list":
            list_backups(found)
        elif arguments.into:
            restore(found, arguments)
        else:
            parser.error("restore needs --into")
    except Damaged as error:
        sys.exit(f"damaged: {error}")
    except (Refused, OSError) as error:
        sys.exit(f"refused: {error}")


if __name__ == "__main__":
    main()
