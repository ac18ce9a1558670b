# SPDX-License-Identifier: Apache-2.0
"""Event logs of real machines, published with the PCR values that their TPMs had; and logs that lie or are broken."""

from __future__ import annotations

import hashlib
import random
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyquorum.errors import TamperingError
from keyquorum.evidence import event_log
from keyquorum.evidence.event_log import Event, EventLog

VECTORS = Path(__file__).resolve().parents[3].parent / "shared" / "vectors" / "attest" / "tpm"
TOOLS = VECTORS / "tpm2-tools"
ALGORITHMS = {"sha1": 0x04, "sha256": 0x0B, "sha384": 0x0C, "sha512": 0x0D}
# go-tpm-tools names a log by a Go variable; which file it embeds
GO_LOGS = {
    "Rhel8EventLog": "rhel8-uefi.bin",
    "Ubuntu1804AmdSevEventLog": "ubuntu-1804-amd-sev.bin",
    "Ubuntu2104NoDbxEventLog": "ubuntu-2104-no-dbx.bin",
    "Ubuntu2104NoSecureBootEventLog": "ubuntu-2104-no-secure-boot.bin",
    "Ubuntu2404AmdSevSnpEventLog": "ubuntu-2404-amd-sevsnp.bin",
    "GlinuxAlexEventLog": "glinux-alex.bin",
    "ArchLinuxWorkstationEventLog": "arch-linux-workstation.bin",
    "Debian10EventLog": "debian-10.bin",
    "Cos85AmdSevEventLog": "cos-85-amd-sev.bin",
    "Cos93AmdSevEventLog": "cos-93-amd-sev.bin",
    "Cos101AmdSevEventLog": "cos-101-amd-sev.bin",
    "GdcHost": "gdc-host.bin",
    "SP800155EventLog": "eventlogwithsp800155.bin",
    "CGKE251000": "confidential-gke-debug-251000_eventlog.bin",
}
MALFORMED = (
    "keylime/binary_bios_measurements-bogus",
    "keylime/binary_bios_measurements-empty",
    "tpm2-tools/specid-vendordata.bin",  # its size leaves the vendor's part out
    "tpm2-tools/get-capability-tpm-prop-fixed.bin",
    "tpm2-tools/ek-template-default.bin",
    "google-go-eventlog/CCEL.bin",  # the ACPI table about a log, not a log
    "google-go-tpm-tools/dbxupdate-2014-08-11.bin",
)


def read(name: str) -> EventLog:
    path = VECTORS / name
    assert path.is_file(), f"the published vector {name} is missing in {VECTORS}"
    return event_log.parse(path.read_bytes(), name)


def replayed(log: EventLog, bank: str, pcr: int) -> str | None:
    value = event_log.replay(log, ALGORITHMS[bank], pcr, lambda data: hashlib.new(bank, data).digest())
    return None if value is None else value.hex()


def tools_values() -> Iterator[tuple[str, str, int, str]]:
    """Yield (log, bank, PCR, value) as tpm2_eventlog printed them."""
    for path in sorted(TOOLS.glob("event*.bin.yaml")):
        if "__" in path.name:
            continue
        bank = ""
        for line in path.read_text().partition("\npcrs:")[2].splitlines():
            if found := re.match(r"  (sha\d+):", line):
                bank = found[1]
            elif found := re.match(r"\s+(\d+)\s*: 0x(\w+)", line):
                yield f"tpm2-tools/{path.stem}", bank, int(found[1]), found[2].lower()


def go_values() -> Iterator[tuple[str, str, int, str]]:
    """Yield (log, bank, PCR, value) as real TPMs had them, from go-tpm-tools' test file."""
    name = bank = ""
    for line in (VECTORS / "google-go-tpm-tools" / "eventlog_test.go").read_text().splitlines():
        if found := re.search(r"RawLog: test\.(\w+),", line):
            name = GO_LOGS[found[1]]
        elif found := re.search(r"pb\.HashAlgo_(SHA\d+)", line):
            bank = found[1].lower()
        elif name and (found := re.match(r'\s+(\d+):\s+decodeHex\("(\w+)"\)', line)):
            yield f"google-go-tpm-tools/{name}", bank, int(found[1]), found[2]


