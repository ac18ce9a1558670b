# SPDX-License-Identifier: Apache-2.0
"""Who may ask for a passphrase, and for which volume (docs/daemon.md §5)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.unlock import key_service
from keyquorum.unlock.key_service import Client, wanted_name

if TYPE_CHECKING:
    from pathlib import Path


def test_the_volume_is_in_the_clients_address() -> None:
    assert wanted_name(Client(user=0, address="5f2c1e/cryptsetup/data")) == "data"


@pytest.mark.parametrize(
    "address",
    [
        *("", "x", "5f/cryptsetup", "5f/cryptsetup/", "/cryptsetup/data", "5f/cryptsetup/a/b", "5f/cryptsetup//data"),
        *("5f/cryptsetup-pkcs11/data", "5f/cryptsetup-tpm2/data", "5f/cryptsetup-fido2/data", "5f/other/data"),
        *("5f/cryptsetup/da\nta", "5f/cryptsetup/\x1b[2J", "5f/cryptsetup/\ufffd\0"),
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="does not say which volume"):
        wanted_name(Client(user=0, address=address))


@pytest.mark.parametrize("user", [1, 1000, 65534, 0xFFFFFFFF])
def test_nobody_but_root_may_ask(user: int) -> None:
    with pytest.raises(UsageError, match=f"user {user} may not ask"):
        wanted_name(Client(user=user, address="5f/cryptsetup/data"))


def connected(path: str, bound: str | None, user: int = 0) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A connection as a client in another process makes it; the client waits until its input ends."""
    program = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        f"os.setuid({user})\n"
        f"bound = {bound!r}\n"
        "bound is None or s.bind('\\0' + bound)\n"
        f"s.connect({path!r})\n"
        "sys.stdout.buffer.write(s.makefile('rb').read())\n"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o777)
        listener.listen()
        listener.settimeout(20)
        client = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        connection, _ = listener.accept()
    return connection, client


@pytest.mark.parametrize(
    ("bound", "user", "words"),
    [
        ("5f/cryptsetup/none", 0, "no line for none"),
        ("5f/cryptsetup-tpm2/data", 0, "does not say which volume"),
        (None, 0, "does not say which volume"),
        ("5f/cryptsetup/data", 65534, "user 65534 may not ask"),
    ],
)
def test_a_client_that_gets_nothing(tmp_path: Path, bound: str | None, user: int, words: str) -> None:
    os.chmod(tmp_path, 0o755)
    crypttab = tmp_path / "crypttab"
    crypttab.write_text("data /dev/none /run/keyquorum/key.sock luks\n")
    directory = f"/tmp/kq-key-{os.getpid()}"  # a client of another user must be able to reach it
    os.mkdir(directory, 0o755)
    connection, client = connected(f"{directory}/sock", bound, user)
    with connection, pytest.raises(KeyquorumError, match=words):
        key_service.answer(connection, str(crypttab))
    assert client.communicate(timeout=20)[0] == b""
    os.unlink(f"{directory}/sock")
    os.rmdir(directory)


def test_a_client_of_another_kind() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there, pytest.raises(UsageError, match="not a stream"):
        key_service.answer(here, "/dev/null")


def test_started_by_hand_it_explains_itself() -> None:
    done = subprocess.run([sys.executable, "-m", "keyquorum.unlock.key_service"], stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert b"started by keyquorum-key.socket" in done.stderr
