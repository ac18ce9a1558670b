# SPDX-License-Identifier: Apache-2.0
"""The machine's settings: the table, what it reads, and each refusal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keyquorum import settings
from keyquorum.errors import MalformedError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_table_names_every_field_once_and_explains_it() -> None:
    names = [row.name for row in settings.TABLE]
    assert tuple(names) == settings.Settings._fields
    assert len(set(names)) == len(names)
    for row in settings.TABLE:
        assert row.help[0].islower() or row.help.split()[0] == "PKCS#11"
        assert not row.help.endswith(".")
        row.read(row.default)


def test_without_a_file_everything_has_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYQUORUM_CONFIG", str(tmp_path / "none"))
    found = settings.load()
    assert found == settings.parse("")
    assert (found.holder_timeout, found.unlock_timeout, found.prompt_timeout, found.linger) == (5.0, 20.0, 60.0, True)
    assert (found.owner_key, found.volumes) == ("/etc/keyquorum/owner.key", "/etc/keyquorum/volumes")
    assert (found.pcr_signature, found.pkcs11_module) == ((), ())


def test_lines_comments_and_space() -> None:
    text = """
# comment
  holder_timeout=2.5   # so it goes
\tlinger =  no
pkcs11_module = /a.so   /b.so
pcr_signature =
"""
    found = settings.parse(text)
    assert (found.holder_timeout, found.linger, found.pkcs11_module) == (2.5, False, ("/a.so", "/b.so"))
    assert found.pcr_signature == ()
    assert found.unlock_timeout == 20.0


def test_the_file_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.conf"
    file.write_text("volumes = /somewhere\r\nlinger = no\r\n")
    monkeypatch.setenv("KEYQUORUM_CONFIG", str(file))
    assert (settings.load().volumes, settings.load().linger) == ("/somewhere", False)


REFUSED = {
    "unknown": ("colour = blue", "line 1: 'colour' is no setting (see keyquorum.conf(5))"),
    "no value": ("\nlinger", "line 2: 'linger' is no setting (see keyquorum.conf(5))"),
    "section": ("[keyquorum]", "line 1: '[keyquorum]' is no setting (see keyquorum.conf(5))"),
    "control characters": ("\x1b[2J = 1", "line 1: '\\x1b[2J' is no setting (see keyquorum.conf(5))"),
    "twice": ("linger = no\nlinger = no", "line 2: linger is set twice"),
    "no number": ("holder_timeout = soon", "holder_timeout: must be seconds, from 0 to 86400"),
    "empty number": ("holder_timeout =", "holder_timeout: must be seconds, from 0 to 86400"),
    "negative time": ("unlock_timeout = -1", "unlock_timeout: must be seconds, from 0 to 86400"),
    "endless time": ("unlock_timeout = inf", "unlock_timeout: must be seconds, from 0 to 86400"),
    "no time at all": ("prompt_timeout = nan", "prompt_timeout: must be seconds, from 0 to 86400"),
    "more than a day": ("prompt_timeout = 86401", "prompt_timeout: must be seconds, from 0 to 86400"),
    "half a flag": ("linger = true", "linger: must be yes or no"),
    "relative path": ("volumes = volumes", "volumes: must be an absolute path"),
    "empty path": ("owner_key =", "owner_key: must be an absolute path"),
    "one relative path of several": ("pkcs11_module = /a.so b.so", "pkcs11_module: must be an absolute path"),
    "zero byte in a path": ("volumes = /a\0b", "volumes: must be an absolute path"),
    "an emulator for a directory": ("volumes = swtpm:port=1", "volumes: must be an absolute path"),
    "relative TPM": ("tpm_device = tpm0", "tpm_device: must be an absolute path"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    text, words = REFUSED[name]
    with pytest.raises(MalformedError) as caught:
        settings.parse(text, "my.conf")
    assert str(caught.value) == f"my.conf: {words}"
    assert caught.value.exit_code == 2


def test_a_tpm_emulator_is_a_tpm() -> None:
    assert settings.parse("tpm_device = swtpm:host=127.0.0.1,port=1").tpm_device.startswith("swtpm:")


def test_files_that_cannot_be_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYQUORUM_CONFIG", str(tmp_path))
    with pytest.raises(MalformedError, match="cannot be read: Is a directory"):
        settings.load()
    large = tmp_path / "large"
    large.write_bytes(b"#" * (64 * 1024 + 1))
    monkeypatch.setenv("KEYQUORUM_CONFIG", str(large))
    with pytest.raises(MalformedError, match="is larger than 65536 bytes"):
        settings.load()
    os.truncate(large, 64 * 1024)
    settings.load()
    large.write_bytes(b"\xff\xfe=1")
    with pytest.raises(MalformedError, match="is no setting"):
        settings.load()


@hypothesis_settings(deadline=None)
@given(st.text(max_size=80) | st.sampled_from([row.name for row in settings.TABLE]).map(lambda n: f"{n} = \u0663\0"))
def test_no_text_makes_another_error(text: str) -> None:
    try:
        settings.parse(text)
    except MalformedError:
        return
