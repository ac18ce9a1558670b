# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: how long the log is and what its root is, signed by the custodian and cosigned by witnesses.

C2SP tlog-checkpoint and tlog-cosignature (cosignature/v1, Ed25519), readable by every other tool for such logs
(docs/custodian.md §9). The rule of a witness is here too: cosign only what goes on from what was cosigned before.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.custodian import merkle, note
from keyquorum.errors import TamperingError
from keyquorum.model import strict_json

if TYPE_CHECKING:
    from keyquorum.custodian.note import NoteSigner, VerifierKey

MAX_SIZE = 1 << 53
_MAX_TIME = 1 << 63
_WHAT = "the checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A log's state: whose log (`origin`), number of entries and root hash (32 bytes)."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text of the note."""
        return f"{self.origin}\n{self.size}\n{strict_json.to_base64(self.root)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A checkpoint whose signatures were checked; `witnesses` has the time of each cosignature, in seconds, by name."""

    checkpoint: Checkpoint
    witnesses: dict[str, int]
    signed: bytes


def parse_text(text: str) -> Checkpoint:
    """Read a note's text; raises `TamperingError`. Extension lines are refused: nobody could audit them."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise TamperingError(_WHAT, "", "must be origin, size and root on three lines, and nothing else")
    origin, size, root = lines[:3]
    if not origin or not origin.isprintable() or len(origin) > 128:
        raise TamperingError(_WHAT, "origin", "is not a printable name")
    if not (size.isascii() and size.isdecimal()) or len(size) > 16 or str(int(size)) != size or int(size) > MAX_SIZE:
        raise TamperingError(_WHAT, "size", "is not a number of entries")
    try:
        digest = binascii.a2b_base64(root, strict_mode=True)
    except (binascii.Error, ValueError):
        raise TamperingError(_WHAT, "root", "is not base64") from None
    if len(digest) != merkle.HASH or strict_json.to_base64(digest) != root:
        raise TamperingError(_WHAT, "root", "is not the base64 of 32 bytes")
    if size == "0" and digest != merkle.EMPTY_ROOT:
        raise TamperingError(_WHAT, "root", "is not that of an empty log")
    return Checkpoint(origin=origin, size=int(size), root=digest)


def sign(checkpoint: Checkpoint, log: NoteSigner) -> bytes:
    """Return the signed note; the log's key is named like the log."""
    if log.key.kind != note.ED25519 or log.key.name != checkpoint.origin:
        raise ValueError("a log is signed by the Ed25519 key of its own name")
    parse_text(checkpoint.text)
    return f"{checkpoint.text}\n{log.line(checkpoint.text.encode())}".encode()


def _cosigned(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def cosign(found: Verified, witness: NoteSigner, at: int) -> bytes:
    """Return the note with a cosignature of the instant `at` (seconds since 1970) added."""
    if witness.key.kind != note.COSIGNATURE:
        raise ValueError("a witness signs with a key of the cosignature type")
    if not 0 < at < _MAX_TIME:
        raise ValueError(f"{at} is no instant")
    return found.signed + witness.line(_cosigned(found.checkpoint.text, at), at.to_bytes(8, "big")).encode()


def verify(signed: bytes, log: VerifierKey, witnesses: tuple[VerifierKey, ...] = (), needed: int = 0) -> Verified:
    """Return the checkpoint if `log` signed it and at least `needed` of the witnesses cosigned it.

    Raises `TamperingError`, also if one signature of a key named here does not match.
    """
    parsed = note.parse(signed)
    parsed.signed_by(log)
    found = parse_text(parsed.text)
    if found.origin != log.name:
        raise TamperingError(_WHAT, "origin", f"is {found.origin}, not {log.name}")
    times: dict[str, int] = {}
    for witness in witnesses:
        for line in parsed.of(witness):
            at = int.from_bytes(line.data[:8], "big")
            note.check_signature(witness, _cosigned(parsed.text, at), line.data[8:], len(line.data))
            if not 0 < at < _MAX_TIME:
                raise TamperingError(_WHAT, "signatures", f"the time of {witness.name} is none")
            times[witness.name] = max(at, times.get(witness.name, 0))
    # One key under two names is one witness, and nobody is a witness of his own log.
    if len({key.public for key in witnesses if key.name in times} - {log.public}) < needed:
        have = ", ".join(times) or "nobody"
        raise TamperingError(_WHAT, "signatures", f"cosigned by {have}, and {needed} witnesses are needed")
    return Verified(checkpoint=found, witnesses=times, signed=signed)


def replaces(offered: bytes, kept: bytes) -> bool:
    """Say whether a note is worth keeping instead of another: more entries, or as many and no fewer cosignatures.

    Signatures are counted, not checked: that is done before a note is kept. Raises `TamperingError` for what is none.
    """
    return _worth(offered) >= _worth(kept)


def _worth(signed: bytes) -> tuple[int, int]:
    parsed = note.parse(signed)
    return parse_text(parsed.text).size, len({(line.name, line.key_id) for line in parsed.signatures})


class ForkError(TamperingError):
    """One log has said two things that cannot both be so; `notes` are the two signed checkpoints, which prove it."""

    def __init__(self, problem: str, notes: tuple[bytes, bytes]) -> None:
        super().__init__("the log", "root", problem, "keep both checkpoints: together they prove it")
        self.notes = notes


def compare(one: Verified, other: Verified) -> None:
    """Raise `ForkError` if two checkpoints of one log have one size and two roots."""
    first, second = one.checkpoint, other.checkpoint
    if (first.origin, first.size) == (second.origin, second.size) and first.root != second.root:
        problem = f"{first.origin} signed two roots for {first.size} entries: the log is forked"
        raise ForkError(problem, (one.signed, other.signed))


def follows(seen: Verified | None, offered: Verified, proof: list[bytes]) -> None:
    """Return if a witness that last cosigned `seen` may cosign `offered`; raises `TamperingError` or `ForkError`."""
    if seen is None:
        if proof:
            raise TamperingError("the proof from the log", "hashes", "none is needed here")
        return
    old, new = seen.checkpoint, offered.checkpoint
    if old.origin != new.origin:
        raise TamperingError(_WHAT, "origin", f"is {new.origin}, not {old.origin}")
    compare(seen, offered)
    merkle.verify_consistency(old.size, old.root, new.size, new.root, proof)
