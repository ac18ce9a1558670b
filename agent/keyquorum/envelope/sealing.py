# SPDX-License-Identifier: Apache-2.0
"""Sealing a share to a recipient by HPKE (docs/fragment.md §3). Only enrolment and rotation do this.

`cryptography` implements HPKE; `envelope.hpke` opens at boot over other libraries, so each checks the other.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hpke as pyca
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyquorum.envelope.hpke import ENC_SIZES, X25519, X_WING
from keyquorum.native import crypto, sodium
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyquorum.secret import Identity, Secret

_KEMS = {X25519: pyca.KEM.X25519, X_WING: pyca.KEM.MLKEM768_X25519}


class Recipient(Record):
    """The public half of an identity. `public` is a key object of `cryptography`, `raw` its bytes."""

    kem: str
    public: Any
    raw: bytes

    @property
    def key_id(self) -> bytes:
        """The first 16 bytes of the key's hash."""
        return sodium.sha256(self.raw)[:16]

    @classmethod
    def of(cls, identity: Identity, kem: str) -> Recipient:
        """Derive the public key of an identity for a KEM."""
        if kem == X25519:
            key = x25519.X25519PrivateKey.from_private_bytes(identity.view).public_key()
            return cls(kem=kem, public=key, raw=key.public_bytes_raw())
        with crypto.digest(b"SHAKE256", 96, identity) as seed:
            first = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed.view[:64]).public_key()
            second = x25519.X25519PrivateKey.from_private_bytes(seed.view[64:]).public_key()
        raw = first.public_bytes(Encoding.Raw, PublicFormat.Raw) + second.public_bytes_raw()
        return cls(kem=kem, public=pyca.MLKEM768X25519PublicKey(first, second), raw=raw)

    def seal(self, share: Secret, info: bytes) -> tuple[bytes, bytes]:
        """Return (enc, ciphertext)."""
        suite = pyca.Suite(_KEMS[self.kem], pyca.KDF.HKDF_SHA256, pyca.AEAD.CHACHA20_POLY1305)
        sealed = suite.encrypt(share.view, self.public, info=info)
        return sealed[: ENC_SIZES[self.kem]], sealed[ENC_SIZES[self.kem] :]
