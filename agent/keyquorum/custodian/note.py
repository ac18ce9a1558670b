# SPDX-License-Identifier: Apache-2.0
"""C2SP signed notes (c2sp.org/signed-note) with Ed25519 keys: text, one empty line, signature lines.

Whose text it is, is decided by name and key id together; signatures of unknown keys are passed over, as the format
demands, and a signature of a known key that does not match spoils the whole note (docs/custodian.md §9).
"""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.errors import MalformedError, TamperingError
from keyquorum.model import strict_json
from keyquorum.native import sodium

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ED25519 = 1  # a signature over the text
COSIGNATURE = 4  # a time and a signature over it and the text (c2sp.org/tlog-cosignature, cosignature/v1)
MAX_NOTE = 16 * 1024
MAX_SIGNATURES = 32  # the format asks for 16 at least
_MAX_NAME = 128
_DASH = "\u2014 "
_TYPES = (ED25519, COSIGNATURE)


def check_name(name: str) -> str:
    """Return a key's name if it can be one; raises `MalformedError`."""
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or any(c.isspace() or c == "+" for c in name):
        raise MalformedError("a key's name", "", f"needs 1 to {_MAX_NAME} characters without spaces and plus signs")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """Who may sign notes: a name, a type of signature and an Ed25519 public key (32 bytes)."""

    name: str
    kind: int
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that stand before each signature of this key."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes((self.kind,)) + self.public).digest()[:4]

    def __str__(self) -> str:
        """Write the one-line form that verifiers are configured with (signed-note, "verifier keys")."""
        key = strict_json.to_base64(bytes((self.kind,)) + self.public)
        return f"{self.name}+{self.key_id.hex()}+{key}"


def parse_key(text: str) -> VerifierKey:
    """Read `name+id+key`; raises `MalformedError`."""
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise MalformedError("the verifier key", "", "must be name+id+key")
    try:
        raw = binascii.a2b_base64(parts[2], strict_mode=True)
    except (binascii.Error, ValueError):
        raise MalformedError("the verifier key", "key", "is not base64") from None
    if len(raw) != 33 or raw[0] not in _TYPES:
        raise MalformedError("the verifier key", "key", "is no Ed25519 key of a type known here (1 and 4)")
    key = VerifierKey(name=check_name(parts[0]), kind=raw[0], public=raw[1:])
    if str(key) != text:
        raise MalformedError("the verifier key", "id", f"is not that of this key, {key.key_id.hex()}")
    return key


class NoteSigner:
    """Whoever holds a private key for notes. One key has one name and one type."""

    def __init__(self, name: str, kind: int, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key = VerifierKey(name=check_name(name), kind=kind, public=private.public_key().public_bytes_raw())

    def line(self, message: bytes, before: bytes = b"") -> str:
        """Return a signature line over `message`; `before` stands between key id and signature."""
        signature = self.key.key_id + before + self._private.sign(message)
        return f"{_DASH}{self.key.name} {strict_json.to_base64(signature)}\n"

    def __repr__(self) -> str:
        return f"<NoteSigner {self.key}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A signature line: whose it says to be, and the bytes after the key id."""

    name: str
    key_id: bytes
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note taken apart. `text` ends in a newline; nothing of it counts before `signed_by`."""

    text: str
    signatures: tuple[Signature, ...]

    def of(self, key: VerifierKey) -> list[Signature]:
        """Return the lines that say to be of this key."""
        return [found for found in self.signatures if (found.name, found.key_id) == (key.name, key.key_id)]

    def signed_by(self, key: VerifierKey) -> None:
        """Return if an Ed25519 key (type 1) signed the text; raises `TamperingError`."""
        lines = self.of(key)
        if not lines:
            names = ", ".join(found.name for found in self.signatures)
            raise TamperingError("the note", "signatures", f"signed by {names}, not by {key.name}")
        for found in lines:
            check_signature(key, self.text.encode(), found.data, len(found.data))


def check_signature(key: VerifierKey, message: bytes, signature: bytes, size: int) -> None:
    """Return if `signature` is by `key` and its line had the right `size`; raises `TamperingError`."""
    if size != (64 if key.kind == ED25519 else 72) or not sodium.verify_ed25519(key.public, message, signature):
        raise TamperingError("the note", "signatures", f"the signature of {key.name} does not match")


def parse(data: bytes) -> Note:
    """Take a note apart; raises `TamperingError` for what is none."""
    if len(data) > MAX_NOTE:
        raise TamperingError("the note", "", f"{len(data)} bytes are more than the {MAX_NOTE} allowed")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise TamperingError("the note", "", "is not UTF-8") from None
    if any(character < " " and character != "\n" for character in whole):
        raise TamperingError("the note", "", "holds control characters")
    text, gap, lines = whole.rpartition("\n\n")
    if not gap or not lines.endswith("\n"):
        raise TamperingError("the note", "", "has no signatures after an empty line")
    rows = lines[:-1].split("\n")
    if len(rows) > MAX_SIGNATURES:
        raise TamperingError("the note", "signatures", f"has {len(rows)} of them, more than {MAX_SIGNATURES}")
    return Note(text=text + "\n", signatures=tuple(_signature(row) for row in rows))


def _signature(row: str) -> Signature:
    name, space, encoded = row.removeprefix(_DASH).partition(" ")
    if not row.startswith(_DASH) or not space:
        raise TamperingError("the note", "signatures", "has a line that is no signature")
    try:
        check_name(name)
        raw = binascii.a2b_base64(encoded, strict_mode=True)
    except (MalformedError, binascii.Error, ValueError):
        raise TamperingError("the note", "signatures", "has a line that is no signature") from None
    if len(raw) < 5 or strict_json.to_base64(raw) != encoded:
        raise TamperingError("the note", "signatures", "has a line that is no signature")
    return Signature(name=name, key_id=raw[:4], data=raw[4:])
