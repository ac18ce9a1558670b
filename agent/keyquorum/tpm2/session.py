# SPDX-License-Identifier: Apache-2.0
"""Sessions salted to a pinned storage root key: key derivation, HMACs, parameter encryption (docs/holders-tpm.md §3).

The salt can be read only by the TPM that holds the private part of the pinned key. Whoever sits between us and that
TPM learns no session key, so it can neither read what is unsealed nor forge an answer (Part 1 §19, §21).
"""

from __future__ import annotations

import os

from keyquorum.errors import RefusedError
from keyquorum.native import crypto, libc, sodium
from keyquorum.secret import Secret
from keyquorum.tpm2.wire import AES, CFB, SHA256, Reader, sized, u16, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.tpm2.public import StorageKey

HMAC_SESSION, POLICY_SESSION = 0, 1  # TPM_SE (Part 2 §6.11)
SYMMETRIC = u16(AES) + u16(128) + u16(CFB)
DECRYPT, ENCRYPT = 0x20, 0x40  # TPMA_SESSION (Part 2 §8.4): our first parameter, or the TPM's, is encrypted
_SIZE = 32  # of nonces, keys and digests: everything is SHA-256
_MAX_NONCE = 64


def kdfa(key: Secret, label: bytes, context: bytes) -> Secret:
    """KDFa with SHA-256 for 256 bits (Part 1 §11.4.10.2): one block of SP800-108 in counter mode."""
    mac = sodium.Hmac(key)
    mac.add_public(u32(1) + label + b"\x00" + context + u32(256))
    return mac.finish()


def make_salt(storage_key: StorageKey) -> tuple[Secret, bytes]:
    """Return a fresh salt and its TPM2B_ENCRYPTED_SECRET for the storage key (Part 1, annexes B.10.2 and C.6.4)."""
    if storage_key.kind == "rsa":
        from keyquorum.native import oaep

        salt = Secret(_SIZE)
        fill_random(salt)
        encrypted = oaep.encrypt(storage_key.unique[0], storage_key.exponent, b"SECRET\x00", salt)
        return salt, sized(encrypted)
    x, y = storage_key.unique
    point, shared = crypto.p256_exchange(b"\x04" + x.rjust(_SIZE, b"\x00") + y.rjust(_SIZE, b"\x00"))
    own_x, own_y = point[1:33], point[33:]
    with shared:  # KDFe (Part 1 §11.4.10.3)
        salt = crypto.digest(b"SHA256", _SIZE, u32(1), shared, b"SECRET\x00", own_x, x)
    return salt, sized(sized(own_x) + sized(own_y))


def fill_random(secret: Secret) -> None:
    """Fill a secret with random bytes from the kernel, without a Python object in between."""
    descriptor = os.open("/dev/urandom", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.readv(descriptor, [secret.view])
    finally:
        os.close(descriptor)


class Session:
    """One HMAC or policy session that is used for one authorised command; `wipe` it after that."""

    def __init__(self, handle: int, salt: Secret, nonce_caller: bytes, nonce_tpm: bytes) -> None:
        self.handle, self._nonce_tpm, self._nonce_caller = handle, nonce_tpm, nonce_caller
        self._key = kdfa(salt, b"ATH", nonce_tpm + nonce_caller)

    def wipe(self) -> None:
        """Forget the session key."""
        self._key.wipe()

    def _value(self, auth: Secret | None) -> Secret:
        """Return the session key followed by the authorisation value of the object used (Part 1 §19.6.5, §21.2)."""
        value = Secret(_SIZE + (auth.size if auth else 0))
        libc.copy(value.address, self._key.address, _SIZE)
        if auth is not None:
            libc.copy(value.address + _SIZE, auth.address, auth.size)
        return value

    def _hmac(self, message: bytes, auth: Secret | None) -> Secret:
        with self._value(auth) as key:
            mac = sodium.Hmac(key)
        mac.add_public(message)
        return mac.finish()

    def renew(self) -> None:
        """Choose the nonce of the next command."""
        self._nonce_caller = os.urandom(_SIZE)

    def authorize(
        self, command: int, names: bytes, parameters: bytes, attributes: int, auth: Secret | None = None
    ) -> bytes:
        """Return the TPMS_AUTH_COMMAND for a command; `names` are those of its handles (Part 1 §18.7, §19.6.5).

        `auth` is the object's authorisation value where the session has to prove that it is known.
        """
        command_hash = sodium.sha256(u32(command) + names + parameters)
        tail = self._nonce_caller + self._nonce_tpm + bytes((attributes,))
        with self._hmac(command_hash + tail, auth) as tag:
            return u32(self.handle) + sized(self._nonce_caller) + bytes((attributes,)) + sized(bytes(tag.view))

    def verify(
        self, command: int, parameters: Secret, answer: bytes, attributes: int, auth: Secret | None = None
    ) -> None:
        """Check the TPMS_AUTH_RESPONSE over the answer's parameters (Part 1 §18.8); raises `RefusedError`."""
        reader = Reader(answer, "the TPM's authorisation")
        nonce, echoed, tag = reader.sized(_MAX_NONCE), reader.u8(), reader.sized(_SIZE)
        reader.finish()
        response_hash = sodium.sha256_over_secret(u32(0) + u32(command), parameters)
        message = response_hash + nonce + self._nonce_caller + bytes((echoed,))
        with self._hmac(message, auth) as wanted, Secret.from_view(tag) as found:
            if echoed & attributes != attributes or not wanted.equals(found):
                raise RefusedError("the TPM's answer was altered on its way: its HMAC is wrong", tampered=True)
        self._nonce_tpm = nonce

    def cipher(self, address: int, size: int, auth: Secret | None = None, *, encrypt: bool) -> None:
        """Encrypt our first parameter, or decrypt the TPM's, in place by AES-128-CFB (Part 1 §21.3).

        The newer nonce comes first: ours before a command, the TPM's after `verify`.
        """
        newer, older = (self._nonce_caller, self._nonce_tpm) if encrypt else (self._nonce_tpm, self._nonce_caller)
        with (
            self._value(auth) as value,
            kdfa(value, b"CFB", newer + older) as derived,
            derived.part(0, 16) as key,
            derived.part(16, 16) as iv,
        ):
            crypto.aes128_cfb(key, iv, address, size, encrypt=encrypt)


def start_parameters(storage_key: StorageKey, kind: int) -> tuple[Secret, bytes, bytes]:
    """Return salt, our first nonce, and the parameters of TPM2_StartAuthSession (Part 3 §11.1)."""
    salt, encrypted = make_salt(storage_key)
    nonce = os.urandom(_SIZE)
    return salt, nonce, sized(nonce) + encrypted + bytes((kind,)) + SYMMETRIC + u16(SHA256)
