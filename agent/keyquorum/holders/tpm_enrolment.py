# SPDX-License-Identifier: Apache-2.0
"""Sealing an identity to this machine's TPM (docs/holders-tpm.md §2). Only enrolment imports this file."""

from __future__ import annotations

import os
import time

from keyquorum.errors import KeyquorumError, MalformedError, RefusedError, UsageError
from keyquorum.evidence import event_log
from keyquorum.holders import tpm_facts
from keyquorum.holders.tpm_pin import pin_value
from keyquorum.holders.tpm_where import SALT_SIZE, Facts, SignedPolicy, Where
from keyquorum.linux import measurement_log, platform_facts
from keyquorum.linux.tpm_device import TpmDevice
from keyquorum.native import sodium
from keyquorum.secret import Secret
from keyquorum.tpm2 import commands, creation, policy, public
from keyquorum.tpm2.client import Tpm
from keyquorum.tpm2.response_error import ResponseError
from keyquorum.tpm2.wire import SRK_HANDLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.holders.contract import SealTask
    from keyquorum.model.holder_options import TpmOptions
    from keyquorum.tpm2.public import StorageKey

_PATIENCE = 120.0  # deriving an RSA storage key takes some chips half a minute
_MAX_PEM = 64 * 1024


def seal(task: SealTask) -> Where:
    """Seal `task.identity` under the storage root key, bound as the policy says.

    Raises `UsageError` for a policy that this machine or TPM does not fit, `HolderError` when the TPM says no.
    """
    options: TpmOptions = task.options
    signed = _signer(options)
    if options.facts and options.facts_pcr in options.signed_pcrs:
        raise UsageError(
            f"facts_pcr {options.facts_pcr} is among signed_pcrs: what keyquorum measures there, nobody signs"
        )
    with TpmDevice(task.tuning.tpm_device, time.monotonic() + _PATIENCE) as device, Tpm(device) as tpm:
        if signed is not None:
            tpm.flush(commands.load_signer(tpm, signed.signer))  # a TPM that cannot use the key says so now
        facts = _measure_facts(tpm, options)
        values = _read_pcrs(tpm, options, task.show)
        parent = _provide_storage_key(tpm, task.show)
        unsealed = Where(
            srk=parent[1].name[2:],
            srk_kind=parent[1].kind,
            public=b"",
            private=b"",
            bank=options.bank,
            pcrs=values,
            signed=signed,
            facts=facts,
            salt=os.urandom(SALT_SIZE) if options.pin else b"",
        )
        try:
            where = _seal_below(tpm, parent, task, unsealed)
        finally:
            if parent[0] != SRK_HANDLE:
                tpm.flush(parent[0])
    if where.pcrs:
        _keep_event_log(task)
    return where


def _seal_below(tpm: Tpm, parent: tuple[int, StorageKey], task: SealTask, where: Where) -> Where:
    """Make the sealed object and return `where` with it."""
    signer = public.name(where.signed.signer) if where.signed else b""
    digest = policy.sealing_policy(signer, where.bank, where.bound(), pin=bool(where.salt))
    template = public.sealed_template(digest, lockout=bool(where.salt))
    if where.salt:
        with _new_pin(task) as pin, pin_value(pin, where.salt) as auth:
            private, area = creation.create_sealed(tpm, parent, task.identity, auth, template)
    else:
        private, area = creation.create_sealed(tpm, parent, task.identity, None, template)
    public.check_sealed(area, digest, lockout=bool(where.salt))
    return where.with_(public=area, private=private)


def _new_pin(task: SealTask) -> Secret:
    pin = task.answers.ask_new(task.subject.name, f"new PIN of the TPM for {task.subject.name}")
    if not pin.size:
        pin.wipe()
        raise UsageError("an empty PIN is none", "leave out pin = true in the policy if nobody is to be asked")
    return pin


