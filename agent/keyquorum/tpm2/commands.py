# SPDX-License-Identifier: Apache-2.0
"""The TPM commands of an unlock, one function each (Part 3; section numbers with each)."""

from __future__ import annotations

from keyquorum.errors import RefusedError
from keyquorum.native import libc, sodium
from keyquorum.secret import Identity
from keyquorum.tpm2 import banks, public, session
from keyquorum.tpm2.client import EMPTY_PASSWORD
from keyquorum.tpm2.response_error import HANDLE, ResponseError
from keyquorum.tpm2.session import Session
from keyquorum.tpm2.wire import NO_HANDLE, OWNER, RSASSA, SHA256, SRK_HANDLE, sized, u16, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyquorum.secret import Secret
    from keyquorum.tpm2.client import Tpm
    from keyquorum.tpm2.public import StorageKey

LOAD, UNSEAL = 0x157, 0x15E
_CREATE_PRIMARY, _LOAD_EXTERNAL = 0x131, 0x167
_POLICY_AUTHORIZE, _POLICY_AUTH_VALUE, _POLICY_PCR, _POLICY_GET_DIGEST = 0x16A, 0x16B, 0x17F, 0x189
_READ_PUBLIC, _START_AUTH_SESSION, _VERIFY_SIGNATURE = 0x173, 0x176, 0x177
_GET_CAPABILITY, _PCR_READ, _PCR_EXTEND = 0x17A, 0x17E, 0x182

_CAP_PCRS, _CAP_PROPERTIES = 5, 6
_LOCKOUT_COUNTER = 0x20E  # TPM_PT, followed by MAX_AUTH_FAIL, LOCKOUT_INTERVAL and LOCKOUT_RECOVERY
_MAX_DIGESTS = 8  # in one TPML_DIGEST
_MAX_NAME = 66
_MAX_NONCE = 64


def read_storage_root_key(tpm: Tpm) -> bytes | None:
    """Return the public area of the key at the SRK's handle, or None (TPM2_ReadPublic, §12.4).

    Nobody vouches for it: recompute its Name and compare.
    """
    try:
        answer = tpm.run(_READ_PUBLIC, (SRK_HANDLE,))
    except ResponseError as error:
        if error.code == HANDLE:
            return None
        raise
    reader = tpm.public(answer, "ReadPublic")
    area = reader.sized(public.MAX_PUBLIC)
    reader.sized(_MAX_NAME)
    reader.sized(_MAX_NAME)
    reader.finish()
    return area


def create_primary(tpm: Tpm, template: bytes, hierarchy: int = OWNER) -> tuple[int, bytes]:
    """Derive a primary key of a hierarchy; return handle and public area (TPM2_CreatePrimary, §24.1).

    Deriving an RSA key can take a hardware TPM half a minute.
    """
    no_sensitive, outside, no_pcrs = sized(bytes(4)), sized(b""), u32(0)
    parameters = no_sensitive + sized(template) + outside + no_pcrs
    answer = tpm.run(_CREATE_PRIMARY, (hierarchy,), parameters, EMPTY_PASSWORD, gives_handle=True)
    area = tpm.public(answer, "CreatePrimary").sized(public.MAX_PUBLIC)
    return answer.handle, area


def start_session(tpm: Tpm, handle: int, storage_key: StorageKey, kind: int) -> Session:
    """Start a session salted to a storage key that is loaded at `handle` (TPM2_StartAuthSession, §11.1)."""
    salt, nonce, parameters = session.start_parameters(storage_key, kind)
    with salt:
        answer = tpm.run(_START_AUTH_SESSION, (handle, NO_HANDLE), parameters, gives_handle=True)
        reader = tpm.public(answer, "StartAuthSession")
        nonce_tpm = reader.sized(_MAX_NONCE)
        reader.finish()
        return Session(answer.handle, salt, nonce, nonce_tpm)


def policy_pcr(tpm: Tpm, policy: Session, bank: str, pcrs: Iterable[int], expected: bytes) -> None:
    """Bind a policy session to PCRs, which must have the digest `expected` unless that is empty (§23.7)."""
    tpm.run(_POLICY_PCR, (policy.handle,), sized(expected) + banks.selection(bank, pcrs))


def policy_auth_value(tpm: Tpm, policy: Session) -> None:
    """Make a policy session ask for the object's authorisation value (§23.14)."""
    tpm.run(_POLICY_AUTH_VALUE, (policy.handle,))


def policy_digest(tpm: Tpm, policy: Session) -> bytes:
    """Return a policy session's present digest (TPM2_PolicyGetDigest, §23.17)."""
    reader = tpm.public(tpm.run(_POLICY_GET_DIGEST, (policy.handle,)), "PolicyGetDigest")
    found = reader.sized(64)
    reader.finish()
    return found


def load_signer(tpm: Tpm, signer: bytes) -> int:
    """Load the public area of a key that signs policies; return its handle (TPM2_LoadExternal, §12.3).

    Raises `ResponseError` when the TPM cannot work with such a key.
    """
    return tpm.run(_LOAD_EXTERNAL, (), sized(b"") + sized(signer) + u32(OWNER), gives_handle=True).handle


