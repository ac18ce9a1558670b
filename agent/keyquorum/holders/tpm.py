# SPDX-License-Identifier: Apache-2.0
"""Holder `tpm`: the identity sealed under the storage root key of this machine's TPM (docs/holders-tpm.md)."""

from __future__ import annotations

from keyquorum.errors import HolderError, KeyquorumError, RefusedError, TamperingError, UnavailableError
from keyquorum.holders import tpm_where
from keyquorum.holders.contract import Held, OpenTask, SealTask
from keyquorum.linux.tpm_device import TpmDevice
from keyquorum.native import sodium
from keyquorum.secret import Secret
from keyquorum.tpm2 import commands, policy, public, session
from keyquorum.tpm2.client import Tpm
from keyquorum.tpm2.response_error import AUTH_FAIL, BAD_AUTH, PCR_CHANGED, POLICY_FAIL, VALUE, ResponseError
from keyquorum.tpm2.wire import SRK_HANDLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from keyquorum.holders.tpm_where import Where
    from keyquorum.secret import Identity
    from keyquorum.tpm2.public import StorageKey
    from keyquorum.tpm2.session import Session

_ATTEMPTS = 2  # a PCR may be extended by somebody else while we ask


class TpmHolder:
    """See the contract in `holders.contract`."""

    keeps_envelope = False

    def needs_person(self, where: Mapping[str, Any]) -> bool:
        """A TPM asks for a PIN if one was set."""
        return "pin" in where

    def seal(self, task: SealTask) -> dict[str, Any]:
        """Seal the identity; the TPM keeps nothing but its storage root key."""
        from keyquorum.holders.tpm_enrolment import seal

        return seal(task).to_json()

    def open(self, task: OpenTask) -> Held:
        """Unseal the identity."""
        try:
            where = tpm_where.parse(task.where)
            with TpmDevice(task.tuning.tpm_device, task.deadline) as device, Tpm(device) as tpm:
                return Held(identity=_open(tpm, where, task))
        except HolderError:
            raise
        except TamperingError as error:
            raise RefusedError(error.message, error.hint, tampered=True) from None
        except KeyquorumError as error:
            raise UnavailableError(error.message, error.hint) from None

    def erase(self, _task: OpenTask) -> None:
        """Nothing to forget: what the TPM sealed is in the set."""

    def retire(self, _task: OpenTask) -> None:
        """Nothing to forget."""


def _open(tpm: Tpm, where: Where, task: OpenTask) -> Identity:
    """The unlock, step by step (docs/holders-tpm.md §3)."""
    signer = public.name(where.signed.signer) if where.signed else b""
    digest = policy.sealing_policy(signer, where.bank, where.bound(), pin=bool(where.salt))
    public.check_sealed(where.public, digest, lockout=bool(where.salt))
    handle, storage_key = _find_storage_key(tpm, where)
    unlock = _Unlock(tpm, where, task, handle, storage_key)
    try:
        if where.facts is not None:
            from keyquorum.holders.tpm_facts import measure_enrolled

            measure_enrolled(tpm, where.bank, where.facts)
        if not where.salt:
            return unlock.unseal(None)
        with _ask_pin(tpm, where, task) as auth:
            return unlock.unseal(auth)
    finally:
        if handle != SRK_HANDLE:
            tpm.flush(handle)


def _find_storage_key(tpm: Tpm, where: Where) -> tuple[int, StorageKey]:
    """Return handle and public part of the pinned storage root key; raises `RefusedError` on another TPM.

    The key itself decides and not where it lies: it is at the usual handle, or derived anew from the TPM's seed.
    """
    area = commands.read_storage_root_key(tpm)
    if area is not None and sodium.sha256(area) == where.srk:
        return SRK_HANDLE, public.parse_storage_key(area)
    handle, area = commands.create_primary(tpm, public.SRK_TEMPLATES[where.srk_kind])
    if sodium.sha256(area) == where.srk:
        return handle, public.parse_storage_key(area)
    tpm.flush(handle)
    raise RefusedError(
        f"this is another TPM, or it was cleared: its storage root key is {sodium.sha256(area).hex()[:16]}…,"
        f" enrolled was {where.srk.hex()[:16]}…",
        "enrol this TPM again; until then the other holders open the volume",
    )


