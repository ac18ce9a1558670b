# SPDX-License-Identifier: Apache-2.0
"""Searching a dump of a guest's RAM for what must not be there (and for what must, to prove the search)."""

import base64
import mmap
import re
import struct
from collections.abc import Iterator, Mapping

PAGE = 4096
RAW, HEX, BASE64, INTEGER = "raw", "hex", "base64", "integer"
_ZEROS = bytes(PAGE)
_TEXT = rb"[0-9A-Za-z+/_-]{%d,}"
_DIGIT_BITS = 30  # of each 32-bit word of an integer in CPython
_LEAST = 12  # bytes; less is in every memory by chance


def copies(dump: str, secrets: Mapping[str, bytes]) -> dict[tuple[str, str], int]:
    """How often each secret is in the dump, by its name and form; what is not there is not in the answer.

    The forms are the bytes themselves, hexadecimal in either case, base64 in either alphabet wherever in a longer text
    the secret starts, and the digits of a Python integer.
    """
    forms = {name: dict(_forms(secret)) for name, secret in secrets.items()}
    texts = [text for each in forms.values() for form in (HEX, BASE64) for text in each[form]]
    memory = _used_pages(dump)
    readable = b"\n".join(re.findall(_TEXT % min(map(len, texts)), memory))
    where = {
        RAW: memory,
        INTEGER: memory,
        HEX: readable.lower(),
        BASE64: readable.translate(bytes.maketrans(b"-_", b"+/")),
    }
    found = {
        (name, form): sum(_count(where[form], pattern) for pattern in patterns)
        for name, each in forms.items()
        for form, patterns in each.items()
    }
    return {key: count for key, count in found.items() if count}


def python_digits(secret: bytes) -> bytes:
    """The secret, read as a little-endian number, the way CPython keeps it."""
    number, digits = int.from_bytes(secret, "little"), []
    while number:
        digits.append(number & ((1 << _DIGIT_BITS) - 1))
        number >>= _DIGIT_BITS
    return struct.pack(f"<{len(digits)}I", *digits)


def occurrences(dump: str, secrets: Mapping[str, bytes]) -> dict[str, int]:
    """How often each secret is in the dump, overlapping finds included."""
    with open(dump, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        return {name: _count(memory, secret) for name, secret in secrets.items()}


def _forms(secret: bytes) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    if len(secret) < _LEAST:
        raise ValueError(f"{len(secret)} bytes are in every memory by chance")
    yield RAW, (secret,)
    yield HEX, (secret.hex().encode(),)
    yield BASE64, tuple(_inside_base64(secret, before) for before in range(3))
    yield INTEGER, (python_digits(secret),)


def _inside_base64(secret: bytes, before: int) -> bytes:
    """The characters that depend on nothing but the secret when it follows so many other bytes."""
    padded = bytes(before) + secret
    text = base64.b64encode(padded + bytes(-len(padded) % 3))
    return text[(8 * before + 5) // 6 : 8 * len(padded) // 6]


def _used_pages(dump: str) -> bytes:
    """All pages that hold anything, in their order."""
    with open(dump, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        pages = (memory[at : at + PAGE] for at in range(0, len(memory), PAGE))
        return b"".join(page for page in pages if page != _ZEROS)


def _count(memory: mmap.mmap | bytes, secret: bytes) -> int:
    if not secret:
        raise ValueError("an empty secret is everywhere")
    count, at = 0, memory.find(secret)
    while at >= 0:
        count, at = count + 1, memory.find(secret, at + 1)
    return count