def test_published_replays_are_ours() -> None:
    values = list(tools_values())
    assert len(values) >= 130
    wrong = [row for row in values if replayed(read(row[0]), row[1], row[2]) != row[3]]
    assert not wrong


def test_logs_explain_the_pcrs_of_the_machines_they_come_from() -> None:
    values = [row for row in go_values() if row[2] < 8]
    assert len(values) >= 190
    wrong = [row for row in values if replayed(read(row[0]), row[1], row[2]) != row[3]]
    assert not wrong


def test_a_tpm_started_from_locality_3_has_it_in_pcr_0() -> None:
    started = read("google-go-tpm-tools/glinux-alex.bin")
    assert started.locality == 3
    assert replayed(started.with_(locality=0), "sha256", 0) != replayed(started, "sha256", 0)
    assert replayed(started.with_(locality=0), "sha256", 7) == replayed(started, "sha256", 7)


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_log_is_refused(name: str) -> None:
    with pytest.raises(TamperingError):
        read(name)


def test_padding_is_not_an_event() -> None:
    padded = read("google-go-eventlog/cos-113-intel-tdx-dupe-separator.bin")
    assert padded == read("google-go-eventlog/cos-113-intel-tdx-dupe-separator-unpadded.bin")
    raw = (TOOLS / "event-arch-linux.bin").read_bytes()
    assert event_log.parse(raw + b"\xff" * 4096, "log") == event_log.parse(raw, "log")


def test_an_algorithm_that_the_log_lacks_explains_nothing() -> None:
    assert replayed(read("google-go-tpm-tools/debian-10.bin"), "sha256", 7) is None


DESCRIPTIONS = (
    ("tpm2-tools/event-arch-linux.bin", 7, 0, "EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot"),
    ("tpm2-tools/event-arch-linux.bin", 7, 4, "EV_EFI_VARIABLE_DRIVER_CONFIG dbx"),
    ("tpm2-tools/event-arch-linux.bin", 7, 5, "EV_SEPARATOR"),
    ("tpm2-tools/event-arch-linux.bin", 4, 1, "EV_EFI_BOOT_SERVICES_APPLICATION \\EFI\\SYSTEMD\\SYSTEMD-BOOTX64.EFI"),
    ("tpm2-tools/event-arch-linux.bin", 5, 1, "EV_EFI_GPT_EVENT"),
    ("tpm2-tools/event-sd-boot-fedora37.bin", 12, 0, "EV_IPL console=ttyS0 console=tty0 efi=debug"),
    ("tpm2-tools/event-sd-boot-fedora37.bin", 9, 0, "EV_EVENT_TAG Linux initrd"),
    ("tpm2-tools/event-gce-ubuntu-2104-log.bin", 0, 0, "EV_S_CRTM_VERSION GCE Virtual Firmware v1"),
    ("keylime/binary_bios_measurements", 0, 0, "EV_S_CRTM_CONTENTS Boot Guard Measured S-CRTM"),
)


@pytest.mark.parametrize(("name", "pcr", "index", "words"), DESCRIPTIONS)
def test_events_have_a_name_for_people(name: str, pcr: int, index: int, words: str) -> None:
    assert event_log.describe(read(name).of(pcr)[index]) == words


def test_no_event_of_any_machine_can_surprise_a_terminal() -> None:
    logs = [read(f"google-go-tpm-tools/{name}") for name in GO_LOGS.values()]
    shown = [event_log.describe(event) for log in logs for event in log.events]
    assert len(shown) > 700
    assert all(text.isprintable() and len(text) < 120 for text in shown)


@given(kind=st.integers(0, 0xFFFFFFFF) | st.sampled_from(sorted(event_log._KINDS)), data=st.binary(max_size=300))
def test_any_data_makes_a_printable_name(kind: int, data: bytes) -> None:
    shown = event_log.describe(Event(pcr=0, kind=kind, digests={}, data=data))
    assert shown.isprintable()
    assert len(shown) < 120