def _provide_storage_key(tpm: Tpm, show: Callable[[str], None]) -> tuple[int, StorageKey]:
    """Return handle and public part of the storage root key, made and kept if the TPM has none yet.

    A key of another kind at the usual handle is left alone: ours is then derived at every unlock.
    """
    area = commands.read_storage_root_key(tpm)
    if area is not None:
        try:
            return SRK_HANDLE, public.parse_storage_key(area)
        except RefusedError:
            show(f"the key at {SRK_HANDLE:#x} in the TPM is no storage root key that fits; another one is derived")
    try:
        handle, made = commands.create_primary(tpm, public.SRK_TEMPLATES["ecc"])
    except ResponseError:  # no P-256 in this chip
        handle, made = commands.create_primary(tpm, public.SRK_TEMPLATES["rsa"])
    storage_key = public.parse_storage_key(made)
    if area is not None:
        return handle, storage_key
    try:
        creation.persist_storage_root_key(tpm, handle)
    except ResponseError as error:
        show(f"the storage root key could not be kept in the TPM and is derived at every unlock: {error.message}")
        return handle, storage_key
    tpm.flush(handle)
    return SRK_HANDLE, storage_key


def _measure_facts(tpm: Tpm, options: TpmOptions) -> Facts | None:
    """Measure the facts as an unlock would, so that a clash over the PCR shows now and not at the next boot."""
    if not options.facts:
        return None
    values = platform_facts.read(options.facts)
    for name, value in values.items():
        if not value:
            raise UsageError(f"this machine does not tell its {name}", "leave it out of the policy's facts")
    tpm_facts.measure(tpm, options.bank, options.facts_pcr, values)
    return Facts(pcr=options.facts_pcr, values=values)


def _read_pcrs(tpm: Tpm, options: TpmOptions, show: Callable[[str], None]) -> dict[int, bytes]:
    values = commands.pcr_read(tpm, options.bank, options.pcrs) if options.pcrs else {}
    for pcr in options.pcrs:
        if pcr not in values:
            active = ", ".join(commands.active_banks(tpm, pcr)) or "none"
            raise UsageError(f"this TPM has no PCR {pcr} in its {options.bank} bank", f"banks that have it: {active}")
        if not values[pcr].strip(b"\x00") or not values[pcr].strip(b"\xff"):
            show(f"PCR {pcr} holds nothing: this machine measures nothing into it, so binding to it protects nothing")
    return dict(sorted(values.items()))


def _signer(options: TpmOptions) -> SignedPolicy | None:
    """Read the public key that may sign PCR policies."""
    if not options.public_key:
        return None
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    try:
        with open(options.public_key, "rb") as file:
            pem = file.read(_MAX_PEM)
    except OSError as error:
        raise UsageError(f"{options.public_key} cannot be read: {error.strerror}") from None
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise MalformedError(options.public_key, "", "is no public key in PEM") from None
    if not isinstance(key, RSAPublicKey) or key.key_size not in {2048, 3072, 4096}:
        raise MalformedError(
            options.public_key, "", "is no RSA key of 2048, 3072 or 4096 bits, as systemd-measure uses"
        )
    numbers = key.public_numbers()
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)  # as systemd hashes it
    return SignedPolicy(
        pcrs=options.signed_pcrs,
        signer=public.rsa_signer(numbers.n.to_bytes(key.key_size // 8, "big"), numbers.e),
        fingerprint=sodium.sha256(encoded),
    )


def _keep_event_log(task: SealTask) -> None:
    """Keep the firmware's log of this boot, so that a later refusal can name the event that differs."""
    content = measurement_log.read(measurement_log.FIRMWARE_LOG, event_log.MAX_LOG)
    if not content:
        return
    tuning, subject = task.tuning, task.subject
    try:
        path = measurement_log.reference_path(tuning.reference_directory, subject.volume, subject.name)
        measurement_log.store(path, content[: event_log.MAX_LOG])
    except KeyquorumError as error:
        task.show(f"refusals will name PCRs but no events: {error.message}")
