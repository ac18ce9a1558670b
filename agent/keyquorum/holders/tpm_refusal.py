# SPDX-License-Identifier: Apache-2.0
"""Why a TPM refused: which PCR, which event, how many PINs are left (docs/holders-tpm.md §7). Imported only then."""

from __future__ import annotations

from keyquorum.errors import HolderError, KeyquorumError, RefusedError, TamperingError, UnavailableError
from keyquorum.evidence import event_log
from keyquorum.linux import measurement_log
from keyquorum.tpm2 import banks, commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.evidence.event_log import Event, EventLog
    from keyquorum.holders.contract import OpenTask
    from keyquorum.holders.tpm_where import Where
    from keyquorum.tpm2.client import Tpm
    from keyquorum.tpm2.response_error import ResponseError

# What is measured where: TCG PC Client Platform Firmware Profile §3.3.4, and the UAPI group's Linux TPM PCR registry
_MEANINGS = {
    0: "firmware code",
    1: "firmware settings",
    2: "option ROMs",
    3: "option ROM settings",
    4: "boot loader",
    5: "boot loader settings and partition table",
    6: "power states and vendor's own",
    7: "Secure Boot policy",
    8: "boot loader's commands",
    9: "kernel and initramfs",
    10: "IMA",
    11: "unified kernel image",
    12: "kernel command line and credentials",
    13: "system extensions",
    14: "shim's keys",
    15: "system identity",
    16: "debugging",
    23: "applications",
}
_RESET = "tpm2_dictionarylockout --clear-lockout takes all back with the lockout authorisation"


def check_lockout(tpm: Tpm) -> None:
    """Raise `UnavailableError` when the TPM would not even look at a PIN."""
    state = commands.lockout_state(tpm)
    if state is not None and state[0] >= state[1]:
        counted, _, interval = state
        raise UnavailableError(
            f"the TPM is locked out after {counted} wrong PINs",
            f"it takes one back every {_span(interval)}; {_RESET}",
        )


def wrong_pin(tpm: Tpm) -> RefusedError:
    """Return the refusal for a wrong PIN, with what the TPM counted."""
    try:
        state = commands.lockout_state(tpm)
    except HolderError:
        state = None
    if state is None:
        return RefusedError("the PIN is wrong")
    counted, most, interval = state
    return RefusedError(
        "the PIN is wrong",
        f"{counted} of {most} wrong PINs are counted before the TPM locks itself; one is taken back every"
        f" {_span(interval)}",
    )


def check_pcrs(tpm: Tpm, where: Where, task: OpenTask) -> None:
    """Raise `RefusedError` when a literally bound PCR differs, before a person is asked for a PIN."""
    reasons = _differences(tpm, where, task)
    if reasons:
        raise _refusal(reasons)


def of_policy(error: ResponseError, tpm: Tpm, where: Where, task: OpenTask) -> HolderError:
    """Return the refusal for a policy that was not satisfied; `error` itself when the PCRs do not explain it."""
    try:
        reasons = _differences(tpm, where, task)
    except HolderError:
        return error
    return _refusal(reasons) if reasons else error


def _refusal(reasons: list[str]) -> RefusedError:
    return RefusedError(
        "; ".join(reasons), "if that was an update you made, enrol again; until then the other holders open the volume"
    )


def _differences(tpm: Tpm, where: Where, task: OpenTask) -> list[str]:
    bound = where.bound()
    now = commands.pcr_read(tpm, where.bank, bound)
    changed = [pcr for pcr in bound if now.get(pcr) != bound[pcr]]
    if not changed:
        return []
    enrolled_log, present_log = _logs(task)
    reasons = []
    for pcr in changed:
        meaning = _MEANINGS.get(pcr, "dynamic launch")
        if where.facts is not None and pcr == where.facts.pcr:
            meaning = "BIOS version and CPU model, as keyquorum measures them"
        value = now.get(pcr)
        shown = "not in this TPM's bank" if value is None else _short(value)
        reason = f"PCR {pcr} ({meaning}) differs: enrolled {_short(bound[pcr])}, now {shown}"
        if value is not None and enrolled_log is not None and present_log is not None:
            reason += _event(where.bank, pcr, (enrolled_log, bound[pcr]), (present_log, value))
        reasons.append(reason)
    return reasons


def _logs(task: OpenTask) -> tuple[EventLog | None, EventLog | None]:
    """Return the event logs of enrolment and of this boot, if they can be read at all."""
    try:
        path = measurement_log.reference_path(task.tuning.reference_directory, task.subject.volume, task.subject.name)
    except KeyquorumError:
        return None, None
    found: list[EventLog | None] = []
    for file in (path, measurement_log.FIRMWARE_LOG):
        content = measurement_log.read(file, event_log.MAX_LOG)
        try:
            found.append(None if content is None else event_log.parse(content, file))
        except TamperingError:
            found.append(None)
    return found[0], found[1]


def _event(bank: str, pcr: int, enrolled: tuple[EventLog, bytes], now: tuple[EventLog, bytes]) -> str:
    """Name the first event that differs, if both logs explain the values that the PCR had and has."""
    algorithm = banks.ALGORITHMS[bank]
    for log, value in (enrolled, now):
        if event_log.replay(log, algorithm, pcr, lambda data: banks.digest(bank, data)) != value:
            return ""
    old, new = event_log.first_difference(enrolled[0], now[0], algorithm, pcr)
    return f", from {_named(old)} on, now {_named(new)}" if old or new else ""


def _named(event: Event | None) -> str:
    return event_log.describe(event) if event else "nothing more"


def _short(value: bytes) -> str:
    return value.hex()[:16] + "…"


def _span(seconds: int) -> str:
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            number = seconds // size
            return f"{number} {word}s" if number != 1 else word
    return f"{seconds} seconds"
