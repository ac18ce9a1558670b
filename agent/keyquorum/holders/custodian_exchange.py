# SPDX-License-Identifier: Apache-2.0
"""One request to a custodian, step by step (docs/custodian.md §3, §7).

1 unseal this machine's TLS key       4 make a one-time key; the question that binds both
2 connect; both sides show who they are   5 quote with the question
3 ask for a challenge                 6 ask for the release, open it with the one-time key
"""

from __future__ import annotations

import time

from keyquorum.envelope import hpke, one_time_key
from keyquorum.errors import HolderError, KeyquorumError, RefusedError, UnavailableError
from keyquorum.evidence.binding import Binding, qualifying_data
from keyquorum.holders import custodian_answer, tpm
from keyquorum.holders.custodian_call import call
from keyquorum.linux import atomic_file, boot_network, measurement_log, tls_connection
from keyquorum.linux.tpm_device import TpmDevice
from keyquorum.model import machine_identity
from keyquorum.model import release_messages as messages
from keyquorum.model.fragment_name import FragmentName
from keyquorum.model.network_address import VSOCK
from keyquorum.model.release_messages import ReleaseRequest, TpmEvidence
from keyquorum.native.tls import Context
from keyquorum.secret import Identity
from keyquorum.tpm2 import attestation
from keyquorum.tpm2.client import Tpm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.envelope.one_time_key import OneTimeKey
    from keyquorum.holders.contract import OpenTask, Subject
    from keyquorum.holders.custodian_where import Where
    from keyquorum.linux.tls_connection import Connection, Patience
    from keyquorum.model.machine_identity import MachineIdentity
    from keyquorum.model.release_messages import Released

    Prove = Callable[[Connection, MachineIdentity, Patience], None]

_INFO = b"keyquorum/v1/release\x00"
_MAX_EVENT_LOG = 44 * 1024  # of a request; a larger log is left out, and the custodian says if it wanted one
_RENEW = "open the volume otherwise, then: keyquorum machine renew"
_ENROL = "enrol this machine there: keyquorum machine enroll --invitation FILE"


def load_identity(path: str) -> MachineIdentity:
    """Read what this machine knows of itself; raises `UnavailableError` when it was never enrolled."""
    data = atomic_file.read(path, machine_identity.MAX_FILE)
    if not data:
        raise UnavailableError(f"this machine is enrolled at no custodian: there is no {path}", _ENROL)
    return machine_identity.parse(data, path)


def no_proof(_connection: Connection, _machine: MachineIdentity, _patience: Patience) -> None:
    """Demand nothing of a custodian beyond its certificate and its signature."""


def ask(where: Where, task: OpenTask, patience: Patience, prove: Prove = no_proof) -> Identity:
    """Return the fragment's identity; raises `HolderError`, `TamperingError` or `TimeoutError`.

    `prove` has the custodian prove what it is before anything of this machine is sent.
    """
    machine = load_identity(task.tuning.machine)
    try:
        with connect(where, task, machine, patience) as connection:
            prove(connection, machine, patience)
            return _exchange(connection, where, task, machine, patience)
    except UnavailableError as error:
        known = machine.custodian(where.custodian)
        if known is not None and known.expires and time.time() >= known.expires:  # TLS often only ends, without a word
            error.message += "; by this machine's clock its certificate there is over"
            error.hint = _RENEW
        raise


def connect(where: Where, task: OpenTask, machine: MachineIdentity, patience: Patience) -> Connection:
    """Unseal the TLS key and reach the custodian; the key is wiped before this returns."""
    known = machine.custodian(where.custodian)
    if known is None:
        raise UnavailableError(f"this machine is not enrolled at {where.custodian}", _ENROL)
    near = tuple(endpoint for endpoint in where.addresses if endpoint.kind == VSOCK)
    far = tuple(endpoint for endpoint in where.addresses if endpoint.kind != VSOCK)
    if far and near:  # what needs no network is not kept waiting for it; this is asked again when that is up
        boot_network.begin()
    elif far:
        boot_network.ensure(patience)
    try:
        key = tpm.HOLDER.open(task.with_(where=machine.key)).identity
    except HolderError as error:
        error.message = f"this machine's key for custodians: {error.message}"
        raise
    with key, Context(where.authority, known.chain, key) as context:
        return tls_connection.connect(near + far, context, where.custodian, patience)


def _exchange(
    connection: Connection, where: Where, task: OpenTask, machine: MachineIdentity, patience: Patience
) -> Identity:
    wanted = fragment_of(task.subject)
    answer = call(connection, where.custodian, "/v1/challenge", messages.challenge_request(wanted), patience)
    challenge = custodian_answer.read_challenge(answer, where, wanted)
    key = one_time_key.make()
    try:
        question = _question(where, wanted, challenge.nonce, key)
        request = ReleaseRequest(
            nonce=challenge.nonce,
            fragment=wanted,
            kem=key.kem,
            key=key.public,
            evidence=_evidence(where, task, machine, question),
        )
        answer = call(connection, where.custodian, "/v1/release", messages.release_request(request), patience)
        return _open(custodian_answer.read_release(answer, where, question), key, question)
    finally:
        key.close()


def fragment_of(subject: Subject) -> FragmentName:
    """Return the name by which custodians know a fragment."""
    return FragmentName(volume=subject.volume, set_id=subject.set_id, epoch=subject.epoch, index=subject.index)


def _question(where: Where, wanted: FragmentName, nonce: bytes, key: OneTimeKey) -> bytes:
    return qualifying_data(
        Binding(
            nonce=nonce,
            verifier=where.custodian,
            volume=wanted.volume,
            set_id=wanted.set_id,
            index=wanted.index,
            epoch=wanted.epoch,
            key=key.public,
        )
    )


def _evidence(where: Where, task: OpenTask, machine: MachineIdentity, question: bytes) -> TpmEvidence:
    with TpmDevice(task.tuning.tpm_device, task.deadline) as device, Tpm(device) as chip:
        handle = attestation.load_key(chip, *machine.attestation)
        try:
            quote = attestation.quote(chip, handle, question, where.bank, where.pcrs)
        finally:
            chip.flush(handle)
    log = measurement_log.read(measurement_log.FIRMWARE_LOG, _MAX_EVENT_LOG) or b""
    return TpmEvidence(
        attest=quote.attest,
        signature=quote.signature,
        pcrs=quote.pcrs,
        log=log if len(log) <= _MAX_EVENT_LOG else b"",
    )


def _open(released: Released, key: OneTimeKey, question: bytes) -> Identity:
    try:
        opened = hpke.open_sealed(key.kem, key.identity, released.enc, released.ciphertext, _INFO + question)
    except KeyquorumError as error:
        raise RefusedError(f"what was released does not open: {error.message}", tampered=True) from None
    with opened:
        if opened.size != 32:
            raise RefusedError(f"what was released has {opened.size} bytes, not 32", tampered=True)
        return Identity.from_view(opened.view)
