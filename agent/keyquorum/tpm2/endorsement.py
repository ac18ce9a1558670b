# SPDX-License-Identifier: Apache-2.0
"""A machine's keys for its enrolment at a custodian: EK, AK and ActivateCredential (Part 3 §12.5).

Only the enrolment imports this file.
"""

from __future__ import annotations

from keyquorum.errors import HolderError
from keyquorum.record import Record
from keyquorum.tpm2 import commands, nv, public, session
from keyquorum.tpm2.client import EMPTY_PASSWORD
from keyquorum.tpm2.response_error import ResponseError
from keyquorum.tpm2.wire import ENDORSEMENT, NO_HANDLE, NULL, SHA256, sized, u16, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.tpm2.client import Tpm

_ACTIVATE_CREDENTIAL, _POLICY_SECRET, _START_AUTH_SESSION = 0x147, 0x151, 0x176
_CERTIFICATES = {"ecc": 0x01C0000A, "rsa": 0x01C00002}  # EK Credential Profile §2.2.1.4: L-2 and L-1
_MAX_CERTIFICATE = 4096
_MAX_SECRET = 64


class AttestedKeys(Record):
    """What a custodian is told of a machine's keys: public areas, and the EK's certificate (b"" for none)."""

    ek_kind: str
    ek: bytes
    ak_kind: str
    ak: bytes
    certificate: bytes


def read_keys(tpm: Tpm) -> AttestedKeys:
    """Derive both keys and return what is public of them."""
    (ek_handle, ek, ek_kind), (ak_handle, ak, ak_kind) = _derive(tpm, public.EK_TEMPLATES), (0, b"", "")
    try:
        ak_handle, ak, ak_kind = _derive(tpm, public.ATTESTATION_TEMPLATES)
    finally:
        tpm.flush(ek_handle)
        if ak_handle:
            tpm.flush(ak_handle)
    return AttestedKeys(ek_kind=ek_kind, ek=ek, ak_kind=ak_kind, ak=ak, certificate=_certificate(tpm, ek_kind))


def activate(tpm: Tpm, keys: AttestedKeys, id_object: bytes, encrypted_secret: bytes) -> bytes:
    """Return the secret of a credential that was made for these two keys; raises `HolderError` for any other.

    It proves where the keys are and protects nothing, so it may be ordinary bytes.
    """
    ek = commands.create_primary(tpm, public.EK_TEMPLATES[keys.ek_kind], ENDORSEMENT)[0]
    try:
        ak = commands.create_primary(tpm, public.ATTESTATION_TEMPLATES[keys.ak_kind], ENDORSEMENT)[0]
        try:
            policy = _endorsement_policy(tpm)
            try:
                authorization = EMPTY_PASSWORD + u32(policy) + bytes(5)
                parameters = sized(id_object) + sized(encrypted_secret)
                answer = tpm.run(_ACTIVATE_CREDENTIAL, (ak, ek), parameters, authorization)
            except HolderError:
                tpm.flush(policy)
                raise
        finally:
            tpm.flush(ak)
    finally:
        tpm.flush(ek)
    return tpm.public(answer, "ActivateCredential").sized(_MAX_SECRET)


def _derive(tpm: Tpm, templates: dict[str, bytes]) -> tuple[int, bytes, str]:
    try:
        return (*commands.create_primary(tpm, templates["ecc"], ENDORSEMENT), "ecc")
    except ResponseError:  # no P-256 in this chip
        return (*commands.create_primary(tpm, templates["rsa"], ENDORSEMENT), "rsa")


def _endorsement_policy(tpm: Tpm) -> int:
    """Start a policy session that fulfils an endorsement key's policy; return its handle (Part 3 §11.1, §23.4)."""
    start = sized(bytes(16)) + sized(b"") + bytes((session.POLICY_SESSION,)) + u16(NULL) + u16(SHA256)
    policy = tpm.run(_START_AUTH_SESSION, (NO_HANDLE, NO_HANDLE), start, gives_handle=True).handle
    try:
        no_nonce_hash_reference = sized(b"") * 3
        tpm.run(_POLICY_SECRET, (ENDORSEMENT, policy), no_nonce_hash_reference + u32(0), EMPTY_PASSWORD)
    except HolderError:
        tpm.flush(policy)
        raise
    return policy


def _certificate(tpm: Tpm, kind: str) -> bytes:
    """Return the certificate that the maker put into the TPM, b"" where there is none that fits."""
    index = _CERTIFICATES[kind]
    try:
        found = nv.read(tpm, index, index)
    except HolderError:
        return b""
    length = 4 + int.from_bytes(found[2:4], "big") if found[:2] == b"\x30\x82" else 0
    return found[:length] if length <= _MAX_CERTIFICATE else b""  # the index may be larger than what is in it
