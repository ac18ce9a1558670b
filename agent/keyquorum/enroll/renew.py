# SPDX-License-Identifier: Apache-2.0
"""Renewing this machine's certificates at its custodians (docs/custodian.md §11.4)."""

from __future__ import annotations

from keyquorum.enroll import machine_file
from keyquorum.enroll.machine import ask_without_certificate, checked_certificate, read_certificate
from keyquorum.errors import KeyquorumError
from keyquorum.holders import machine_keys
from keyquorum.holders.custodian_exchange import load_identity
from keyquorum.holders.custodian_where import Where
from keyquorum.linux import atomic_file
from keyquorum.model import enrolment_messages, renewal_messages
from keyquorum.model.renewal_messages import Renewal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.enroll.machine import Certificate
    from keyquorum.enroll.request import Machine
    from keyquorum.model.machine_identity import KnownCustodian, MachineIdentity

_PATH = "/v1/renew"


def renew_machine(machine: Machine) -> tuple[tuple[str, ...], tuple[KeyquorumError, ...]]:
    """Renew what is due; return the custodians that renewed, and what went wrong with the others.

    Each renewal is on the disk before the next one is asked for. Raises `UnavailableError` for a machine that was never
    enrolled.
    """
    renewed, problems = [], list[KeyquorumError]()
    for name, _ in load_identity(machine.tuning.machine).custodians:
        try:
            with machine_file.alone(machine.tuning.machine):
                if _renew(machine, name):
                    renewed.append(name)
        except KeyquorumError as problem:  # whatever one custodian makes of its answer, the others are asked
            problems.append(problem)
    return tuple(renewed), tuple(problems)


def _renew(machine: Machine, name: str) -> bool:
    """Renew at one custodian, if it is time; say whether it was."""
    identity = load_identity(machine.tuning.machine)
    known = identity.custodian(name)
    if known is None or not _own(known).due():
        return False
    fresh = identity.knowing(name, _renewed(machine, identity, name, known))
    machine_file.note_image(machine.tuning.machine)
    atomic_file.write(machine.tuning.machine, fresh.to_json() + b"\n")
    return True


def _own(known: KnownCustodian) -> Certificate:
    """Read what this machine shows; raises `TamperingError`, for whoever wrote the file had read it."""
    return read_certificate(known.chain[0], "the machine's file")


def _renewed(machine: Machine, identity: MachineIdentity, name: str, known: KnownCustodian) -> KnownCustodian:
    where = Where(
        custodian=name,
        key=known.key,
        authority=known.authority,
        addresses=known.addresses,
        bank="sha256",
        pcrs=(),
    )
    payload = renewal_messages.renewal_payload(Renewal(custodian=name, certificate=known.chain[0]))
    message = renewal_messages.signed_message(payload)
    signature = machine_keys.sign(machine.tuning, machine.answers, identity, message)
    body = renewal_messages.renewal_body(payload, signature)
    answer = ask_without_certificate(where, _PATH, body, enrolment_messages.CERTIFICATE_TYPE)
    given = enrolment_messages.parse_certificate(answer, name, known.machine)
    return known.with_(chain=(given.certificate,), expires=checked_certificate(given, _own(known).key))
