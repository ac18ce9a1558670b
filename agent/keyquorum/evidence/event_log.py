# SPDX-License-Identifier: Apache-2.0
"""The firmware's TPM event log: reading, replaying and comparing (TCG PC Client Platform Firmware Profile §10).

Pure: the caller reads files and brings the hash. Nothing in a log is believed for itself: a log explains a PCR only
if its replay gives the PCR's value (docs/holders-tpm.md §7).
"""

from __future__ import annotations

import struct
from _codecs import utf_16_le_decode  # decode("utf-16-le") looks for a module that no boot image has

from keyquorum.errors import TamperingError
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

MAX_LOG = 4 * 1024 * 1024
_MAX_EVENTS = 20_000
_MAX_EVENT = 1024 * 1024
_MAX_ALGORITHMS = 16
_MAX_DIGEST = 64

NO_ACTION = 0x00000003
_SHA1, _SHA1_SIZE = 0x0004, 20
_SPEC_ID = b"Spec ID Event03\x00"
_STARTUP_LOCALITY = b"StartupLocality\x00"


class Event(Record):
    """One record: PCR, event type, digests by algorithm, and the firmware's description of what was measured."""

    pcr: int
    kind: int
    digests: dict[int, bytes]
    data: bytes


class EventLog(Record):
    """A whole log, in order; `sizes` are the digest sizes by algorithm, `locality` that of the start of the TPM."""

    sizes: dict[int, int]
    events: tuple[Event, ...]
    locality: int = 0

    def of(self, pcr: int) -> list[Event]:
        """Return what was extended into a PCR."""
        return [event for event in self.events if event.pcr == pcr and event.kind != NO_ACTION]


class _Cursor:
    """Takes the log apart; every read is bounded."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.at, self.what = data, 0, what
        self._end = min(len(data.rstrip(b"\x00")), len(data.rstrip(b"\xff")))

    def fail(self, problem: str) -> NoReturn:
        raise TamperingError(self.what, f"byte {self.at}", problem)

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            self.fail(f"{size} bytes wanted, {len(self.data) - self.at} left")
        self.at += size
        return self.data[self.at - size : self.at]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def event_data(self) -> bytes:
        size = self.u32()
        if size > _MAX_EVENT:
            self.fail(f"an event of {size} bytes")
        return self.take(size)

    def at_end(self) -> bool:
        """Say whether nothing is left, or only the zeros (or ones) with which firmware fills the log's space."""
        return self.at >= self._end


def parse(data: bytes, what: str) -> EventLog:
    """Read a log, of the crypto-agile format or of that before it (SHA-1 only); raises `TamperingError`."""
    if len(data) > MAX_LOG:
        raise TamperingError(what, "", f"is larger than {MAX_LOG} bytes")
    cursor = _Cursor(data, what)
    if cursor.at_end():
        raise TamperingError(what, "", "is empty")
    first = _old_event(cursor)
    if not (first.kind == NO_ACTION and first.data.startswith(_SPEC_ID)):
        sizes, events, read = {_SHA1: _SHA1_SIZE}, [first], _old_event
    else:
        sizes, events = _spec_id(first.data, what), []

        def read(cursor: _Cursor) -> Event:
            return _event(cursor, sizes)

    while not cursor.at_end():
        if len(events) >= _MAX_EVENTS:
            cursor.fail(f"more than {_MAX_EVENTS} events")
        events.append(read(cursor))
    return EventLog(sizes=sizes, events=tuple(events), locality=_locality(events))


def _old_event(cursor: _Cursor) -> Event:
    """Read a TCG_PCClientPCREvent (§10.2.1)."""
    pcr, kind = cursor.u32(), cursor.u32()
    digest = cursor.take(_SHA1_SIZE)
    return Event(pcr=pcr, kind=kind, digests={_SHA1: digest}, data=cursor.event_data())


