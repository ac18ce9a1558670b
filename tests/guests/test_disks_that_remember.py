# SPDX-License-Identifier: Apache-2.0
"""The NBD server, its faults and the replay of its log, against a client without a guest."""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from guests.nbd_protocol import EIO, EPERM, FLUSH, FUA, READ, WRITE, exactly
from guests.nbd_server import Faults, NbdServer
from guests.places import run_directory, socket_path
from guests.write_log import Cut, WriteLog, cuts, differing_sectors, replay, unsettled

SIZE = 1 << 20


class Client:
    """Just enough of an NBD client; answers may come in any order and are asked for one by one."""

    def __init__(self, path: str) -> None:
        self.line = socket.socket(socket.AF_UNIX)
        self.line.settimeout(10)
        self.line.connect(path)
        exactly(self.line, 18)
        self.line.sendall(struct.pack(">I", 3) + struct.pack(">QII", 0x49484156454F5054, 1, 0))
        self.size, self.flags = struct.unpack(">QH", exactly(self.line, 10))

    def send(self, kind: int, offset: int = 0, size: int = 0, data: bytes = b"", flags: int = 0) -> None:
        self.line.sendall(struct.pack(">IHHQQI", 0x25609513, flags, kind, offset + 1, offset, len(data) or size) + data)

    def receive(self, size: int = 0) -> tuple[int, bytes]:
        _, error, _ = struct.unpack(">IIQ", exactly(self.line, 16))
        return error, exactly(self.line, size) if not error else b""

    def read(self, offset: int, size: int) -> tuple[int, bytes]:
        self.send(READ, offset, size)
        return self.receive(size)

    def write(self, offset: int, data: bytes, flags: int = 0) -> int:
        self.send(WRITE, offset, data=data, flags=flags)
        return self.receive()[0]

    def flush(self) -> int:
        self.send(FLUSH)
        return self.receive()[0]

    def silent(self) -> bool:
        self.line.settimeout(0.2)
        try:
            self.line.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.line.settimeout(10)
        return False


@pytest.fixture
def log() -> Iterator[WriteLog]:
    with WriteLog() as found:
        yield found


@pytest.fixture
def server(tmp_path: Path, log: WriteLog) -> Iterator[NbdServer]:
    image = tmp_path / "image"
    image.write_bytes(bytes(SIZE))
    with run_directory() as directory, NbdServer(str(image), socket_path(directory, "s"), name="a", log=log) as found:
        yield found


@pytest.fixture
def client(server: NbdServer) -> Iterator[Client]:
    found = Client(server.path)
    yield found
    found.line.close()


def test_writes_flushes_and_marks_are_kept_in_order(client: Client, log: WriteLog) -> None:
    assert client.size == SIZE
    assert client.write(512, b"1" * 512) == 0
    log.mark("between")
    assert client.flush() == 0
    assert client.write(0, b"2" * 1024, FUA) == 0
    assert client.read(512, 512) == (0, b"2" * 512)
    said = [(event.kind, event.offset, event.size, event.forced, event.text) for event in log.events]
    assert said == [
        ("write", 512, 512, False, ""),
        ("mark", 0, 0, False, "between"),
        ("flush", 0, 0, False, ""),
        ("write", 0, 1024, True, ""),
    ]
    assert [log.data(event)[:1] for event in log.writes] == [b"1", b"2"]


def test_requests_outside_the_disk_are_refused(client: Client, log: WriteLog) -> None:
    assert client.write(SIZE, b"x") != 0
    assert client.read(SIZE - 1, 2)[0] != 0
    assert not log.writes


def test_silence_holds_until_it_is_lifted(client: Client, server: NbdServer) -> None:
    server.faults = Faults(reads="silent")
    client.send(READ, 0, 512)
    assert server.wait_for_requests(1, 10)
    assert client.silent()
    assert client.write(0, b"n" * 512) == 0  # writes still work
    server.faults = Faults()
    assert client.receive(512) == (0, b"n" * 512)


def test_a_silenced_write_of_a_dead_machine_is_never_done(client: Client, server: NbdServer, log: WriteLog) -> None:
    server.faults = Faults(writes="silent")
    client.send(WRITE, 0, data=b"g" * 512)
    assert server.wait_for_requests(1, 10)
    client.line.shutdown(socket.SHUT_RDWR)
    assert server.wait_for_clients(0, 10)
    server.faults = Faults()
    other = Client(server.path)
    assert other.read(0, 512) == (0, bytes(512))
    assert not log.writes
    other.line.close()


def test_errors_and_read_only(client: Client, server: NbdServer) -> None:
    server.faults = Faults(reads="error", writes="error")
    assert client.read(0, 512)[0] == EIO
    assert client.write(0, b"x" * 512) == EIO
    assert client.flush() == EIO
    server.faults = Faults(read_only=True)
    assert client.write(0, b"x" * 512) == EPERM
    assert client.read(0, 512) == (0, bytes(512))
    server.faults = Faults(slow=0.05)
    assert client.read(0, 512) == (0, bytes(512))


def test_replay_stops_where_the_power_went(tmp_path: Path, log: WriteLog) -> None:
    bases = {}
    for name in ("a", "b"):
        bases[name] = str(tmp_path / f"base-{name}")
        Path(bases[name]).write_bytes(b"." * 4096)
    for disk, offset, letter in (("a", 0, b"1"), ("b", 512, b"2"), ("a", 512, b"3")):
        log.wrote(disk, offset, letter * 1024, forced=False)
    out = tmp_path / "out"
    out.mkdir()
    images = replay(log, bases, str(out), upto=2)
    assert Path(images["a"]).read_bytes() == b"1" * 1024 + b"." * 3072
    assert Path(images["b"]).read_bytes() == b"." * 512 + b"2" * 1024 + b"." * 2560
    images = replay(log, bases, str(out), upto=3, torn_sectors=1)
    assert Path(images["a"]).read_bytes() == b"1" * 512 + b"3" * 512 + b"." * 3072
    assert differing_sectors(images["a"], bases["a"]) == [0, 1]
    assert list(cuts(log)) == [Cut(0), Cut(1, 1), Cut(1), Cut(2, 1), Cut(2), Cut(3, 1), Cut(3)]
    with pytest.raises(ValueError, match="4 writes asked for, 3 recorded"):
        replay(log, bases, str(out), upto=4)


def test_what_was_not_flushed_may_be_lost(tmp_path: Path, log: WriteLog) -> None:
    base = tmp_path / "base"
    base.write_bytes(b"." * 2048)
    first = log.wrote("a", 0, b"1" * 512, forced=False)
    log.wrote("a", 512, b"2" * 512, forced=True)
    elsewhere = log.wrote("b", 0, b"3" * 512, forced=False)
    assert unsettled(log, 3) == [first, elsewhere]
    assert unsettled(log, 1) == [first]
    log.flushed("a")
    last = log.wrote("a", 1024, b"4" * 512, forced=False)
    assert unsettled(log, 3) == [elsewhere]
    assert unsettled(log, 4) == [elsewhere, last]
    images = replay(log, {"a": str(base), "b": str(base)}, str(tmp_path), upto=4, lost=[last])
    assert Path(images["a"]).read_bytes() == b"1" * 512 + b"2" * 512 + b"." * 1024


def test_the_socket_goes_with_the_server(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(SIZE))
    with run_directory() as directory:
        path = socket_path(directory, "s")
        with NbdServer(str(image), path, read_only=True):
            client = Client(path)
            assert client.flags & 2  # told to the client
            assert client.write(0, b"x" * 512) == EPERM
            client.line.close()
        assert not os.path.exists(path)