def _ask_pin(tpm: Tpm, where: Where, task: OpenTask) -> Secret:
    """Return the authorisation value for the PIN, asked for only when the TPM would accept it."""
    from keyquorum.holders import tpm_refusal
    from keyquorum.holders.tpm_pin import pin_value

    tpm_refusal.check_lockout(tpm)
    tpm_refusal.check_pcrs(tpm, where, task)
    with task.answers.ask(task.subject.name, f"PIN of the TPM for {task.subject.name}") as pin:
        return pin_value(pin, where.salt)


class _Unlock:
    """One TPM, one sealed object, and the storage key above it, loaded at `parent`."""

    def __init__(self, tpm: Tpm, where: Where, task: OpenTask, parent: int, storage_key: StorageKey) -> None:
        self._tpm, self._where, self._task, self._parent, self._storage_key = tpm, where, task, parent, storage_key

    def unseal(self, auth: Secret | None) -> Identity:
        """Satisfy the policy and unseal; once more if somebody extended a PCR in between."""
        for attempts_left in range(_ATTEMPTS - 1, -1, -1):
            try:
                return self._attempt(auth)
            except ResponseError as error:
                if error.code != PCR_CHANGED or not attempts_left:
                    raise self._explain(error) from None
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, auth: Secret | None) -> Identity:
        tpm, where = self._tpm, self._where
        policy_session = commands.start_session(tpm, self._parent, self._storage_key, session.POLICY_SESSION)
        try:
            self._satisfy(policy_session)
            # Last of all: the kernel's resource manager swaps loaded objects out and in around each command.
            handle = commands.load(tpm, self._parent, where.private, where.public)
            try:
                return commands.unseal(tpm, handle, public.name(where.public), policy_session, auth)
            finally:
                tpm.flush(handle)
        except HolderError:
            tpm.flush(policy_session.handle)
            raise
        finally:
            policy_session.wipe()

    def _satisfy(self, policy_session: Session) -> None:
        """Bring the session's policy to the sealed object's, in the order of `policy.sealing_policy`."""
        tpm, where = self._tpm, self._where
        if where.signed is not None:
            from keyquorum.holders.tpm_signatures import authorize

            commands.policy_pcr(tpm, policy_session, where.bank, where.signed.pcrs, b"")
            authorize(tpm, where.signed, where.bank, self._task.tuning.pcr_signatures, policy_session)
        bound = where.bound()
        if bound:
            commands.policy_pcr(tpm, policy_session, where.bank, bound, policy.pcr_digest(bound))
        if where.salt:
            commands.policy_auth_value(tpm, policy_session)

    def _explain(self, error: ResponseError) -> HolderError:
        """Return the refusal to raise for what the TPM answered, in words (I8)."""
        from keyquorum.holders import tpm_refusal

        wrong_value = error.code in {AUTH_FAIL, BAD_AUTH}
        if error.command == commands.LOAD and not wrong_value:
            return RefusedError(f"the sealed object was altered: {error.message}", tampered=True)
        if error.command == commands.UNSEAL and wrong_value and self._where.salt:
            return tpm_refusal.wrong_pin(self._tpm)
        if error.command == commands.UNSEAL and wrong_value:
            return RefusedError("the TPM got another command than was sent: its HMAC was wrong there", tampered=True)
        if error.code in {VALUE, POLICY_FAIL, PCR_CHANGED}:
            return tpm_refusal.of_policy(error, self._tpm, self._where, self._task)
        return error


HOLDER = TpmHolder()
