# SPDX-License-Identifier: Apache-2.0
"""Measuring what was opened, as systemd-cryptsetup does it (docs/holders-tpm.md §8)."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.tpm_emulator import Emulator, Proxy
from devices.tpm_support import pcr
from keyquorum.errors import UnavailableError
from keyquorum.linux import measurement_log
from keyquorum.secret import VolumeKey
from keyquorum.tpm2 import measurement

UUID = "6d1c7d1e-5ab0-4d6f-8b0e-000000000001"
KEY = bytes(range(64))


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        yield emulator


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "log" / "tpm2-measure.log"
    monkeypatch.setattr(measurement_log, "USERSPACE_LOG", str(path))
    return path


def measure(device: str, name: str, number: int = 15) -> None:
    with VolumeKey.from_view(KEY) as key:
        measurement.measure_volume_key(device, number, name, UUID, key)


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("root", "root"),
        ("luks-" + UUID, "luks-" + UUID),
        ("a:b", "a\\x3ab"),
        ("a\\b", "a\\x5cb"),
        ("dat\u00e4", "dat\\xc3\\xa4"),
        ("tab\there\x7f", "tab\\x09here\\x7f"),
        ("with space", "with space"),
    ],
)
def test_the_name_is_escaped_as_systemd_does(name: str, escaped: str) -> None:
    assert measurement.volume_string(name, UUID) == f"cryptsetup:{escaped}:{UUID}"


def test_every_bank_gets_an_hmac_under_the_volume_key(tpm: Emulator, log: Path) -> None:
    measure(tpm.device, "root")
    text = f"cryptsetup:root:{UUID}"
    sizes = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
    digests = {bank: hmac.digest(KEY, text.encode(), bank) for bank in sizes}
    for bank, size in sizes.items():
        assert pcr(tpm.device, 15, bank) == hashlib.new(bank, bytes(size) + digests[bank]).digest()
    record = json.loads(log.read_bytes().removeprefix(b"\x1e"))
    assert {row["hashAlg"]: row["digest"] for row in record["digests"]} == {
        bank: digest.hex() for bank, digest in digests.items()
    }
    assert (record["pcr"], record["content"]["string"]) == (15, text)
    assert record["content"]["eventType"] == "volume-key"


def test_volumes_are_told_apart_and_ordered(tpm: Emulator, log: Path) -> None:
    values = []
    for names in (("root", "data"), ("data", "root"), ("root", "root")):
        tpm.restart()
        for name in names:
            measure(tpm.device, name)
        values.append(pcr(tpm.device, 15))
    assert len(set(values)) == 3
    assert log.read_bytes().count(b"\x1e") == 6


def test_the_key_itself_never_passes_the_bus(tpm: Emulator, log: Path) -> None:
    with Proxy(tpm) as proxy:
        measure(proxy.device, "root")
    traffic = b"".join(proxy.commands + proxy.responses)
    for hidden in (KEY[:16], KEY[32:48], hashlib.sha256(KEY).digest()):
        assert hidden not in traffic


def test_a_tpm_that_is_not_there_is_said(log: Path) -> None:
    with pytest.raises(UnavailableError):
        measure("/dev/there-is-no-tpm", "root")
    assert not log.exists()


def test_a_silent_tpm_costs_its_deadline(tpm: Emulator, log: Path) -> None:
    with Proxy(tpm, lambda _command, _response: None) as proxy, VolumeKey.from_view(KEY) as key:
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            measurement.measure_volume_key(proxy.device, 15, "root", UUID, key, deadline=started + 0.2)
        assert time.monotonic() - started < 30
