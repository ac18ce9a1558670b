# SPDX-License-Identifier: Apache-2.0
"""A key pair for one request, to which a custodian seals its answer (docs/custodian.md §3).

X-Wing where this machine's OpenSSL can open it, else X25519. The private half is a 32-byte seed in protected memory,
as of every identity; the public half goes out as SubjectPublicKeyInfo in DER.
"""

from __future__ import annotations

from keyquorum.envelope.hpke import X25519, X_WING
from keyquorum.native import crypto, sodium
from keyquorum.record import Record
from keyquorum.secret import Identity

_SPKI_X25519 = bytes.fromhex("302a300506032b656e032100")  # RFC 8410
# 1.3.6.1.4.1.62253.25722 (draft-connolly-cfrg-xwing-kem) and 1216 bytes of key
_SPKI_X_WING = bytes.fromhex("308204d4300d060b2b0601040183e62d81c87a038204c100")


class OneTimeKey(Record):
    """`public` is the SubjectPublicKeyInfo. `close` wipes the private half."""

    kem: str
    identity: Identity
    public: bytes

    def close(self) -> None:
        """Forget the key."""
        self.identity.wipe()


def make() -> OneTimeKey:
    """Return a fresh key pair of the best KEM that this machine can open."""
    identity = sodium.random_secret(Identity, 32)
    if not crypto.has_ml_kem():
        return OneTimeKey(kem=X25519, identity=identity, public=_SPKI_X25519 + sodium.x25519_public(identity))
    with (
        crypto.digest(b"SHAKE256", 96, identity) as expanded,
        expanded.part(0, 64) as seed,
        expanded.part(64, 32) as private,
    ):
        raw = crypto.ml_kem_768_public(seed) + sodium.x25519_public(private)
    return OneTimeKey(kem=X_WING, identity=identity, public=_SPKI_X_WING + raw)
