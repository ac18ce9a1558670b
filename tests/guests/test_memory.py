# SPDX-License-Identifier: Apache-2.0
"""The search of a memory dump finds a secret in every form it knows, and nothing else."""

import base64
import hashlib
from pathlib import Path

import pytest

from guests.memory import BASE64, HEX, INTEGER, PAGE, RAW, copies, python_digits

SECRET = hashlib.sha256(b"a secret").digest()
OTHER = hashlib.sha256(b"another").digest()


def dump(path: Path, *contents: bytes) -> str:
    """Each content at the end of a page, running into the next one, between pages of zeros."""
    memory = bytearray(PAGE)
    for content in contents:
        memory += (bytes(PAGE - 16) + content).ljust(2 * PAGE, b"\0") + bytes(PAGE)
    path.write_bytes(memory)
    return str(path)


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (SECRET, RAW),
        (SECRET.hex().encode(), HEX),
        (SECRET.hex().upper().encode(), HEX),
        (b'"' + base64.b64encode(SECRET) + b'"', BASE64),
        (base64.b64encode(b"x" + SECRET + b"y"), BASE64),
        (base64.b64encode(b"xx" + SECRET), BASE64),
        (base64.urlsafe_b64encode(b"xyz" + SECRET), BASE64),
        (python_digits(SECRET), INTEGER),
    ],
)
def test_every_form_is_found(tmp_path: Path, content: bytes, form: str) -> None:
    found = copies(dump(tmp_path / "dump", content, content), {"it": SECRET, "other": OTHER})
    assert found == {("it", form): 2}


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    almost = SECRET[:16] + bytes([SECRET[16] ^ 1]) + SECRET[17:]
    texts = [almost, almost.hex().encode(), base64.b64encode(almost), python_digits(almost)]
    assert copies(dump(tmp_path / "dump", *texts), {"it": SECRET}) == {}


def test_the_digits_are_those_of_this_interpreter() -> None:
    """CPython keeps a header of 24 bytes before them, in all versions up to 3.13."""
    import ctypes

    number = int.from_bytes(SECRET, "little")
    assert ctypes.string_at(id(number) + 24, len(python_digits(SECRET))) == python_digits(SECRET)


def test_short_secrets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8 bytes are in every memory by chance"):
        copies(dump(tmp_path / "dump"), {"short": SECRET[:8]})
