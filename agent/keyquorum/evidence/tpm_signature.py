# SPDX-License-Identifier: Apache-2.0
"""Signatures by a TPM: RSASSA, RSAPSS and ECDSA with SHA-256 or better (TPM 2.0 Part 2 §11.3, TPMT_SIGNATURE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from keyquorum.errors import TamperingError
from keyquorum.evidence.tpm_wire import ECDSA, HASHES, RSAPSS, RSASSA, Reader, word

if TYPE_CHECKING:
    from keyquorum.evidence.tpm_public import PublicArea

MAX_SIGNATURE = 1024
_MAX_RSA = 512
_MAX_COORDINATE = 66

_ALGORITHMS: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A parsed signature; `value` is as `cryptography` takes it: the bytes of RSA, DER for ECDSA."""

    scheme: int
    hash: str
    value: bytes

    def scheme_text(self) -> str:
        """Return the scheme in words."""
        return f"{word(self.scheme)} with {self.hash}"


def parse(data: bytes, what: str) -> Signature:
    """Read a TPMT_SIGNATURE; raises `TamperingError` for every other scheme and for SHA-1."""
    reader = Reader(data, what, MAX_SIGNATURE)
    scheme = reader.number(2)
    if scheme not in {RSASSA, RSAPSS, ECDSA}:
        reader.fail(f"{word(scheme)} is not RSASSA, RSAPSS or ECDSA", "sigAlg")
    algorithm = reader.number(2)
    if algorithm not in HASHES:
        reader.fail(f"{word(algorithm)} is not SHA-256 or better", "hash")
    if scheme == ECDSA:
        r, s = (int.from_bytes(reader.sized(_MAX_COORDINATE), "big") for _ in range(2))
        value = encode_dss_signature(r, s)
    else:
        value = reader.sized(_MAX_RSA)
    reader.finish()
    return Signature(scheme=scheme, hash=HASHES[algorithm], value=value)


def verify(signature: Signature, key: PublicArea, message: bytes, what: str) -> None:
    """Return if `key` made the signature over `message`; raises `TamperingError` otherwise.

    The caller pins the scheme: what the signature says about itself is only what it says.
    """
    algorithm = _ALGORITHMS[signature.hash]
    try:
        if isinstance(key.key, ec.EllipticCurvePublicKey) and signature.scheme == ECDSA:
            key.key.verify(signature.value, message, ec.ECDSA(algorithm))
        elif isinstance(key.key, rsa.RSAPublicKey) and signature.scheme == RSASSA:
            key.key.verify(signature.value, message, padding.PKCS1v15(), algorithm)
        elif isinstance(key.key, rsa.RSAPublicKey) and signature.scheme == RSAPSS:
            # A TPM's salt is as long as fits, or as long as the hash in FIPS mode (Part 1 §B.7).
            scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
            key.key.verify(signature.value, message, scheme, algorithm)
        else:
            raise TamperingError(what, "", f"{signature.scheme_text()} does not fit an {word(key.kind)} key")
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        raise TamperingError(what, "", f"is not by the key with the Name {key.name.hex()}") from None
