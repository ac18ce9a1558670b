# SPDX-License-Identifier: Apache-2.0
"""The event log beside a quote: believed only where its replay gives a quoted PCR (docs/attestation.md §7).

A log is a stranger's text. What a PCR vouches for are the digests extended into it, and of an event's description only
the part that has this digest. Everything else is thrown away here, before anybody looks at it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.evidence import event_log
from keyquorum.evidence.tpm_wire import BANKS, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keyquorum.evidence.event_log import Event, EventLog

FIRMWARE = frozenset(range(8))  # what firmware measures, and always into its log

# What is measured for a separator (PFP §10.4): firmware went on, or found an error.
_SEPARATOR = 0x00000004
_NORMAL, _ERROR = (bytes(4), b"\xff\xff\xff\xff"), b"\x01\x00\x00\x00"
_EXIT = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
_DEBUG = (b"UEFI Debug Mode", b"UEFI Debug Mode\x00")


def _secure_boot(value: bytes) -> bytes:
    """Return the UEFI_VARIABLE_DATA of the global variable SecureBoot, 8be4df61-93ca-11d2-aa0d-00e098032b8c."""
    guid, name = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c"), "SecureBoot"
    return guid + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value


_ON, _OFF = _secure_boot(b"\x01"), _secure_boot(b"\x00")


@dataclass(frozen=True, slots=True, kw_only=True)
class BelievedEvent:
    """An event of which a quoted PCR vouches for the digest, and for `data`, None where it has another digest.

    Nobody vouches for `kind`: no judgement may depend on what a log calls an event.
    """

    pcr: int
    kind: int
    digest: bytes
    data: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BelievedLog:
    """What may be believed: events by PCR, for those PCRs whose value the log explains."""

    bank: str
    events: Mapping[int, tuple[BelievedEvent, ...]]
    unlike: tuple[int, ...]  # quoted PCRs of which the log tells something else than the TPM
    unexplained: tuple[int, ...]  # quoted PCRs that have a value, and no event

    def of(self, pcr: int) -> tuple[BelievedEvent, ...]:
        """Return what is known about a PCR; nothing for one that is not explained."""
        return self.events.get(pcr, ())

    def where(self, pcr: int, *measured: bytes) -> list[int]:
        """Return the places in a PCR's events at which one of these data was measured, whatever they are called."""
        wanted = {digest(self.bank, data) for data in measured}
        return [place for place, event in enumerate(self.of(pcr)) if event.digest in wanted]


def believe(data: bytes, bank: str, quoted: Mapping[int, bytes]) -> BelievedLog:
    """Replay a log against quoted PCRs; raises `TamperingError` for one that is malformed."""
    return _compare(event_log.parse(data, "the event log"), bank, quoted)


def _compare(log: EventLog, bank: str, quoted: Mapping[int, bytes]) -> BelievedLog:
    hash_function = _hash(bank)
    events: dict[int, tuple[BelievedEvent, ...]] = {}
    unlike, unexplained = [], []
    for pcr, value in quoted.items():
        listed = log.of(pcr)
        if event_log.replay(log, BANKS[bank], pcr, hash_function) == value:
            events[pcr] = tuple(_believed(event, bank, hash_function) for event in listed)
        elif listed or pcr in FIRMWARE:
            unlike.append(pcr)
        else:
            unexplained.append(pcr)
    return BelievedLog(bank=bank, events=events, unlike=tuple(unlike), unexplained=tuple(unexplained))


def _hash(bank: str) -> Callable[[bytes], bytes]:
    return lambda data: digest(bank, data)


def _believed(event: Event, bank: str, hash_function: Callable[[bytes], bytes]) -> BelievedEvent:
    measured = event.digests[BANKS[bank]]
    data = event.data if hash_function(event.data) == measured else None
    return BelievedEvent(pcr=event.pcr, kind=event.kind, digest=measured, data=data)


def bad_separators(log: BelievedLog, pcrs: tuple[int, ...]) -> list[int]:
    """Return those of `pcrs` that do not have exactly one separator, saying that firmware went on normally.

    The separator ends what firmware measures. Whoever runs later can measure another one and, since nobody vouches for
    the kinds of events, call the first something else. In PCR 7, where it matters what was before, whatever was
    measured like a separator is one. Elsewhere real firmware has such events: a boot order of two entries, for example.
    """
    return [pcr for pcr in pcrs if pcr in FIRMWARE and not _well_separated(log, pcr)]


def _well_separated(log: BelievedLog, pcr: int) -> bool:
    called = [event.data in _NORMAL for event in log.of(pcr) if event.kind == _SEPARATOR]
    alike = log.where(pcr, *_NORMAL, _ERROR)
    return called == [True] and (pcr != 7 or len(alike) == 1)


def secure_boot(log: BelievedLog) -> str:
    """Return "on", "off", "debug" or "unknown", from what firmware measured into PCR 7 before its separator."""
    ends = log.where(7, *_NORMAL)
    if len(ends) != 1:
        return "unknown"
    on, off, debug = ([place for place in log.where(7, *data) if place < ends[0]] for data in ((_ON,), (_OFF,), _DEBUG))
    if debug:
        return "debug"
    if len(on) + len(off) != 1:
        return "unknown"
    return "on" if on else "off"


def left_firmware(log: BelievedLog) -> bool:
    """Say whether an operating system took over: ExitBootServices was called and then returned, in PCR 5."""
    called, done = (log.where(5, data) for data in _EXIT)
    return bool(called and done) and called[0] < done[-1]
