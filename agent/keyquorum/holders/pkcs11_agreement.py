# SPDX-License-Identifier: Apache-2.0
"""Getting back, on the token, the material that an identity is wrapped under (docs/holders-pkcs11.md §3)."""

from __future__ import annotations

from keyquorum.model import pkcs11_key
from keyquorum.native import cryptoki_abi as abi
from keyquorum.native.cryptoki import CallError, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.holders.contract import Subject
    from keyquorum.secret import Secret

KIND = "pkcs11"
OAEP = {
    "rsa-oaep-sha256": (abi.CKM_SHA256, abi.CKG_MGF1_SHA256),
    "rsa-oaep-sha1": (abi.CKM_SHA_1, abi.CKG_MGF1_SHA1),
}
ECDH = {"ecdh-p256": pkcs11_key.P256, "ecdh-p384": pkcs11_key.P384}
MECHANISMS = (*OAEP, *ECDH)
SEED_SIZE = 32


def agree(session: Session, key: int, mechanism: str, encapsulated: bytes, pin: Secret | None) -> Secret:
    """Return the material: what RSA-OAEP decrypts to, or the x coordinate of ECDH with the one-time point.

    Raises `CallError` when the token does not do it, or not with this key.
    """
    if mechanism in OAEP:
        digest, mgf = OAEP[mechanism]
        return session.decrypt_oaep(key, digest, mgf, encapsulated, pin)
    curve = ECDH[mechanism]
    try:
        return session.derive_ecdh(key, encapsulated, curve.size)
    except CallError as problem:
        if problem.code == abi.CKR_DEVICE_REMOVED:
            raise
    return session.derive_ecdh(key, pkcs11_key.octet_string(encapsulated), curve.size)  # as before PKCS#11 2.30


def binding(subject: Subject, mechanism: str, fingerprint: str, encapsulated: bytes) -> dict[str, str]:
    """Return what the wrapped identity is bound to. Not to the epoch: a rotation may keep the token's part."""
    return {
        "volume": subject.volume,
        "set": subject.set_id.hex(),
        "name": subject.name,
        "mechanism": mechanism,
        "key": fingerprint,
        "encapsulated": encapsulated.hex(),
    }
