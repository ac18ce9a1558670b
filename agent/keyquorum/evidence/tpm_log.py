# SPDX-License-Identifier: Apache-2.0
"""The event log beside a quote: believed only where its replay gives a quoted PCR (docs/attestation.md §7).

A log is a stranger's text. What a PCR vouches for are the digests extended into it, and of an event's description only
the part that has this digest. Everything else is thrown away here, before anybody looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.evidence import event_log
from keyquorum.evidence.tpm_wire import BANKS, SIZES, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keyquorum.evidence.event_log import Event, EventLog

FIRMWARE = frozenset(range(8))  # what firmware measures, and always into its log
_SEPARATOR = 0x00000004
_ACTION = 0x80000007
_VARIABLE = 0x80000001
_NORMAL = (bytes(4), b"\xff\xff\xff\xff")  # EV_SEPARATOR's data; 1 says that the firmware found an error
_EXIT_CALLED = b"Exit Boot Services Invocation"
_EXIT_DONE = b"Exit Boot Services Returned with Success"
_DEBUG = b"UEFI Debug Mode"
_GLOBAL_VARIABLE = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")  # 8be4df61-93ca-11d2-aa0d-00e098032b8c
_MAX_NAME = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class BelievedEvent:
    """An event that a quoted PCR vouches for; `data` is None where it does not have the digest that was extended."""

    pcr: int
    kind: int
    digest: bytes
    data: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BelievedLog:
    """What may be believed: events by PCR, for those PCRs whose value the log explains."""

    events: Mapping[int, tuple[BelievedEvent, ...]]
    unlike: tuple[int, ...]  # quoted PCRs of which the log tells something else than the TPM
    unexplained: tuple[int, ...]  # quoted PCRs that have a value, and no event

    def of(self, pcr: int) -> tuple[BelievedEvent, ...]:
        """Return what is known about a PCR; nothing for one that is not explained."""
        return self.events.get(pcr, ())


def believe(data: bytes, bank: str, quoted: Mapping[int, bytes]) -> BelievedLog:
    """Replay a log against quoted PCRs; raises `TamperingError` for one that is malformed."""
    return _compare(event_log.parse(data, "the event log"), bank, quoted)


def _compare(log: EventLog, bank: str, quoted: Mapping[int, bytes]) -> BelievedLog:
    hash_function = _hash(bank)
    events: dict[int, tuple[BelievedEvent, ...]] = {}
    unlike, unexplained = [], []
    for pcr, value in quoted.items():
        listed = log.of(pcr)
        if log.sizes.get(BANKS[bank]) != SIZES[bank]:
            unlike.append(pcr)
        elif event_log.replay(log, BANKS[bank], pcr, hash_function) == value:
            events[pcr] = tuple(_believed(event, bank, hash_function) for event in listed)
        elif listed or pcr in FIRMWARE:
            unlike.append(pcr)
        else:
            unexplained.append(pcr)
    return BelievedLog(events=events, unlike=tuple(unlike), unexplained=tuple(unexplained))


def _hash(bank: str) -> Callable[[bytes], bytes]:
    return lambda data: digest(bank, data)


def _believed(event: Event, bank: str, hash_function: Callable[[bytes], bytes]) -> BelievedEvent:
    measured = event.digests[BANKS[bank]]
    data = event.data if hash_function(event.data) == measured else None
    return BelievedEvent(pcr=event.pcr, kind=event.kind, digest=measured, data=data)


def bad_separators(log: BelievedLog, pcrs: tuple[int, ...]) -> list[int]:
    """Return those of `pcrs` that do not have exactly one separator, saying that firmware went on normally.

    The separator ends what firmware measures; whoever may add a second one can pass an operating system's events off as
    firmware's.
    """
    return [
        pcr
        for pcr in pcrs
        if pcr in FIRMWARE and [event.data in _NORMAL for event in log.of(pcr) if event.kind == _SEPARATOR] != [True]
    ]


def secure_boot(log: BelievedLog) -> str:
    """Return "on", "off", "debug" or "unknown", from what firmware measured into PCR 7 before its separator."""
    before: list[BelievedEvent] = []
    for event in log.of(7):
        if event.kind == _SEPARATOR:
            break
        before.append(event)
    if any(event.kind == _ACTION and event.data is not None and event.data.startswith(_DEBUG) for event in before):
        return "debug"
    values = [_variable(event.data, "SecureBoot") for event in before if event.kind == _VARIABLE]
    found = [value for value in values if value is not None]
    if len(found) != 1 or found[0] not in {b"\x00", b"\x01"}:
        return "unknown"
    return "on" if found[0] == b"\x01" else "off"


def _variable(data: bytes | None, name: str) -> bytes | None:
    """Return the value of a global variable in a UEFI_VARIABLE_DATA, None if it is another one (PFP §10.2.6)."""
    if data is None or len(data) < 32 or data[:16] != _GLOBAL_VARIABLE:
        return None
    length, size = int.from_bytes(data[16:24], "little"), int.from_bytes(data[24:32], "little")
    end = 32 + 2 * length
    if length > _MAX_NAME or len(data) != end + size or data[32:end] != name.encode("utf-16-le"):
        return None
    return data[end:]


def left_firmware(log: BelievedLog) -> bool:
    """Say whether an operating system took over: ExitBootServices was called and returned, in PCR 5."""
    actions = [event.data for event in log.of(5) if event.kind == _ACTION and event.data is not None]
    return _EXIT_CALLED in actions and _EXIT_DONE in actions
