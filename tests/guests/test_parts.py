# SPDX-License-Identifier: Apache-2.0
"""The parts of the test machines that need no boot."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from guests import cache, guest_agent
from guests.agent import Agent
from guests.console import Console, Normaliser
from guests.disk_image import ESP, LUKS, MEBIBYTE, Partition, empty_image, ext4_image, gpt_image
from guests.errors import CommandError, MachineEndedError, NotInTimeError, ToolError
from guests.extents import data_extents, sparse_copy
from guests.guest_file import File
from guests.hardware import Disk
from guests.luks_image import TEST_VOLUME, decrypt, format_luks, luks_image
from guests.machine import Machine
from guests.memory import occurrences
from guests.places import REPOSITORY, run_directory, socket_path
from guests.root_tree import Tree, guest_tree, variant
from guests.swtpm import TpmState, tpm_on_loopback
from guests.tools import run


def test_console_text_is_plain_however_it_was_cut() -> None:
    raw = "\x1b[1;31mA\x1b[0m\r\nB\x1b]0;title\x07C\x1b(Bü…\x1b[!p\x1b[?7h.\n".encode()
    for size in range(1, len(raw)):
        normaliser = Normaliser()
        parts = [normaliser.feed(raw[at : at + size]) for at in range(0, len(raw), size)]
        assert "".join(parts) == "A\nBCü….\n"


def test_console_waits_from_its_cursor_and_tells_what_it_saw() -> None:
    machine, line = socket.socketpair()
    console = Console(line, lambda: " and QEMU is well")
    machine.sendall(b"one two one\r\n")
    console.wait("one", 5)
    console.wait("one", 5)
    with pytest.raises(NotInTimeError, match=r"(?s)/one/.*0\.1 s.*one two one.*QEMU is well"):
        console.wait("one", 0.1)
    assert console.wait("two", 5, from_start=True).start() == 4
    console.type("yes\n")
    assert machine.recv(10) == b"yes\r"
    machine.close()
    with pytest.raises(MachineEndedError, match="one two one"):
        console.wait("three", 5)
    console.close()


def test_agent_runs_commands_side_by_side_and_survives_half_a_frame(tmp_path: Path) -> None:
    host, guest = socket.socketpair()
    host.sendall(guest_agent.frame({"do": "ping", "id": 0}, b"lost")[5:])  # the start went to a guest that was reset
    threading.Thread(target=_serve, args=(guest.detach(),), daemon=True).start()
    agent = Agent(host, lambda: "the console")
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    slow = agent.start(f"cat {fifo}", timeout=20)
    assert agent.start(["cat"], timeout=20, data=bytes(range(256))).wait().output == bytes(range(256))
    assert not slow.done
    agent.put(fifo, b"go on", mode=0o600, timeout=20)
    assert slow.wait().text == "go on"
    with pytest.raises(CommandError, match=r"(?s)exit 3.*ended with 3.*why"):
        agent.start("echo why >&2; exit 3", timeout=20).wait()
    with pytest.raises(NotInTimeError, match=r"(?s)longer than 2 s.*so far"):
        agent.start("echo so far; sleep 60", timeout=2).wait()
    assert agent.start("sleep 60 & echo left", timeout=20).wait().text == "left"
    agent.put(str(tmp_path / "a/b"), b"content", mode=0o640, timeout=20)
    assert agent.get(str(tmp_path / "a/b"), timeout=20) == b"content"
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o640
    with pytest.raises(CommandError, match="No such file"):
        agent.get(str(tmp_path / "none"), timeout=20)
    agent.close()


def _serve(descriptor: int) -> None:
    try:
        guest_agent.serve(descriptor)
    except EOFError:
        os.close(descriptor)


def test_the_agent_waits_for_a_port_that_has_no_name_yet(tmp_path: Path) -> None:
    """The kernel makes a port first, and gives it a name when the host has told it."""
    for port in ("vport0p1", "vport0p2"):
        (tmp_path / port).mkdir()
    (tmp_path / "vport0p1/name").write_text("another\n")
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(guest_agent.port(str(tmp_path))), daemon=True)
    thread.start()
    thread.join(3 * guest_agent.PAUSE)
    assert thread.is_alive()
    (tmp_path / "vport0p2/name").write_text("org.keyquorum.guests.agent\n")
    thread.join(20)
    assert found == ["/dev/vport0p2"]


def test_agent_silence_shows_the_console() -> None:
    host, guest = socket.socketpair()
    agent = Agent(host, lambda: "Kernel panic")
    with pytest.raises(NotInTimeError, match="Kernel panic"):
        agent.ping(timeout=0.1)
    guest.close()
    with pytest.raises(MachineEndedError, match="Kernel panic"):
        agent.ping(timeout=5)
    agent.close()


def test_cache_makes_once_and_not_half(tmp_path: Path) -> None:
    made: list[str] = []

    def make(entry: str) -> None:
        made.append(entry)
        Path(entry, "x").write_text("1")

    def fail(entry: str) -> None:
        raise ToolError("on purpose")

    directory = str(tmp_path)
    with pytest.raises(ToolError):
        cache.cached("n", "r", fail, build_dir=directory)
    assert not [name for name in os.listdir(directory) if not name.endswith(".lock")]
    first = cache.cached("n", "r", make, build_dir=directory)
    assert cache.cached("n", "r", make, build_dir=directory) == first
    assert len(made) == 1
    assert cache.cached("n", "other", make, build_dir=directory) != first


def test_cache_tidies_what_nobody_uses(tmp_path: Path) -> None:
    maker = "import sys; from guests.cache import cached; cached('n', sys.argv[1], lambda entry: None, build_dir=sys.argv[2])"
    env = {**os.environ, "PYTHONPATH": os.path.join(REPOSITORY, "tests")}
    for number in range(cache.KEPT_PER_NAME + 2):
        subprocess.run([sys.executable, "-c", maker, str(number), str(tmp_path)], check=True, env=env, timeout=60)
    assert len([name for name in os.listdir(tmp_path) if not name.endswith(".lock")]) == cache.KEPT_PER_NAME


def test_what_a_killed_test_leaves_is_ended(tmp_path: Path) -> None:
    program = (
        "import os, sys; from guests.places import run_directory; from guests.tools import Companion\n"
        "with run_directory() as d:\n"
        "    child = Companion(['sleep', '300'], log=d + '/log')\n"
        "    print(child.pid, d, flush=True); sys.stdin.read()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.path.join(REPOSITORY, "tests")}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        pid, directory = process.stdout.readline().decode().split()
        child = os.pidfd_open(int(pid))
        process.kill()
        with open(child, "rb", closefd=True):
            assert select.select([child], [], [], 10)[0], "the child of a killed test still runs"
    run(["sh", "-c", f"for i in $(seq 100); do [ -e {directory} ] || exit 0; sleep 0.1; done; exit 1"])


def test_a_tool_that_hangs_or_fails_says_which() -> None:
    with pytest.raises(ToolError, match=r"sh -c 'sleep 60'.*longer than 0\.2 s"):
        run(["sh", "-c", "sleep 60"], timeout=0.2)
    with pytest.raises(ToolError, match=r"(?s)ended with 3.*because"):
        run(["sh", "-c", "echo because >&2; exit 3"])


def test_a_machine_that_cannot_start_says_why() -> None:
    with pytest.raises(MachineEndedError, match="no-such-device"), Machine(extra=["-device", "no-such-device"]):
        pass


def test_serial_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 20"):
        Disk("x", "a" * 21)


def test_copies_stay_sparse(tmp_path: Path) -> None:
    source = empty_image(str(tmp_path / "a"), 64 * MEBIBYTE)
    with open(source, "r+b") as file:
        os.pwrite(file.fileno(), b"x" * 4096, 32 * MEBIBYTE)
    target = sparse_copy(source, str(tmp_path / "b"))
    with open(target, "rb") as file:
        extents = list(data_extents(file.fileno()))
    assert extents == [(32 * MEBIBYTE, 32 * MEBIBYTE + 4096)]
    run(["cmp", source, target])


def test_partitions_carry_their_images(tmp_path: Path) -> None:
    content = empty_image(str(tmp_path / "content"), 3 * MEBIBYTE)
    Path(content).write_bytes(b"hello" + bytes(3 * MEBIBYTE - 5))
    disk = str(tmp_path / "disk")
    offsets = gpt_image(
        disk, [Partition("esp", size=2 * MEBIBYTE, type_guid=ESP), Partition("data", content, type_guid=LUKS)]
    )
    dump = run(["sfdisk", "--dump", disk]).decode()
    assert f"start={offsets[1] // 512:>12}, size={3 * MEBIBYTE // 512:>12}, type={LUKS}" in dump
    with open(disk, "rb") as file:
        assert os.pread(file.fileno(), 5, offsets[1]) == b"hello"


def test_an_encrypted_image_holds_the_file_system(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/word").write_text("keystone")
    plain = ext4_image(str(tmp_path / "files"), str(tmp_path / "plain"), size=16 * MEBIBYTE)
    image = luks_image(plain, str(tmp_path / "image"), TEST_VOLUME)
    passphrase = tmp_path / "passphrase"
    passphrase.write_bytes(TEST_VOLUME.passphrase)
    run(["cryptsetup", "open", "--test-passphrase", "--key-file", str(passphrase), image])
    assert os.stat(image).st_blocks * 512 < 24 * MEBIBYTE
    offset = os.stat(image).st_size - os.stat(plain).st_size
    with open(image, "rb") as file:
        opened = decrypt(file.read()[offset:], 0, TEST_VOLUME)
    (tmp_path / "opened").write_bytes(opened)
    assert run(["debugfs", "-R", "cat /word", str(tmp_path / "opened")]) == b"keystone"
    assert b"keystone" not in Path(image).read_bytes()


def test_both_derivations_are_cheap_unless_asked_otherwise(tmp_path: Path) -> None:
    image = empty_image(str(tmp_path / "image"), 32 * MEBIBYTE)
    assert format_luks(image, TEST_VOLUME) == 16 * MEBIBYTE
    dump = run(["cryptsetup", "luksDump", image]).decode()
    assert re.findall(r"Iterations: *(\d+)", dump) == ["1000", "1000"]


def test_a_chip_answers_on_loopback_and_falls_silent(tmp_path: Path) -> None:
    state = TpmState.create(str(tmp_path / "tpm"))
    twin = state.clone(str(tmp_path / "twin"))
    keys = []
    for chip in (state, twin):
        with tpm_on_loopback(chip) as (_, tcti):
            name = tmp_path / "name"
            run(["tpm2_createprimary", "--tcti", tcti, "-C", "e", "-c", str(tmp_path / "context"), "-Q"])
            run(["tpm2_readpublic", "--tcti", tcti, "-c", str(tmp_path / "context"), "-n", str(name), "-Q"])
            keys.append(name.read_bytes())
    assert keys[0] == keys[1]
    with tpm_on_loopback(state) as (chip_process, tcti):
        chip_process.fall_silent()
        with pytest.raises(ToolError, match="longer than"):
            run(["tpm2_getrandom", "--tcti", tcti, "8"], timeout=1)
        chip_process.come_back()
    with tpm_on_loopback(state) as (_, tcti):
        assert len(run(["tpm2_getrandom", "--tcti", tcti, "8"], timeout=20)) == 8


def test_memory_search_counts(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(b"aXaa" + bytes(10) + b"aa")
    assert occurrences(str(dump), {"a": b"a", "aa": b"aa", "b": b"b"}) == {"a": 5, "aa": 2, "b": 0}


def test_socket_paths_that_the_kernel_would_refuse() -> None:
    with run_directory() as directory:
        assert len(socket_path(directory, "agent")) < 60
        with pytest.raises(ValueError, match="at most 100"):
            socket_path(directory, "a" * 100)
    assert not os.path.exists(directory)


def test_a_variant_is_a_copy_and_leaves_no_mount(tmp_path: Path) -> None:
    base = guest_tree()
    before = Path("/proc/mounts").read_text()
    tree = variant(
        base,
        "try",
        files={"/etc/keyquorum/x": File(b"1", 0o600)},
        commands=["test -c /dev/null; test ! -e /dev/vda; cat /etc/keyquorum/x > /root/y; touch /tmp/z"],
        initramfs=False,
        build_dir=str(tmp_path),
    )
    assert Path(tree.path, "root/y").read_bytes() == b"1"
    assert not Path(tree.path, "tmp/z").exists()
    assert not Path(base.path, "etc/keyquorum").exists()
    with pytest.raises(ToolError, match="no-such-program"):
        variant(base, "try", commands=["no-such-program"], initramfs=False, build_dir=str(tmp_path))
    assert Path("/proc/mounts").read_text() == before
    with pytest.raises(FileNotFoundError):
        _ = Tree(str(tmp_path)).kernel


def test_sigterm_numbers_are_told(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=f"ended with -{signal.SIGTERM.value}"):
        run(["sh", "-c", "kill $$"])