def test_the_first_difference_is_found_on_either_side() -> None:
    log = read("tpm2-tools/event-arch-linux.bin")
    events = log.of(7)
    changed = events[3].with_(digests={0x0B: b"x" * 32})
    other = log.with_(events=(*events[:3], changed, *events[4:]))
    assert event_log.first_difference(log, other, 0x0B, 7) == (events[3], changed)
    shorter = log.with_(events=tuple(events[:-1]))
    assert event_log.first_difference(log, shorter, 0x0B, 7) == (events[-1], None)
    assert event_log.first_difference(shorter, log, 0x0B, 7) == (None, events[-1])
    assert event_log.first_difference(log, log, 0x0B, 7) == (None, None)


def test_no_action_is_never_extended() -> None:
    log = read("keylime/binary_bios_measurements")
    noted = log.events[0]
    assert noted.kind == event_log.NO_ACTION
    assert noted not in log.of(0)


def header(algorithms: bytes = struct.pack("<IHH", 1, 0x0B, 32), vendor: bytes = b"\x00") -> bytes:
    data = b"Spec ID Event03\x00" + bytes(8) + algorithms + vendor
    return struct.pack("<II20sI", 0, 3, bytes(20), len(data)) + data


def event(pcr: int = 7, digests: bytes = struct.pack("<IH32s", 1, 0x0B, b"d" * 32), data: bytes = b"x") -> bytes:
    return struct.pack("<II", pcr, 4) + digests + struct.pack("<I", len(data)) + data


def test_a_small_log_is_read() -> None:
    log = event_log.parse(header(vendor=b"\x03abc") + event(), "log")
    assert log.sizes == {0x0B: 32}
    assert log.of(7) == [Event(pcr=7, kind=4, digests={0x0B: b"d" * 32}, data=b"x")]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (header(struct.pack("<I", 0)), "0 algorithms"),
        (header(struct.pack("<I", 17) + bytes(68)), "17 algorithms"),
        (header(struct.pack("<IHH", 1, 0x0B, 65)), "65 bytes"),
        (header(struct.pack("<IHHHH", 2, 0x0B, 32, 0x0B, 32)), "algorithm 0xb"),
        (header(vendor=b"\x05abc"), "wanted"),
        (header() + event(digests=struct.pack("<IH20s", 1, 0x04, b"d" * 20)), "not in the header"),
        (header() + event(digests=struct.pack("<IH32sH32s", 2, 0x0B, b"d" * 32, 0x0B, b"d" * 32)), "twice"),
        (header() + event(digests=struct.pack("<I", 0x7FFFFFFF)), "digests"),
        (header() + event()[:-1], "wanted"),
        (header() + event()[:-5] + struct.pack("<I", 0x7FFFFFFF), "an event of"),
        (header() + event() + b"\x01", "wanted"),
        (bytes(4096), "is empty"),
        (b"\x01" * (4 * 1024 * 1024 + 1), "larger"),
        (header() + event(data=b"") * 20_001, "more than 20000"),
    ],
    ids=[
        "none", "seventeen", "wide digest", "doubled", "vendor", "foreign", "twice", "many digests", "cut", "huge event",
        "left over", "zeros", "too large", "too many",
    ],
)  # fmt: skip
def test_a_broken_log_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(TamperingError) as caught:
        event_log.parse(data, "log")
    assert problem in caught.value.message


def test_flipped_bits_end_in_a_log_or_in_our_error() -> None:
    chance = random.Random(7)
    for name in ("event-sd-boot-fedora37.bin", "event-uefi-sha1-log.bin", "event-bootorder.bin"):
        raw = (TOOLS / name).read_bytes()
        for _ in range(400):
            altered = bytearray(raw[: chance.randrange(1, len(raw) + 1)])
            altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
            try:
                log = event_log.parse(bytes(altered), "log")
            except TamperingError:
                continue
            for found in log.events:
                assert event_log.describe(found).isprintable()
