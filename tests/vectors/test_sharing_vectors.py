# SPDX-License-Identifier: Apache-2.0
"""Sharing against what others published or made (docs/sharing.md §1). Where they are from: SOURCES.md beside them."""

from __future__ import annotations

import json
import os
from itertools import combinations
from typing import TYPE_CHECKING

import pytest

from keyquorum.sharing import shamir
from unit.sharing.oracle import slow_interpolate
from vectors import slip39

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Vectors = Callable[[str], Path]

# SLIP-39 numbers shares from 0, which keyquorum refuses. Lagrange's weights depend on differences only, and in this
# field the difference is XOR: adding a constant to all numbers, the wanted one included, changes no result.
_SHIFT = 0x80


def combined(shares: Sequence[tuple[int, bytes]], at: int = 0) -> bytes:
    size = len(shares[0][1])
    packed = [(number, int.from_bytes(value, "little")) for number, value in shares]
    return shamir.combine(packed, size, at).to_bytes(size, "little")


def from_vault(share: bytes) -> tuple[int, bytes]:
    """Vault's layout: y[0] … y[L-1] ‖ x."""
    return share[-1], share[:-1]


def test_draft_mcgrew_tss(vectors: Vectors) -> None:
    found = json.loads(vectors("crypto/draft-mcgrew-tss/draft-mcgrew-tss-03.json").read_text())
    for vector in found["vectors"]:
        shares = [(share["x"], bytes.fromhex(share["y"])) for share in vector["shares"]]
        assert combined(shares[: vector["threshold"]]).hex() == vector["secret"]
        assert combined(shares[::-1]).hex() == vector["secret"]


def test_vault_shares_combine_here(vectors: Vectors) -> None:
    found = json.loads(vectors("crypto/vault-format/vault-format-shares.json").read_text())["vectors"]
    assert [(vector["threshold"], vector["shares_n"]) for vector in found][-1] == (128, 255)
    for vector in found:
        shares = [from_vault(bytes.fromhex(share)) for share in vector["shares"]]
        threshold = vector["threshold"]
        for chosen in (shares[:threshold], shares[-threshold:], shares[1 : threshold + 1][::-1]):
            assert combined(chosen).hex() == vector["secret"]
        if threshold > 2:
            assert combined(shares[: threshold - 1]).hex() != vector["secret"]


def test_every_vault_share_lies_on_the_polynomial_of_the_others(vectors: Vectors) -> None:
    found = json.loads(vectors("crypto/vault-format/vault-format-shares.json").read_text())["vectors"]
    for vector in found:
        shares = [from_vault(bytes.fromhex(share)) for share in vector["shares"]]
        known = shares[: vector["threshold"]]
        for number, value in shares[vector["threshold"] :][:20]:
            assert combined(known, number) == value


@pytest.mark.parametrize(("threshold", "total", "size"), [(2, 3, 16), (3, 5, 32), (3, 5, 64), (5, 8, 33)])
def test_our_shares_combine_by_vaults_rule(threshold: int, total: int, size: int) -> None:
    # The other direction: shares made here, in Vault's layout, through an interpolation written like Vault's (each
    # byte by itself, multiplication by shifting, x from the last byte). Vault's Go code cannot run in these tests.
    secret = os.urandom(size)
    shares = shamir.split(
        int.from_bytes(secret, "little"),
        size,
        threshold,
        total,
        lambda count: int.from_bytes(os.urandom(count), "little"),
    )
    layout = [share.to_bytes(size, "little") + bytes([number]) for number, share in enumerate(shares, 1)]
    for chosen in combinations(layout, threshold):
        assert slow_interpolate([from_vault(share) for share in chosen], 0) == secret


def recovered(shares: list[tuple[int, bytes]]) -> bytes:
    """Interpolate as SLIP-39 has it, at 255, and check the digest at 254."""
    if len(shares) == 1:
        return shares[0][1]
    shifted = [(number ^ _SHIFT, value) for number, value in shares]
    secret = combined(shifted, slip39.SECRET_INDEX ^ _SHIFT)
    assert slip39.digest_is_right(combined(shifted, slip39.DIGEST_INDEX ^ _SHIFT), secret)
    return secret


def test_slip39_master_secrets(vectors: Vectors) -> None:
    interpolated = 0
    for name, mnemonics, secret, _ in json.loads(vectors("crypto/slip39/vectors.json").read_text()):
        if not secret:
            continue
        shares = [slip39.decode(words) for words in mnemonics]
        groups: dict[int, list[tuple[int, bytes]]] = {}
        for share in shares:
            groups.setdefault(share.group_index, []).append((share.member_index, share.value))
            assert len(groups[share.group_index]) <= share.member_threshold
        interpolated += sum(len(members) > 1 for members in groups.values()) + (len(groups) > 1)
        encrypted = recovered([(index, recovered(members)) for index, members in groups.items()])
        assert len(groups) == shares[0].group_threshold
        assert slip39.decrypt(encrypted, shares[0], b"TREZOR").hex() == secret, name
    assert interpolated >= 15


def test_slip39_invalid_digests_are_seen(vectors: Vectors) -> None:
    tried = 0
    for name, mnemonics, _, _ in json.loads(vectors("crypto/slip39/vectors.json").read_text()):
        if "invalid digest" in name:
            shares = [slip39.decode(words) for words in mnemonics]
            shifted = [(share.member_index ^ _SHIFT, share.value) for share in shares]
            digest = combined(shifted, slip39.DIGEST_INDEX ^ _SHIFT)
            assert not slip39.digest_is_right(digest, combined(shifted, slip39.SECRET_INDEX ^ _SHIFT))
            tried += 1
    assert tried == 2


def test_libgfshare_uses_another_field(vectors: Vectors) -> None:
    secret = vectors("crypto/libgfshare/f.bin").read_bytes()
    shares = [
        (int(path.suffix[1:]), path.read_bytes()) for path in sorted(vectors("crypto/libgfshare").glob("f.bin.[0-9]*"))
    ]
    assert len(shares) == 5
    for chosen in combinations(shares, 3):
        assert slow_interpolate(list(chosen), 0, 0x11D) == secret  # the shares are good …
        assert combined(chosen) != secret  # … but not here
