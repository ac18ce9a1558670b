# SPDX-License-Identifier: Apache-2.0
"""The key that deposits are sealed to, and the three places where it may be kept (docs/custodian.md §11.1).

It is an identity like that of a fragment, so a TPM or a token keeps it as it keeps one. Deposits are opened with
`cryptography`, which brings its own OpenSSL: X-Wing works here whatever the system has.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke as pyca
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from keyquorum.envelope import recipient_key
from keyquorum.envelope.hpke import X_WING
from keyquorum.envelope.sealing import Recipient
from keyquorum.errors import KeyquorumError, MalformedError, RefusedError, UsageError
from keyquorum.holders import pkcs11, tpm
from keyquorum.holders.contract import OpenTask, SealTask, Subject
from keyquorum.linux import atomic_file
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields
from keyquorum.model.holder_options import Pkcs11Options, TpmOptions
from keyquorum.native import crypto, sodium
from keyquorum.secret import Identity, Secret, wipe_bytes
from keyquorum.tpm2.session import fill_random

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from keyquorum.holders.contract import Answers, Holder, Tuning
    from keyquorum.model.deposit_messages import SealedIdentity

FILE, TPM, TOKEN = "file", "tpm", "pkcs11"
KINDS = (FILE, TPM, TOKEN)
NAME = "sealing-key"  # by which a PIN is asked for: the credential keyquorum.sealing-key
VERSION = 1
SIZE = 32
_MAX_FILE = 16 * 1024
_PATIENCE = 120.0  # seconds: a TPM may derive its storage key anew
_ENROLMENT = b"keyquorum/v1/enrolment"
_HOLDERS: Mapping[str, Holder] = {TPM: tpm.HOLDER, TOKEN: pkcs11.HOLDER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where the key's parts are and who answers for it: the descriptor's path, PINs, the machine's settings."""

    path: str
    origin: str
    answers: Answers
    tuning: Tuning


class SealingKey:
    """The open key. Its seed is in protected memory until `wipe`."""

    def __init__(self, seed: Identity) -> None:
        self._seed = seed
        self.recipient = Recipient.of(seed, X_WING)
        with sodium.hkdf_extract(b"", seed) as extracted:
            self._enrolment = sodium.hkdf_expand(extracted, _ENROLMENT, SIZE)

    @property
    def public(self) -> bytes:
        """The public key, SubjectPublicKeyInfo in DER."""
        return recipient_key.encode(self.recipient)

    def open(self, sealed: SealedIdentity, info: bytes) -> Identity:
        """Return the identity; raises `RefusedError` if it was not sealed to this key with this `info`."""
        with crypto.digest(b"SHAKE256", 96, self._seed) as seeds:
            first = mlkem.MLKEM768PrivateKey.from_seed_bytes(seeds.view[:64])
            second = x25519.X25519PrivateKey.from_private_bytes(seeds.view[64:])
        suite = pyca.Suite(pyca.KEM.MLKEM768_X25519, pyca.KDF.HKDF_SHA256, pyca.AEAD.CHACHA20_POLY1305)
        try:
            plain = suite.decrypt(
                sealed.enc + sealed.ciphertext, pyca.MLKEM768X25519PrivateKey(first, second), info=info
            )
        except (InvalidTag, ValueError):
            problem = "the identity was not sealed to this custodian for this fragment"
            raise RefusedError(problem, tampered=True) from None
        try:
            if len(plain) != SIZE:
                raise RefusedError(f"what was sealed is no identity but {len(plain)} bytes", tampered=True)
            return Identity.from_view(plain)
        finally:
            wipe_bytes(plain)

    def enrolment_secret(self, payload: bytes) -> bytes:
        """Return the secret for the credential of an enrolment, the same for the same payload."""
        mac = sodium.Hmac(self._enrolment)
        mac.add_public(payload)
        with mac.finish() as found:
            return bytes(found.view)

    def wipe(self) -> None:
        """Forget the key."""
        self._seed.wipe()
        self._enrolment.wipe()


def make(kind: str, uri: str, around: Surroundings) -> SealingKey:
    """Make a key and keep it; raises `UsageError` if there is one already, `KeyquorumError` if it cannot be kept.

    `uri` names the key of a token (RFC 7512). What was kept is opened again before this returns.
    """
    if os.path.exists(around.path):
        raise UsageError(f"{around.path} is there already")
    seed = Identity(SIZE)
    fill_random(seed)
    key = SealingKey(seed)
    table = {
        "version": VERSION,
        "kept": kind,
        "where": {} if kind == FILE else _seal(kind, uri, seed, around),
        "public": strict_json.to_base64(key.public),
    }
    if kind == FILE:
        _write_seed(seed_path(around.path), seed)
    if not atomic_file.create(around.path, strict_json.serialise(table)):
        raise UsageError(f"{around.path} is there already")
    load(around).wipe()
    return key


def load(around: Surroundings) -> SealingKey:
    """Open the key; raises `MalformedError`, or as the holder does (`HolderError`)."""
    path = around.path
    fields = Fields.read(atomic_file.read(path, _MAX_FILE), path, _MAX_FILE, MalformedError)
    fields.version(VERSION)
    kind, where = fields.choice("kept", KINDS), fields.raw_table("where")
    public = fields.data("public")
    fields.finish()
    key = SealingKey(_read_seed(seed_path(path)) if kind == FILE else _open(kind, where, around))
    if key.public != public:
        key.wipe()
        raise KeyquorumError(f"{path}: the key that is kept there is another one than its public key says")
    return key


def _subject(origin: str) -> Subject:
    """Return the name under which a holder keeps the key: it is no fragment, so the volume has no bits set."""
    return Subject(
        volume="00000000-0000-0000-0000-000000000000",
        set_id=sodium.sha256(origin.encode())[:16],
        epoch=1,
        index=1,
        name=NAME,
    )


def _seal(kind: str, uri: str, seed: Identity, around: Surroundings) -> dict[str, Any]:
    task = SealTask(
        subject=_subject(around.origin),
        identity=seed,
        envelope={},
        options=TpmOptions() if kind == TPM else Pkcs11Options(uri=uri),
        answers=around.answers,
        tuning=around.tuning,
        show=lambda _line: None,
    )
    return _HOLDERS[kind].seal(task)


def _open(kind: str, where: dict[str, Any], around: Surroundings) -> Identity:
    task = OpenTask(
        subject=_subject(around.origin),
        where=where,
        answers=around.answers,
        tuning=around.tuning,
        deadline=time.monotonic() + _PATIENCE,
    )
    return _HOLDERS[kind].open(task).identity


def seed_path(descriptor: str) -> str:
    """Return where a key that is a file has its seed."""
    return descriptor.removesuffix(".json") + ".key"


def _write_seed(path: str, seed: Secret) -> None:
    """Write a seed from protected memory, without a Python object in between; never over another one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, seed.view) != seed.size:
                raise KeyquorumError(f"{path} cannot be written whole")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        atomic_file.sync_directory(os.path.dirname(path) or ".")
    except OSError as error:
        raise KeyquorumError(f"{path} cannot be written: {error.strerror}") from None


def _read_seed(path: str) -> Identity:
    seed, room = Identity(SIZE), bytearray(1)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode & 0o777
            got = os.readv(descriptor, [seed.view, room])
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyquorumError(f"{path} cannot be read: {error.strerror}") from None
    if mode & 0o077 or got != SIZE:
        seed.wipe()
        problem = f"is readable by others (mode {mode:o})" if mode & 0o077 else f"has not {SIZE} bytes"
        raise MalformedError(path, "", problem)
    return seed
