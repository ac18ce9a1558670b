# SPDX-License-Identifier: Apache-2.0
"""A token that really locks: tpm2-pkcs11 on swtpm, whose TPM counts wrong PINs. It also knows OAEP with SHA-256."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.holder_tasks import Given, identity, open_task, seal_task
from devices.tokens import PIN, SO_PIN, tool
from devices.tpm_emulator import Emulator
from keyquorum.errors import RefusedError
from keyquorum.holders import load
from keyquorum.holders.contract import Tuning
from keyquorum.model.holder_options import Pkcs11Options

HOLDER = load("pkcs11")
MODULE = "libtpm2_pkcs11.so.1"
TUNING = Tuning(pkcs11_modules=(MODULE,))
OPTIONS = Pkcs11Options(uri="pkcs11:token=chip;object=kq")


def command(*arguments: str) -> None:
    tool("pkcs11-tool", "--module", MODULE, *arguments)


@pytest.fixture
def chip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    emulator = Emulator(str(tmp_path / "tpm"))
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("TPM2_PKCS11_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TPM2_PKCS11_TCTI", emulator.device)
    monkeypatch.setenv("TSS2_LOG", "all+none")
    command("--init-token", "--slot-index", "0", "--label", "chip", "--so-pin", SO_PIN)
    command("--init-pin", "--token-label", "chip", "--so-pin", SO_PIN, "--login", "--pin", PIN)
    login = ("--token-label", "chip", "--login", "--pin", PIN)
    command(*login, "--keypairgen", "--key-type", "rsa:2048", "--label", "kq", "--id", "01", "--usage-decrypt")
    yield emulator
    emulator.stop()


def test_wrong_pins_until_the_token_is_locked(chip: Emulator) -> None:
    kept = identity()
    where = HOLDER.seal(seal_task(OPTIONS, Given([PIN.encode()]), kept, TUNING))
    assert where["mechanism"] == "rsa-oaep-sha256"
    with HOLDER.open(open_task(where, Given([PIN.encode()]), TUNING)).identity as found:
        assert found.equals(kept)
    words = []
    for _ in range(5):
        with pytest.raises(RefusedError) as caught:
            HOLDER.open(open_task(where, Given([b"000000"]), TUNING))
        words.append(caught.value)
    assert words[0].message == 'the PIN of token "chip" (serial 0000000000000000) is wrong'
    assert words[-1].message == 'the PIN of token "chip" (serial 0000000000000000) is locked'
    assert "security officer" in words[-1].hint
    with pytest.raises(RefusedError, match="is locked"):
        HOLDER.open(open_task(where, Given([PIN.encode()]), TUNING))