def policy_authorize(tpm: Tpm, policy: Session, signer: tuple[int, bytes], approved: bytes, signature: bytes) -> None:
    """Replace a session's policy by "whatever `signer` signed", if it signed the present one (§20.1, §23.16).

    `signer` is the handle and Name of an RSA key, `signature` its PKCS #1 v1.5 signature of `approved` with SHA-256.
    Raises `ResponseError` when it is not.
    """
    handle, name = signer
    digest = sodium.sha256(approved)  # of policy and policyRef, which is empty
    scheme = u16(RSASSA) + u16(SHA256)
    answer = tpm.run(_VERIFY_SIGNATURE, (handle,), sized(digest) + scheme + sized(signature))
    reader = tpm.public(answer, "VerifySignature")
    ticket = reader.take(6) + sized(reader.sized(64))  # tag and hierarchy, digest
    reader.finish()
    tpm.run(_POLICY_AUTHORIZE, (policy.handle,), sized(approved) + sized(b"") + sized(name) + ticket)


def load(tpm: Tpm, parent: int, private: bytes, area: bytes) -> int:
    """Load a sealed object below a parent whose authorisation is empty; return its handle (TPM2_Load, §12.2)."""
    answer = tpm.run(LOAD, (parent,), sized(private) + sized(area), EMPTY_PASSWORD, gives_handle=True)
    return answer.handle


def unseal(tpm: Tpm, handle: int, name: bytes, policy: Session, auth: Secret | None) -> Identity:
    """Return the 32 bytes that the object `name`, loaded at `handle`, keeps (TPM2_Unseal, §12.7).

    The answer comes encrypted, is verified, and is decrypted where it lies. The session is spent.
    """
    policy.renew()
    authorization = policy.authorize(UNSEAL, name, b"", session.ENCRYPT, auth)
    answer = tpm.run(UNSEAL, (handle,), b"", authorization)
    with tpm.response.part(answer.start, answer.size) as parameters:
        policy.verify(UNSEAL, parameters, answer.authorization, session.ENCRYPT, auth)
        size = int.from_bytes(parameters.view[:2], "big")
        if (answer.size, size) != (34, 32):
            raise RefusedError(f"the sealed object holds {size} bytes, not 32", tampered=True)
        identity = Identity(32)
        libc.copy(identity.address, parameters.address + 2, 32)
    policy.cipher(identity.address, 32, auth, encrypt=False)
    return identity


def active_banks(tpm: Tpm, pcr: int) -> tuple[str, ...]:
    """Return the banks that hold a PCR and whose algorithm we know (TPM2_GetCapability, §30.2)."""
    answer = tpm.run(_GET_CAPABILITY, (), u32(_CAP_PCRS) + u32(0) + u32(1))
    reader = tpm.public(answer, "GetCapability")
    reader.take(5)  # more data, which cannot be; capability
    selections = banks.read_selections(reader)
    reader.finish()
    return tuple(banks.NAMES[algorithm] for algorithm, pcrs in selections if pcr in pcrs and algorithm in banks.NAMES)


def lockout_state(tpm: Tpm) -> tuple[int, int, int] | None:
    """Return how many wrong PINs are counted, how many lock, and the seconds until one is forgotten."""
    answer = tpm.run(_GET_CAPABILITY, (), u32(_CAP_PROPERTIES) + u32(_LOCKOUT_COUNTER) + u32(3))
    reader = tpm.public(answer, "GetCapability")
    reader.take(5)
    found = {}
    for _ in range(reader.count(64)):
        name = reader.u32()
        found[name] = reader.u32()
    counted, most, interval = (found.get(_LOCKOUT_COUNTER + offset) for offset in range(3))
    return None if counted is None or most is None or interval is None else (counted, most, interval)


def pcr_read(tpm: Tpm, bank: str, pcrs: Iterable[int]) -> dict[int, bytes]:
    """Return PCR values; those that the bank does not hold are missing (TPM2_PCR_Read, §22.4).

    Nobody vouches for them: they explain, and what counts is decided by the TPM itself.
    """
    wanted = set(pcrs)
    found: dict[int, bytes] = {}
    while wanted:
        reader = tpm.public(tpm.run(_PCR_READ, (), banks.selection(bank, wanted)), "PCR_Read")
        reader.u32()  # update counter
        given = [pcr for _, group in banks.read_selections(reader) for pcr in group]
        values = [reader.sized(64) for _ in range(reader.count(_MAX_DIGESTS))]
        reader.finish()
        if len(given) != len(values) or not wanted.issuperset(given):
            reader.fail("its PCRs are not those that were asked for")
        if not given:
            break
        found |= dict(zip(given, values, strict=True))
        wanted.difference_update(given)
    if any(len(value) != banks.SIZES[bank] for value in found.values()):
        raise RefusedError("the TPM gave PCR values of a wrong size", tampered=True)
    return found


def pcr_extend(tpm: Tpm, pcr: int, digests: dict[str, bytes]) -> None:
    """Extend a PCR by one digest for each bank (TPM2_PCR_Extend, §22.2)."""
    values = b"".join(u16(banks.ALGORITHMS[bank]) + value for bank, value in digests.items())
    tpm.run(_PCR_EXTEND, (pcr,), u32(len(digests)) + values, EMPTY_PASSWORD)