def _spec_id(data: bytes, what: str) -> dict[int, int]:
    """Read the TCG_EfiSpecIDEvent that opens a crypto-agile log: digest sizes by algorithm (§10.4.5.1)."""
    cursor = _Cursor(data, what + " (Spec ID)")
    cursor.take(len(_SPEC_ID) + 8)  # platform class, version, errata, size of UINTN
    count = cursor.u32()
    if not 0 < count <= _MAX_ALGORITHMS:
        cursor.fail(f"{count} algorithms")
    sizes = {}
    for _ in range(count):
        algorithm, size = cursor.u16(), cursor.u16()
        if not 0 < size <= _MAX_DIGEST or algorithm in sizes:
            cursor.fail(f"algorithm {algorithm:#x} with digests of {size} bytes")
        sizes[algorithm] = size
    cursor.take(cursor.take(1)[0])  # the vendor's part
    return sizes


def _event(cursor: _Cursor, sizes: dict[int, int]) -> Event:
    """Read a TCG_PCR_EVENT2 (§10.2.2)."""
    pcr, kind, count = cursor.u32(), cursor.u32(), cursor.u32()
    if count > _MAX_ALGORITHMS:
        cursor.fail(f"{count} digests")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        algorithm = cursor.u16()
        if algorithm not in sizes:
            cursor.fail(f"algorithm {algorithm:#x} is not in the header")
        if algorithm in digests:
            cursor.fail(f"algorithm {algorithm:#x} twice in one event")
        digests[algorithm] = cursor.take(sizes[algorithm])
    return Event(pcr=pcr, kind=kind, digests=digests, data=cursor.event_data())


def _locality(events: list[Event]) -> int:
    """Return the locality from which the TPM was started, which is in PCR 0 from the beginning (§10.4.5.3)."""
    for event in events:
        if event.kind == NO_ACTION and event.pcr == 0 and event.data.startswith(_STARTUP_LOCALITY):
            rest = event.data[len(_STARTUP_LOCALITY) :]
            return rest[0] if len(rest) == 1 and rest[0] in {0, 3, 4} else 0
    return 0


def replay(log: EventLog, algorithm: int, pcr: int, hash_function: Callable[[bytes], bytes]) -> bytes | None:
    """Return the value that a PCR has if the log tells the truth; None when it lacks the algorithm."""
    if algorithm not in log.sizes:
        return None
    size = log.sizes[algorithm]
    value = bytes(size - 1) + bytes((log.locality if pcr == 0 else 0,))
    for event in log.of(pcr):
        if algorithm not in event.digests:
            return None
        value = hash_function(value + event.digests[algorithm])
    return value


def first_difference(enrolled: EventLog, now: EventLog, algorithm: int, pcr: int) -> tuple[Event | None, Event | None]:
    """Return the first events of a PCR that differ, as (enrolled, now); None stands for the end of a log.

    (None, None) means that the logs agree.
    """
    before, after = enrolled.of(pcr), now.of(pcr)
    for old, new in zip(before, after, strict=False):
        if old.digests.get(algorithm) != new.digests.get(algorithm):
            return old, new
    common = min(len(before), len(after))
    return (before[common] if len(before) > common else None), (after[common] if len(after) > common else None)


