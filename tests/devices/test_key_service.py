# SPDX-License-Identifier: Apache-2.0
"""The key socket's answer, for a volume that was really enrolled (docs/daemon.md §5)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from devices.bench import opens_with
from keyquorum.errors import UsageError
from keyquorum.linux import crypttab
from keyquorum.unlock import key_service

if TYPE_CHECKING:
    from devices.bench import Bench

NAME = "data"
CLIENT = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.bind("\\0" + sys.argv[2])
connection.connect(sys.argv[1])
sys.stdout.buffer.write(connection.makefile("rb").read())
"""


def ask(bench: Bench, line: str, name: str = NAME) -> tuple[int, bytes]:
    """Ask as systemd-cryptsetup does, from another process; return the service's exit code and what the client got."""
    table, path = bench.write("crypttab", line), bench.path("key.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(20)
        address = f"{os.urandom(8).hex()}/cryptsetup/{name}"
        client = subprocess.Popen([sys.executable, "-c", CLIENT, path, address], stdout=subprocess.PIPE)
        connection, _ = listener.accept()
    os.unlink(path)
    with connection:
        code = key_service.answer(connection, table)
    return code, client.communicate(timeout=20)[0]


def line(volume: str, options: str = "luks") -> str:
    return f"other /dev/none none\n{NAME} {volume} /run/keyquorum/key.sock {options}\n"


def test_the_passphrase_opens_the_volume_with_stock_tools(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    volume, _, _ = bench.enrolled(3, 2, "--with-keyslot")
    capsys.readouterr()
    code, passphrase = ask(bench, line(volume))
    assert code == 0
    assert len(passphrase) == 64
    assert set(passphrase) <= set(b"0123456789abcdef")
    assert opens_with(volume, passphrase)
    assert not opens_with(volume, passphrase[:-1])
    said = capsys.readouterr()
    assert f"{NAME} gets its passphrase, from" in said.err
    assert passphrase.decode() not in said.err + said.out


def test_any_two_give_the_same_and_one_gives_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    volume, disks, _ = bench.enrolled(3, 2, "--with-keyslot")
    answers = set()
    for missing in disks:
        os.rename(missing, f"{missing}.away")
        answers.add(ask(bench, line(volume)))
        os.rename(f"{missing}.away", missing)
    assert len(answers) == 1
    for missing in disks[1:]:
        os.rename(missing, f"{missing}.away")
    capsys.readouterr()
    assert ask(bench, line(volume)) == (3, b"")
    assert f"{NAME} stays closed: the quorum is not reached: 1 more valid fragment is needed" in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--direct",)])
def test_a_volume_without_the_keyslot(
    bench: Bench, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    volume, _, _ = bench.enrolled(3, 2, *options)
    assert ask(bench, line(volume)) == (2, b"")
    assert "was enrolled without --with-keyslot" in capsys.readouterr().err


def test_a_volume_that_is_not_enrolled(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(bench, line(bench.volume())) == (2, b"")
    assert "is not enrolled" in capsys.readouterr().err


def test_a_volume_of_an_owner_nobody_knows_here(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    volume, _, _ = bench.enrolled(3, 2, "--with-keyslot")
    os.rename(bench.anchor(volume), bench.path("anchor"))
    assert ask(bench, line(volume)) == (2, b"")
    assert "knows no owner" in capsys.readouterr().err


def test_a_detached_header_is_found_by_its_option(bench: Bench) -> None:
    volume, _, _ = bench.enrolled(3, 2, "--with-keyslot")
    empty = bench.write("empty.img", bytes(1 << 20))
    code, passphrase = ask(bench, line(empty, f"luks,header={volume}"))
    assert (code, len(passphrase)) == (0, 64)


def test_a_client_that_went_away(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    volume, _, _ = bench.enrolled(3, 2, "--with-keyslot")
    table, path = bench.write("crypttab", line(volume)), bench.path("key.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.bind(f"\0{os.urandom(8).hex()}/cryptsetup/{NAME}")
        client.connect(path)
        connection, _ = listener.accept()
        client.close()
        with connection:
            assert key_service.answer(connection, table) == 1
    assert "does not take its passphrase" in capsys.readouterr().err


def test_it_ends_in_time_when_holders_are_missing(bench: Bench) -> None:
    volume, disks, _ = bench.enrolled(3, 2, "--with-keyslot")
    for disk in disks:
        os.unlink(disk)
    started = time.monotonic()
    assert ask(bench, line(volume)) == (3, b"")
    assert time.monotonic() - started < 30


def test_started_as_systemd_starts_it(bench: Bench) -> None:
    """Descriptor 3 and the two variables of sd_listen_fds(3); /etc/crypttab of this machine has no such volume, or is not there."""
    with pytest.raises(UsageError) as refusal:
        crypttab.find("keyquorum-test-volume")
    address = f"{os.urandom(8).hex()}/cryptsetup/keyquorum-test-volume"
    path = bench.path("key.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.bind(f"\0{address}")
        client.connect(path)
        connection, _ = listener.accept()
        with connection:
            program = (
                "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
                "from keyquorum.unlock.key_service import main; sys.exit(main())"
            )
            number = connection.fileno()
            words = [sys.executable, "-c", program, str(number)]
            done = subprocess.run(words, pass_fds=[number], stderr=subprocess.PIPE, check=False, timeout=60)
        assert done.returncode == 2
        assert refusal.value.message.encode() in done.stderr
        client.settimeout(10)
        assert client.recv(1) == b""
