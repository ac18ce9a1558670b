# SPDX-License-Identifier: Apache-2.0
"""The custodian's settings: what init writes is read, what is forgotten or misspelt is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keyquorum.custodian import site_settings
from keyquorum.custodian.site import Site
from keyquorum.custodian.site_settings import Address, SiteSettings, WitnessAt
from keyquorum.errors import MalformedError
from keyquorum.linux import atomic_file
from unit.custodian.notes import KEYS, LOG

FULL = SiteSettings(
    origin="custodian.example/paris",
    listen=(Address(host="::", port=8443), Address(host="192.0.2.1", port=443)),
    monitor=None,
    workers=4,
    labels={"region": 'eu "west" \\', "country": "FR"},
    witnesses=KEYS,
    logs=(LOG.key,),
    auditors={"oslo": bytes(32)},
    operators={"anna b": b"\x01" * 32},
    unsafe_without_witnesses=False,
    keep_days=30,
    ask={KEYS[0].name: WitnessAt(address=Address(host="192.0.2.9", port=8443), name="oslo", authority="oslo.pem")},
    ask_every=60,
)
MAY_BE_MISSING = (b'"', b"unsafe", b"keep_days", b"ask_every")  # labels and keys, what is safe by default, defaults
TEXT = site_settings.serialise(FULL)


def test_what_is_written_is_read() -> None:
    assert site_settings.parse(TEXT, "custodian.toml") == FULL


@pytest.mark.parametrize("line", [line for line in TEXT.splitlines() if line.strip() and not line.startswith(b"#")])
def test_nothing_may_be_missing(line: bytes) -> None:
    without = TEXT.replace(line + b"\n", b"", 1)
    if line.startswith(MAY_BE_MISSING):
        site_settings.parse(without, "custodian.toml")
        return
    with pytest.raises(MalformedError):
        site_settings.parse(without, "custodian.toml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 1", "version = 2"),
        ("workers = 4", "workers = 0"),
        ("workers = 4", "workers = 65"),
        ("workers = 4", "wokers = 4"),
        ("keep_days = 30", "keep_days = 0"),
        ("ask_every = 60", "ask_every = 0"),
        ('[ask."', '[ask."x'),
        ('at = "192.0.2.9:8443"', 'at = "192.0.2.9"'),
        ('"[::]:8443"', '"::8443"'),
        ('"[::]:8443"', '"[::]"'),
        ('"[::]:8443"', '"192.0.2.1:65536"'),
        ('"[::]:8443"', '"[192.0.2.1]:1"'),
        ("custodian.example/paris", "custodian example"),
        ('"country" = "FR"', '"county" = "FR"'),
        ("00" * 32, "00" * 31),
        ("version = 1", "version = "),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str) -> None:
    assert old.encode() in TEXT
    with pytest.raises(MalformedError):
        site_settings.parse(TEXT.replace(old.encode(), new.encode()), "custodian.toml")


def test_no_address_is_no_server() -> None:
    with pytest.raises(MalformedError, match="nobody could ask"):
        site_settings.parse(TEXT.replace(b'["[::]:8443", "192.0.2.1:443"]', b"[]"), "custodian.toml")
    with pytest.raises(MalformedError, match="more than"):
        site_settings.parse(TEXT + b"#" * site_settings.MAX_FILE, "custodian.toml")


def test_what_root_gives_to_the_service_is_the_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is the service's: by a link in the file's place it would get whatever root owns."""
    note, victim = tmp_path / "newest.note", tmp_path / "shadow"
    victim.write_bytes(b"")

    def swap(_directory: str) -> None:
        note.unlink()
        note.symlink_to(victim)

    given: list[str] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, *_: given.append(os.path.realpath(path)))
    monkeypatch.setattr(os, "fchown", lambda number, *_: given.append(os.readlink(f"/proc/self/fd/{number}")))
    monkeypatch.setattr(atomic_file, "sync_directory", swap)
    Site(str(tmp_path)).put("newest.note", b"a checkpoint")
    assert given == [f"{note}.{os.getpid()}.new"]
