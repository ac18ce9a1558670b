# SPDX-License-Identifier: Apache-2.0
"""Making what a machine shows to custodians: a sealed TLS key and an attestation key (docs/custodian.md §7).

Only enrolment imports this file.
"""

from __future__ import annotations

import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyquorum.errors import RefusedError
from keyquorum.holders import tpm
from keyquorum.holders.contract import OpenTask, SealTask, Subject
from keyquorum.linux.tpm_device import TpmDevice
from keyquorum.model.holder_options import TpmOptions
from keyquorum.model.machine_identity import MachineIdentity
from keyquorum.native import sodium
from keyquorum.record import Record
from keyquorum.secret import Identity
from keyquorum.tpm2 import commands, endorsement
from keyquorum.tpm2.client import Tpm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.holders.contract import Answers, Tuning
    from keyquorum.tpm2.endorsement import AttestedKeys

_SUBJECT = Subject(volume="machine", set_id=bytes(16), epoch=1, index=1, name="tls")
_PATIENCE = 120.0  # seconds: deriving RSA keys takes some chips half a minute each


class MadeKeys(Record):
    """A machine's keys before any custodian knows them. `tls_key` is its SubjectPublicKeyInfo in DER."""

    identity: MachineIdentity
    tls_key: bytes
    attested: AttestedKeys


def make(tuning: Tuning, answers: Answers, show: Callable[[str], None]) -> MadeKeys:
    """Make a TLS key and seal it; derive the keys that attest. Nothing is written.

    The TLS key is bound to this TPM and to no PCR: what the machine booted is the custodian's to judge, by a quote,
    and an update must not take away the means to be judged. Raises `HolderError` and `UsageError`.
    """
    with sodium.random_secret(Identity, 32) as seed:
        public = Ed25519PrivateKey.from_private_bytes(seed.view).public_key()
        where = tpm.HOLDER.seal(
            SealTask(
                subject=_SUBJECT,
                identity=seed,
                envelope={},
                options=TpmOptions(),
                answers=answers,
                tuning=tuning,
                show=show,
            )
        )
    attested = read_attested(tuning)
    identity = MachineIdentity(key=where, attestation=(attested.ak_kind, sodium.sha256(attested.ak)))
    return MadeKeys(identity=identity, tls_key=_spki(public), attested=attested)


def reopen(tuning: Tuning, answers: Answers, identity: MachineIdentity) -> MadeKeys:
    """Return what is public of keys that this machine has already; raises `HolderError` with another TPM."""
    with _unsealed(tuning, answers, identity) as seed:
        public = Ed25519PrivateKey.from_private_bytes(seed.view).public_key()
    attested = read_attested(tuning)
    if sodium.sha256(attested.ak) != identity.attestation[1]:
        raise RefusedError("this TPM has another attestation key than this machine was enrolled with")
    return MadeKeys(identity=identity, tls_key=_spki(public), attested=attested)


def sign(tuning: Tuning, answers: Answers, identity: MachineIdentity, message: bytes) -> bytes:
    """Sign with the machine's TLS key; raises `HolderError` with another TPM."""
    with _unsealed(tuning, answers, identity) as seed:
        return Ed25519PrivateKey.from_private_bytes(seed.view).sign(message)


def _unsealed(tuning: Tuning, answers: Answers, identity: MachineIdentity) -> Identity:
    deadline = time.monotonic() + _PATIENCE
    task = OpenTask(subject=_SUBJECT, where=identity.key, answers=answers, tuning=tuning, deadline=deadline)
    return tpm.HOLDER.open(task).identity


def activate(tuning: Tuning, keys: AttestedKeys, id_object: bytes, encrypted_secret: bytes) -> bytes:
    """Have the TPM open a custodian's credential."""
    with TpmDevice(tuning.tpm_device, time.monotonic() + _PATIENCE) as device, Tpm(device) as chip:
        return endorsement.activate(chip, keys, id_object, encrypted_secret)


def _spki(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_pcrs(tuning: Tuning, bank: str, pcrs: tuple[int, ...]) -> dict[int, bytes]:
    """Return what these PCRs are now; raises `RefusedError` if the TPM has one of them not in this bank."""
    with TpmDevice(tuning.tpm_device, time.monotonic() + _PATIENCE) as device, Tpm(device) as chip:
        found = commands.pcr_read(chip, bank, pcrs)
    missing = [pcr for pcr in pcrs if pcr not in found]
    if missing:
        raise RefusedError(f"this TPM has no PCR {missing[0]} in its {bank} bank")
    return found


def read_attested(tuning: Tuning) -> AttestedKeys:
    """Return what is public of the keys that attest."""
    with TpmDevice(tuning.tpm_device, time.monotonic() + _PATIENCE) as device, Tpm(device) as chip:
        return endorsement.read_keys(chip)
