# SPDX-License-Identifier: Apache-2.0
"""Receipts: an entry, its place in the log, and the checkpoint that has it, in one text (docs/custodian.md §9).

The format is C2SP tlog-proof with the entry as the extra data, so that other tools for such logs can check one too.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.custodian import checkpoint, entry, merkle, note
from keyquorum.errors import TamperingError
from keyquorum.model import strict_json

if TYPE_CHECKING:
    from keyquorum.custodian.checkpoint import Verified
    from keyquorum.custodian.entry import Entry
    from keyquorum.custodian.note import VerifierKey

HEADER = "c2sp.org/tlog-proof@v1"
MAX_RECEIPT = entry.MAX_ENTRY * 4 // 3 + merkle.MAX_PROOF * 45 + note.MAX_NOTE + 256
_WHAT = "the receipt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A receipt that was verified: the entry, and the checkpoint that vouches for it."""

    entry: Entry
    verified: Verified


def serialise(body: bytes, index: int, proof: list[bytes], signed: bytes) -> bytes:
    """Write a receipt for the entry `body` at `index`, as proven against the signed checkpoint."""
    lines = [HEADER, f"extra {strict_json.to_base64(body)}", f"index {index}"]
    lines += [strict_json.to_base64(digest) for digest in proof]
    return "\n".join([*lines, "", ""]).encode() + signed


def verify(data: bytes, log: VerifierKey, witnesses: tuple[VerifierKey, ...] = (), needed: int = 0) -> Receipt:
    """Return what a receipt says if the log vouches for it; raises `TamperingError`.

    The order is: sizes and shape, the checkpoint's signatures, the proof, and only then the entry's own reader.
    """
    if len(data) > MAX_RECEIPT:
        raise TamperingError(_WHAT, "", f"{len(data)} bytes are more than the {MAX_RECEIPT} allowed")
    head, gap, signed = data.partition(b"\n\n")
    lines = head.split(b"\n")
    if not gap or len(lines) < 3 or len(lines) > 3 + merkle.MAX_PROOF or lines[0] != HEADER.encode():
        raise TamperingError(_WHAT, "", f"is no {HEADER} with an entry")
    body = _decoded(lines[1].removeprefix(b"extra "), "extra", lines[1].startswith(b"extra "))
    index = _number(lines[2])
    proof = [_decoded(line, "hashes") for line in lines[3:]]
    verified = checkpoint.verify(signed, log, witnesses, needed)
    tree = verified.checkpoint
    merkle.verify_inclusion(merkle.leaf_hash(body), index, tree.size, proof, tree.root)
    found = entry.parse(body)
    if found.number != index:
        raise TamperingError(_WHAT, "index", f"entry {found.number} stands at {index}")
    return Receipt(entry=found, verified=verified)


def _decoded(text: bytes, where: str, shaped: bool = True) -> bytes:
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise TamperingError(_WHAT, where, "is not base64") from None
    if not shaped or strict_json.to_base64(raw).encode() != text:
        raise TamperingError(_WHAT, where, "is not canonical base64")
    return raw


def _number(line: bytes) -> int:
    text = line.removeprefix(b"index ")
    if not line.startswith(b"index ") or not text.isdigit() or len(text) > 16 or str(int(text)).encode() != text:
        raise TamperingError(_WHAT, "index", "is not the number of an entry")
    return int(text)
