# SPDX-License-Identifier: Apache-2.0
"""Recipients' public keys as they travel: one spelling, and nothing that cannot be sealed to."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyquorum.envelope import recipient_key
from keyquorum.envelope.hpke import X25519, X_WING
from keyquorum.envelope.sealing import Recipient
from keyquorum.errors import TamperingError
from keyquorum.secret import Identity

SEED = bytes(range(32))


@pytest.mark.parametrize("kem", [X25519, X_WING])
def test_a_key_travels(kem: str) -> None:
    with Identity.from_view(SEED) as identity:
        made = Recipient.of(identity, kem)
    encoded = recipient_key.encode(made)
    found = recipient_key.parse(kem, encoded)
    assert (found.kem, found.raw, found.key_id) == (kem, made.raw, made.key_id)
    other = X25519 if kem == X_WING else X_WING
    for wrong in (encoded[:-1], encoded + b"\0", encoded[1:], b"", made.raw):
        with pytest.raises(TamperingError):
            recipient_key.parse(kem, wrong)
    for name in (other, "rsa"):
        with pytest.raises(TamperingError):
            recipient_key.parse(name, encoded)


def test_x25519_is_spelt_as_others_spell_it() -> None:
    key = x25519.X25519PrivateKey.from_private_bytes(SEED).public_key()
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert recipient_key.parse(X25519, encoded).raw == key.public_bytes_raw()


@pytest.mark.parametrize("kem", [X25519, X_WING])
def test_points_of_small_order_are_no_keys(kem: str) -> None:
    with Identity.from_view(SEED) as identity:
        encoded = recipient_key.encode(Recipient.of(identity, kem))
    for point in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(TamperingError, match="sealed to"):
            recipient_key.parse(kem, encoded[:-32] + point)


def test_those_points_are_the_ones_with_which_every_exchange_gives_zero() -> None:
    """Around each of them, and in every spelling: the highest bit is not looked at, and 19 numbers have two."""
    p = 2**255 - 19
    near = {u % 2**255 + high for u in (*recipient_key._SMALL, p) for high in (0, 2**255)}
    ours = x25519.X25519PrivateKey.from_private_bytes(SEED)
    for u in {u + step for u in near for step in range(-20, 21) if 0 <= u + step < 2**256}:
        raw = u.to_bytes(32, "little")
        try:
            ours.exchange(x25519.X25519PublicKey.from_public_bytes(raw))
        except ValueError:
            with pytest.raises(TamperingError, match="sealed to"):
                recipient_key.parse(X25519, bytes.fromhex("302a300506032b656e032100") + raw)
        else:
            assert recipient_key.parse(X25519, bytes.fromhex("302a300506032b656e032100") + raw).raw == raw
