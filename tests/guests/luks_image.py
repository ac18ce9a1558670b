# SPDX-License-Identifier: Apache-2.0
"""Encrypted images without device-mapper: cryptsetup writes the header, the sectors are encrypted here.

dm-crypt with LUKS2 and aes-xts-plain64: each encryption sector (4096 bytes here) is one AES-256-XTS unit whose tweak
is the number of its first 512-byte sector, little-endian, counted from the start of the segment. LUKS2 does not set
`iv_large_sectors`, so the count stays in units of 512 whatever the sector size (test_guests boots the proof).
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from guests.disk_image import empty_image
from guests.extents import pieces
from guests.tools import run

XTS_KEY_SIZE = 64
TWEAK_SIZE = 16
TWEAK_UNIT = 512
FAST_PBKDF = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")  # holds for the keyslot and for the digest
_FREE_BLOCKS = re.compile(r"^ +Free blocks: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Luks:
    """What a test knows about a LUKS2 volume. `pbkdf` is empty for cryptsetup's own (slow) choice."""

    volume_key: bytes
    passphrase: bytes
    uuid: str
    sector_size: int = 4096
    pbkdf: tuple[str, ...] = FAST_PBKDF
    extra: tuple[str, ...] = ()


# For tests that do not care which: one volume that all of them may share. The key looks like a key: tests search RAM
# for it, and ascending bytes, say, are in every kernel's tables.
TEST_KEY = hashlib.sha512(b"keyquorum test volume").digest()
TEST_VOLUME = Luks(TEST_KEY, b"correct horse", "6b657971-756f-4d75-ad74-657374726f74")


def format_luks(path: str, luks: Luks) -> int:
    """Write a LUKS2 header into an existing image; gives the offset of the data in bytes."""
    with tempfile.NamedTemporaryFile() as key, tempfile.NamedTemporaryFile() as passphrase:
        key.write(luks.volume_key)
        key.flush()
        passphrase.write(luks.passphrase)
        passphrase.flush()
        cipher = ["--cipher", "aes-xts-plain64", "--key-size", str(len(luks.volume_key) * 8)]
        argv = ["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", *cipher, "--uuid", luks.uuid]
        argv += ["--sector-size", str(luks.sector_size), *luks.pbkdf, *luks.extra]
        run([*argv, "--volume-key-file", key.name, "--key-file", passphrase.name, path])
    dump = run(["cryptsetup", "luksDump", path]).decode()
    found = re.search(r"offset: (\d+) \[bytes\]", dump)
    assert found, dump
    return int(found[1])


def luks_image(plain: str, path: str, luks: Luks) -> str:
    """An encrypted disk with the content of an ext4 image; blocks that ext4 does not use stay holes."""
    size = os.stat(plain).st_size
    empty_image(path, 64 << 20)
    offset = format_luks(path, luks)
    with open(path, "r+b") as out, open(plain, "rb") as source:
        out.truncate(offset + size)
        for start, end in used_ranges(plain):
            for at, piece in pieces(source.fileno(), start, end):
                os.pwrite(out.fileno(), encrypt(piece, at, luks), offset + at)
    return path


def encrypt(data: bytes, position: int, luks: Luks) -> bytes:
    """Whole sectors as dm-crypt writes them at this position of the volume."""
    cipher, size = algorithms.AES(luks.volume_key), luks.sector_size
    if position % size or len(data) % size:
        raise ValueError(f"{len(data)} bytes at {position} are not whole sectors of {size}")
    out = bytearray()
    for at in range(0, len(data), size):
        tweak = ((position + at) // TWEAK_UNIT).to_bytes(TWEAK_SIZE, "little")
        out += Cipher(cipher, modes.XTS(tweak)).encryptor().update(data[at : at + size])
    return bytes(out)


def decrypt(data: bytes, position: int, luks: Luks) -> bytes:
    """The reverse of `encrypt`, for tests that look into a volume from outside."""
    cipher, size = algorithms.AES(luks.volume_key), luks.sector_size
    out = bytearray()
    for at in range(0, len(data), size):
        tweak = ((position + at) // TWEAK_UNIT).to_bytes(TWEAK_SIZE, "little")
        out += Cipher(cipher, modes.XTS(tweak)).decryptor().update(data[at : at + size])
    return bytes(out)


def used_ranges(image: str) -> Iterator[tuple[int, int]]:
    """Start and end in bytes of what an ext4 image uses: content, and tables that are zero and must read as zero."""
    dump = run(["dumpe2fs", image]).decode()
    size = os.stat(image).st_size
    block = int(_field(dump, "Block size"))
    free: list[tuple[int, int]] = []
    for ranges in _FREE_BLOCKS.findall(dump):
        for item in filter(None, ranges.split(", ")):
            first, _, last = item.partition("-")
            free.append((int(first) * block, (int(last or first) + 1) * block))
    at = 0
    for start, end in sorted(free):
        if at < start:
            yield at, start
        at = end
    if at < size:
        yield at, size


def _field(dump: str, name: str) -> str:
    found = re.search(rf"^{name}: +(.*)$", dump, re.MULTILINE)
    assert found, f"no {name} in\n{dump}"
    return found[1]
