# SPDX-License-Identifier: Apache-2.0
"""The TPM holder against a real TPM emulator: it opens when it should, and what it says when it does not."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.tpm_emulator import Emulator
from devices.tpm_support import (
    LOCKOUT,
    OWNER,
    SUBJECT,
    Enrolment,
    client,
    extend,
    forget_storage_key,
    loaded,
    pcr,
    second_opinion,
)
from keyquorum.errors import RefusedError, UnavailableError, UsageError
from keyquorum.holders.tpm import HOLDER
from keyquorum.linux import measurement_log
from keyquorum.model import strict_json
from keyquorum.model.holder_options import TpmOptions
from keyquorum.tpm2 import commands, creation, public
from keyquorum.tpm2.client import EMPTY_PASSWORD
from keyquorum.tpm2.wire import SHA1, SHA256, SHA384, SHA512, u16, u32


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        yield emulator


def enrol(tpm: Emulator, tmp_path: Path, typed: bytes = b"", **options: Any) -> Enrolment:
    return Enrolment(tpm.device, str(tmp_path / "reference"), TpmOptions(**options), typed)


OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"pcrs": (7,)},
    {"pcrs": (0, 1, 2, 3, 4, 5, 7, 9)},
    {"pcrs": tuple(range(24))},
    {"pcrs": (7,), "bank": "sha384"},
    {"pcrs": (7, 15), "bank": "sha1"},
    {"pcrs": (7,), "bank": "sha512"},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_was_sealed_opens(tpm: Emulator, tmp_path: Path, options: dict[str, Any]) -> None:
    enrolment = enrol(tpm, tmp_path, **options)
    assert enrolment.opens()
    assert enrolment.opens(), "as often as asked"
    assert not HOLDER.needs_person(enrolment.where)


def test_it_opens_after_a_restart_and_without_the_kept_key(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = enrol(tpm, tmp_path, pcrs=(7,))
    tpm.restart()
    assert enrolment.opens()
    forget_storage_key(tpm.device)
    with client(tpm.device) as own:
        assert commands.read_storage_root_key(own) is None
    assert enrolment.opens(), "the key is derived from the TPM's seed"


def test_where_is_small(tpm: Emulator, tmp_path: Path) -> None:
    sizes = [
        len(strict_json.serialise(enrol(tpm, tmp_path, pcrs=pcrs).where)) for pcrs in ((7,), (0, 1, 2, 3, 4, 5, 7, 9))
    ]
    assert sizes[0] < 600
    assert sizes[1] < 1000


def test_nothing_is_left_in_the_tpm(tpm: Emulator, tmp_path: Path) -> None:
    """A TPM has room for three objects and three sessions; none may stay, on any way out."""
    enrolment = enrol(tpm, tmp_path, b"1234", pcrs=(7,), pin=True)
    for _ in range(6):
        with pytest.raises(RefusedError):
            enrolment.open(b"wrong")
        with second_opinion(tpm.device) as tss:
            tss.dictionary_attack_lock_reset(LOCKOUT)
        assert enrolment.opens(b"1234")
    forget_storage_key(tpm.device)
    for _ in range(6):
        assert enrolment.opens(b"1234")
        with pytest.raises(RefusedError):
            enrolment.open(where={**flip(enrolment.where, "private", 40)}, pin=b"1234")
    extend(tpm.device, 7)
    for _ in range(6):
        with pytest.raises(RefusedError):
            enrolment.open(b"1234")
    assert loaded(tpm.device) == []


def test_a_changed_pcr_is_named(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = enrol(tpm, tmp_path, pcrs=(4, 7, 11))
    before = pcr(tpm.device, 7)
    extend(tpm.device, 7)
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    now = pcr(tpm.device, 7)
    wanted = f"PCR 7 (Secure Boot policy) differs: enrolled {before.hex()[:16]}…, now {now.hex()[:16]}…"
    assert caught.value.message == wanted
    assert not caught.value.tampered
    extend(tpm.device, 11)
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert caught.value.message.count("PCR ") == 2
    assert "; PCR 11 (unified kernel image) differs" in caught.value.message
    tpm.restart()
    assert enrolment.opens(), "the next boot measures the same again"


def test_a_pcr_that_is_not_bound_may_change(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = enrol(tpm, tmp_path, pcrs=(7,))
    extend(tpm.device, 8)
    assert enrolment.opens()


def test_the_event_that_differs_is_named(
    tpm: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectors: Callable[[str], Path]
) -> None:
    """The firmware's log is a real machine's; its PCR 4 is measured into the emulator event by event."""
    from keyquorum.evidence import event_log

    raw = vectors("attest/tpm/tpm2-tools/event-arch-linux.bin").read_bytes()
    firmware = tmp_path / "binary_bios_measurements"
    firmware.write_bytes(raw)
    monkeypatch.setattr(measurement_log, "FIRMWARE_LOG", str(firmware))
    events = event_log.parse(raw, "log").of(4)

    def boot(digests: list[bytes]) -> None:
        tpm.restart()
        with client(tpm.device) as own:
            for digest in digests:
                commands.pcr_extend(own, 4, {"sha256": digest})

    boot([event.digests[0x0B] for event in events])
    enrolment = enrol(tpm, tmp_path, pcrs=(4,))
    kept = tmp_path / "reference" / f"{SUBJECT.volume}-{SUBJECT.name}.eventlog"
    assert kept.read_bytes() == raw
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    changed = [event.digests[0x0B] for event in events[:-1]] + [b"n" * 32]
    firmware.write_bytes(raw.replace(events[-1].digests[0x0B], b"n" * 32).replace(
        "\\vmlinuz-linux-lts".encode("utf-16-le"), "\\vmlinuz-linux-xxx".encode("utf-16-le")))  # fmt: skip
    boot(changed)
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert caught.value.message.endswith(
        ", from EV_EFI_BOOT_SERVICES_APPLICATION \\vmlinuz-linux-lts on,"
        " now EV_EFI_BOOT_SERVICES_APPLICATION \\vmlinuz-linux-xxx"
    )
    other = raw.replace(events[0].digests[0x0B], b"o" * 32)
    for lie in (raw, other, b"no log", b""):  # a log that does not explain the PCR is not believed
        firmware.write_bytes(lie)
        with pytest.raises(RefusedError) as caught:
            enrolment.open()
        assert "EV_" not in caught.value.message
        assert "PCR 4 (boot loader) differs" in caught.value.message


def test_an_event_log_that_cannot_be_kept_is_told(
    tpm: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement_log, "FIRMWARE_LOG", "/proc/self/status")
    (tmp_path / "reference").touch()
    enrolment = enrol(tpm, tmp_path, pcrs=(7,))
    assert any("refusals will name PCRs but no events" in line for line in enrolment.shown)
    assert enrolment.opens()


def test_another_tpm_is_recognised(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = enrol(tpm, tmp_path, pcrs=(7,))
    with Emulator(str(tmp_path / "other")) as other:
        for provisioned in (False, True):
            if provisioned:
                enrol(other, tmp_path)
            with pytest.raises(RefusedError) as caught:
                enrolment.open(device=other.device)
            assert caught.value.message.startswith("this is another TPM, or it was cleared")
            enrolled = base64.b64decode(enrolment.where["srk"]["name"]).hex()[:16]
            assert f"enrolled was {enrolled}…" in caught.value.message
            assert not caught.value.tampered
    assert enrolment.opens()


def test_a_cleared_tpm_is_another_tpm(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = enrol(tpm, tmp_path)
    with second_opinion(tpm.device) as tss:
        tss.clear(LOCKOUT)
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert "cleared" in caught.value.message


def provision_rsa(tpm: Emulator) -> None:
    with client(tpm.device) as own:
        handle, _ = commands.create_primary(own, public.SRK_TEMPLATES["rsa"])
        creation.persist_storage_root_key(own, handle)
        own.flush(handle)


def test_an_rsa_storage_key_that_is_there_is_used(tpm: Emulator, tmp_path: Path) -> None:
    provision_rsa(tpm)
    enrolment = enrol(tpm, tmp_path, b"1234", pcrs=(7,), pin=True)
    assert enrolment.where["srk"]["type"] == "rsa"
    assert enrolment.opens(b"1234")


def test_a_key_of_another_kind_at_the_handle_is_left_alone(tpm: Emulator, tmp_path: Path) -> None:
    template = bytearray(public.SRK_TEMPLATES["ecc"])
    template[4:8] = (0x00040072).to_bytes(4, "big")  # a signing key
    signing = bytes(template[:10]) + bytes.fromhex("0010 0010 0003 0010 0000 0000")
    with client(tpm.device) as own:
        handle, area = commands.create_primary(own, signing)
        creation.persist_storage_root_key(own, handle)
        own.flush(handle)
    enrolment = enrol(tpm, tmp_path, pcrs=(7,))
    [told] = [line for line in enrolment.shown if "storage root key" in line]
    assert "is no storage root key that fits" in told
    assert enrolment.opens()
    with client(tpm.device) as own:
        assert commands.read_storage_root_key(own) == area


def test_a_storage_key_with_a_password_is_refused_in_words(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = enrol(tpm, tmp_path, pcrs=(7,))
    forget_storage_key(tpm.device)
    with second_opinion(tpm.device) as tss:
        tss.hierarchy_change_auth(OWNER, b"secret")
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert "CreatePrimary" in caught.value.message
    assert "password" in caught.value.hint


def test_a_disabled_hierarchy_is_unavailable(tpm: Emulator, tmp_path: Path) -> None:
    enrolment = enrol(tpm, tmp_path)
    with second_opinion(tpm.device) as tss:
        tss.hierarchy_control(OWNER, OWNER, False)
    with pytest.raises((UnavailableError, RefusedError)) as caught:
        enrolment.open()
    assert caught.value.message


ALTERED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "private": lambda where: flip(where, "private", 40),
    "private's end": lambda where: flip(where, "private", -1),
    "public": lambda where: flip(where, "public", -1),
    "policy in public": lambda where: flip(where, "public", 20),
    "attributes": lambda where: flip(where, "public", 7),
    "PCR value": lambda where: {**where, "pcrs": {"7": base64.b64encode(b"x" * 32).decode()}},
    "PCR number": lambda where: {**where, "pcrs": {"8": where["pcrs"]["7"]}},
    "no PCR": lambda where: {name: value for name, value in where.items() if name != "pcrs"},
    "a PIN": lambda where: {**where, "pin": base64.b64encode(bytes(16)).decode()},
    "cut private": lambda where: {**where, "private": base64.b64encode(b"q" * 20).decode()},
    "no private": lambda where: {**where, "private": ""},
    "version": lambda where: {**where, "version": 2},
    "nothing": lambda _where: {},
}


def flip(where: dict[str, Any], name: str, byte: int) -> dict[str, Any]:
    raw = bytearray(base64.b64decode(where[name]))
    raw[byte] ^= 1
    return {**where, name: base64.b64encode(bytes(raw)).decode()}


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_where_never_opens(tpm: Emulator, tmp_path: Path, what: str) -> None:
    enrolment = enrol(tpm, tmp_path, pcrs=(7,))
    with pytest.raises(RefusedError) as caught:
        enrolment.open(where=ALTERED[what](enrolment.where))
    assert caught.value.tampered
    assert enrolment.opens(), "the TPM is as before"


@pytest.mark.parametrize(
    "device",
    ["/dev/there-is-no-tpm", "/dev/null", "/etc/passwd", "swtpm:host=127.0.0.1,port=1", "swtpm:", "swtpm:port=x"],
)
def test_a_device_that_is_none_is_unavailable(tpm: Emulator, tmp_path: Path, device: str) -> None:
    enrolment = enrol(tpm, tmp_path)
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(UnavailableError) as caught:
        enrolment.open(device=device)
    assert os.listdir("/proc/self/fd") == descriptors
    assert device.partition(":")[0] in caught.value.message


def test_pcrs_that_the_tpm_lacks_are_refused_at_enrolment(tpm: Emulator, tmp_path: Path) -> None:
    everything, nothing = b"\x03\xff\xff\xff", b"\x03\x00\x00\x00"
    only_sha256 = (
        u32(4) + u16(SHA1) + nothing + u16(SHA256) + everything + u16(SHA384) + nothing + u16(SHA512) + nothing
    )
    with client(tpm.device) as own:  # TPM2_PCR_Allocate by the platform
        own.run(0x12B, (0x4000000C,), only_sha256, EMPTY_PASSWORD)
    tpm.restart()
    with pytest.raises(UsageError) as caught:
        enrol(tpm, tmp_path, pcrs=(7,), bank="sha1")
    assert caught.value.message == "this TPM has no PCR 7 in its sha1 bank"
    assert caught.value.hint == "banks that have it: sha256"


def test_an_unused_pcr_is_told_at_enrolment(tpm: Emulator, tmp_path: Path) -> None:
    extend(tpm.device, 7)
    shown = enrol(tpm, tmp_path, pcrs=(7, 9)).shown
    assert len(shown) == 1
    assert shown[0].startswith("PCR 9 holds nothing")


def test_the_identity_stays_out_of_python(tpm: Emulator, tmp_path: Path) -> None:
    """Nothing that the holder leaves in readable memory holds it; the search itself is proven by a planted copy."""
    enrolment = enrol(tpm, tmp_path, pcrs=(7,))
    script = Path(__file__).with_name("tpm_residue.py")
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}

    def found(mode: str) -> int:
        arguments = [sys.executable, str(script), mode, tpm.device, strict_json.serialise(enrolment.where).decode()]
        done = subprocess.run(
            arguments, input=enrolment.raw, capture_output=True, check=True, timeout=60, env=environment
        )
        return int(done.stdout)

    assert found("planted") == 1
    assert found("open") == 0
