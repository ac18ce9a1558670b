# SPDX-License-Identifier: Apache-2.0
"""Measuring platform facts before the TPM is asked (docs/holders-tpm.md §6). Imported only where facts are bound."""

from __future__ import annotations

import os

from keyquorum.errors import RefusedError, UnavailableError
from keyquorum.holders import tpm_where
from keyquorum.linux import measurement_log, platform_facts
from keyquorum.tpm2 import banks, commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.holders.tpm_where import Facts
    from keyquorum.tpm2.client import Tpm

LOCK = "/run/keyquorum/facts.lock"
_TITLES = {"bios-version": "BIOS version", "cpu-model": "CPU model"}


def measure_enrolled(tpm: Tpm, bank: str, facts: Facts) -> None:
    """Measure the facts as they are now, and refuse by name those that are not as enrolled.

    The measurement comes first: whatever is found, the PCR then says what this machine is.
    """
    now = platform_facts.read(facts.values)
    measure(tpm, bank, facts.pcr, now)
    for name, enrolled in facts.values.items():
        if now[name] != enrolled:
            raise RefusedError(
                f"the {_TITLES[name]} changed: enrolled {enrolled!r}, now {now[name]!r}",
                "if that was you, enrol again; until then the other holders open the volume",
            )


def measure(tpm: Tpm, bank: str, pcr: int, facts: Mapping[str, str]) -> None:
    """Bring a PCR to the value that these facts give, if it is not there yet.

    There is no memory between volumes and attempts but the PCR itself: zero means not measured yet, the predicted
    value means done, and anything else that something else uses this PCR.
    """
    descriptor = _lock(tpm.device.deadline)
    try:
        value = commands.pcr_read(tpm, bank, (pcr,)).get(pcr)
        if value is None:
            raise RefusedError(f"this TPM has no PCR {pcr} in its {bank} bank")
        if value == tpm_where.predicted(bank, facts):
            return
        if value.strip(b"\x00"):
            raise RefusedError(
                f"PCR {pcr} holds {value.hex()[:16]}…, which is neither zero nor what the facts of this machine give:"
                " something else measures into it",
                "choose another facts_pcr in the policy, and enrol again after a restart",
            )
        measured = tpm_where.canonical(facts)
        active = commands.active_banks(tpm, pcr)
        commands.pcr_extend(tpm, pcr, {name: banks.digest(name, measured) for name in active})
    finally:
        os.close(descriptor)


def _lock(deadline: float) -> int:
    """Keep other volumes' unlocks from measuring at the same moment; return the lock's descriptor."""
    try:
        os.makedirs(os.path.dirname(LOCK), 0o700, exist_ok=True)
        descriptor = os.open(LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            measurement_log.lock(descriptor, deadline)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise UnavailableError(f"{LOCK} cannot be locked: {error.strerror}") from None
    return descriptor