_KINDS = {
    0x00000000: "EV_PREBOOT_CERT",
    0x00000001: "EV_POST_CODE",
    0x00000003: "EV_NO_ACTION",
    0x00000004: "EV_SEPARATOR",
    0x00000005: "EV_ACTION",
    0x00000006: "EV_EVENT_TAG",
    0x00000007: "EV_S_CRTM_CONTENTS",
    0x00000008: "EV_S_CRTM_VERSION",
    0x00000009: "EV_CPU_MICROCODE",
    0x0000000A: "EV_PLATFORM_CONFIG_FLAGS",
    0x0000000B: "EV_TABLE_OF_DEVICES",
    0x0000000C: "EV_COMPACT_HASH",
    0x0000000D: "EV_IPL",
    0x0000000E: "EV_IPL_PARTITION_DATA",
    0x0000000F: "EV_NONHOST_CODE",
    0x00000010: "EV_NONHOST_CONFIG",
    0x00000011: "EV_NONHOST_INFO",
    0x00000012: "EV_OMIT_BOOT_DEVICE_EVENTS",
    0x00000013: "EV_POST_CODE2",
    0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    0x80000002: "EV_EFI_VARIABLE_BOOT",
    0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
    0x80000006: "EV_EFI_GPT_EVENT",
    0x80000007: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES",
    0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EV_EFI_HANDOFF_TABLES2",
    0x8000000C: "EV_EFI_VARIABLE_BOOT2",
    0x8000000E: "EV_EFI_GPT_EVENT2",
    0x80000010: "EV_EFI_HCRTM_EVENT",
    0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
    0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
    0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
}
_SEPARATOR, _TAG = 0x00000004, 0x00000006
_VARIABLES = frozenset({0x80000001, 0x80000002, 0x8000000C, 0x800000E0})
_IMAGES = frozenset({0x80000003, 0x80000004, 0x80000005})
_BLOBS = frozenset({0x80000006, 0x80000008, 0x80000009, 0x8000000E})
_MAX_SHOWN = 72


def describe(event: Event) -> str:
    """Return an event's type and a short printable word about it, such as the variable's name or the image's path."""
    kind = _KINDS.get(event.kind, f"event type {event.kind:#x}")
    detail = _printable(_detail(event))
    return f"{kind} {detail}" if detail else kind


def _detail(event: Event) -> str:
    if event.kind in _VARIABLES:
        return _variable_name(event.data)
    if event.kind in _IMAGES:
        return _image_path(event.data)
    if event.kind == _SEPARATOR or event.kind in _BLOBS:
        return ""
    if event.kind == _TAG:  # a tag and a length stand before the text (§10.4.2.1)
        return _text(event.data[8:])
    return _text(event.data)


def _variable_name(data: bytes) -> str:
    """Return the name in a UEFI_VARIABLE_DATA: GUID, two lengths, UTF-16 name."""
    if len(data) < 32:
        return ""
    length = int.from_bytes(data[16:24], "little")
    return _utf16(data[32 : 32 + 2 * min(length, _MAX_SHOWN)])


def _image_path(data: bytes) -> str:
    """Return the file path in a UEFI_IMAGE_LOAD_EVENT's device path (UEFI §10.3.5.4: type 4, subtype 4)."""
    at, end = 32, len(data)
    found = ""
    while at + 4 <= end:
        kind, subtype, length = struct.unpack_from("<BBH", data, at)
        if length < 4 or at + length > end or kind == 0x7F:
            break
        if (kind, subtype) == (4, 4):
            found += _utf16(data[at + 4 : at + length]).rstrip("\x00")
        at += length
    return found


def _text(data: bytes) -> str:
    """Return a description that is text, in UTF-8 or UTF-16; others are no help to a person."""
    short = data[: 4 * _MAX_SHOWN]
    utf16 = len(short) >= 4 and not short[1:8:2].strip(b"\x00")
    text = (_utf16(short) if utf16 else short.decode("utf-8", "replace")).split("\x00")[0]
    shown = sum((c.isprintable() or c.isspace()) and c != "\ufffd" for c in text)
    return text if text and shown >= len(text) - 1 else ""


def _utf16(data: bytes) -> str:
    return utf_16_le_decode(data, "replace", True)[0]


def _printable(text: str) -> str:
    """Return at most 72 characters that change nothing on a terminal."""
    line = " ".join(text.split("\x00", 1)[0].split())
    clean = "".join(c if c.isprintable() else "?" for c in line)
    return clean if len(clean) <= _MAX_SHOWN else clean[: _MAX_SHOWN - 1] + "…"
