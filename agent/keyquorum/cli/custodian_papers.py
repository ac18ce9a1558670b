# SPDX-License-Identifier: Apache-2.0
"""What an owner lays down at custodians, read from files and signed (docs/custodian.md §5; docs/attestation.md §8)."""

from __future__ import annotations

import tomllib

from keyquorum import speech
from keyquorum.custodian import policy_format
from keyquorum.errors import MalformedError, TamperingError, UsageError
from keyquorum.evidence import reference_values
from keyquorum.holders import enclave_enrolment, enclave_where
from keyquorum.holders.contract import Papers
from keyquorum.model import strict_json
from keyquorum.model.holder_options import CustodianOptions, EnclaveOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.envelope.signing import Owner
    from keyquorum.evidence.reference_values import ReferenceValues
    from keyquorum.model.policy import Policy

_MAX_FILE = 64 * 1024


def refuse_unreadable(policy: Policy, volume: str) -> None:
    """Read the files of every custodian before anything changes; raises `MalformedError` or `UsageError`."""
    for spec in policy.holders:
        if isinstance(spec.options, CustodianOptions):
            release = policy_format.parse(_release(spec.options.release), MalformedError)
            if volume and volume not in release.volumes:
                raise UsageError(f"{spec.options.release} is not for volume {volume}", f'add "{volume}" to its volumes')
            _reference(spec.options.reference)
            if isinstance(spec.options, EnclaveOptions):
                enclave_enrolment.read(spec.options)
                if spec.options.test_roots:
                    speech.warn(f"{spec.holder} will be {enclave_where.LOUD}: {spec.options.test_roots}")


def sign(policy: Policy, owner: Owner) -> tuple[tuple[str, Papers], ...]:
    """Return the signed papers of each custodian, by the holder's name."""
    found = {}
    for spec in policy.holders:
        if isinstance(spec.options, CustodianOptions):
            payload, values = _reference(spec.options.reference)
            found[spec.holder] = Papers(
                release=owner.sign(policy_format.POLICY_TYPE, _release(spec.options.release)),
                reference=owner.sign(reference_values.REFERENCE_TYPE, payload),
                bank=values.bank,
                pcrs=values.selection,
            )
    return tuple(found.items())


def _release(path: str) -> bytes:
    """Read a release policy in TOML; return what is signed."""
    try:
        return policy_format.payload_of(tomllib.loads(_text(path)))
    except tomllib.TOMLDecodeError as error:
        raise MalformedError(path, "", f"not TOML: {error}") from None
    except MalformedError as error:
        raise MalformedError(path, error.where, error.problem, error.hint) from None


def _reference(path: str) -> tuple[bytes, ReferenceValues]:
    """Read reference values in JSON; return what is signed, and what it says."""
    payload = strict_json.serialise(strict_json.parse(_text(path).encode(), path, _MAX_FILE, MalformedError))
    try:
        return payload, reference_values.parse(payload)
    except TamperingError as error:
        raise MalformedError(path, error.where, error.problem, error.hint) from None


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > _MAX_FILE:
        raise MalformedError(path, "", f"is larger than {_MAX_FILE} bytes")
    return data.decode("utf-8", "replace")
