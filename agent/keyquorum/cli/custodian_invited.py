# SPDX-License-Identifier: Apache-2.0
"""A volume enrolled by an invitation and nothing else: policy and papers are made here (docs/custodian.md §11.2)."""

from __future__ import annotations

from keyquorum import speech
from keyquorum.custodian import policy_format
from keyquorum.enroll.machine import enroll_machine
from keyquorum.errors import UnavailableError, UsageError
from keyquorum.evidence import reference_values
from keyquorum.holders import machine_keys
from keyquorum.holders.contract import Papers
from keyquorum.holders.custodian_exchange import load_identity
from keyquorum.model import policy as policies
from keyquorum.model import strict_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.enroll.request import Machine
    from keyquorum.envelope.signing import Owner
    from keyquorum.model.invitation import Invitation
    from keyquorum.model.policy import Policy

BANK, PCR = "sha256", 7  # Secure Boot's state and keys, which updates of the system leave alone
_YEARS = 5  # as long as the machine's certificate
_HOLDER = "custodian"
_MADE = "made from the invitation"
_ANY = ("regions", "countries", "operators", "hours", "limits", "approvals")


def policy(invitation: Invitation) -> Policy:
    """Return the policy: this machine's TPM and the custodian, both."""
    holders = {
        "tpm": {"kind": "tpm", "pcrs": [PCR], "bank": BANK},
        _HOLDER: {"kind": "custodian", "id": invitation.custodian, "release": _MADE, "reference": _MADE},
    }
    return policies.parse({"version": 1, "threshold": 2, "of": ["tpm", _HOLDER], "holder": holders}, _MADE)


def sign(invitation: Invitation, machine: Machine, volume: str, owner: Owner) -> tuple[tuple[str, Papers], ...]:
    """Enrol the machine if it is not yet, and sign papers by what it has booted now.

    Raises `HolderError` when the TPM or the custodian says no.
    """
    name = _enrolled(invitation, machine, owner)
    value = machine_keys.read_pcrs(machine.tuning, BANK, (PCR,))[PCR]
    speech.note(f"{invitation.custodian} will demand PCR {PCR} as it is now, {value.hex()[:16]}…")
    header = {
        "version": 1,
        "name": f"volume-{volume}",
        "serial": machine.now,
        "issued": machine.now - 300,  # the custodian's clock may be behind
        "expires": machine.now + _YEARS * 365 * 24 * 3600,
    }
    unlimited = dict.fromkeys(_ANY, "any")
    release = {**header, "volumes": [volume], "machines": [name], "attestation": ["trusted"], **unlimited}
    reference = {
        **header,
        "bank": BANK,
        "pcrs": {str(PCR): [value.hex()]},
        "log": None,
        "firmware": None,
        "clock": "any",
    }
    made = Papers(
        release=owner.sign(policy_format.POLICY_TYPE, policy_format.payload_of(release)),
        reference=owner.sign(reference_values.REFERENCE_TYPE, strict_json.serialise(reference)),
        bank=BANK,
        pcrs=(PCR,),
    )
    return ((_HOLDER, made),)


def _enrolled(invitation: Invitation, machine: Machine, owner: Owner) -> str:
    """Return the machine's name at the custodian; the token is spent only by a machine that is not known there."""
    try:
        known = load_identity(machine.tuning.machine).custodian(invitation.custodian)
    except UnavailableError:
        known = None
    if known is None:
        known = enroll_machine(machine, owner, invitation)
        speech.note(f"this machine is enrolled at {invitation.custodian} as {known.machine}")
    elif known.key != invitation.key:
        raise UsageError(
            f"{invitation.custodian} has another signing key than when this machine was enrolled there",
            "ask its operator whether it was founded anew",
        )
    return known.machine
