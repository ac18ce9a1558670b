# SPDX-License-Identifier: Apache-2.0
"""Locked memory for secrets: looked at by address, so that what is promised is what is there."""

from __future__ import annotations

import copy
import ctypes
import os
import pickle
import resource
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum import secret
from keyquorum.errors import KeyquorumError
from keyquorum.native import libc
from keyquorum.secret import Identity, KeyEncryptionKey, Secret, Share, VolumeKey, wipe_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = b"correct horse battery staple"


@pytest.fixture(autouse=True)
def own_arena() -> Iterator[None]:
    """Give each test an arena of its own, so that it can look at all of it."""
    before = secret._arena
    secret.start_afresh()
    yield
    secret._arena = before


def memory(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


def arena_bytes() -> bytes:
    return memory(secret._get_arena().address, secret._ARENA_SIZE)


def test_the_bytes_are_in_the_arena_and_nothing_else_is() -> None:
    held = Secret.from_view(PLAIN)
    base = secret._get_arena().address
    assert base <= held.address < base + secret._ARENA_SIZE
    assert memory(held.address, held.size) == PLAIN
    assert arena_bytes().strip(b"\0") == PLAIN
    held.wipe()
    assert arena_bytes() == bytes(secret._ARENA_SIZE)


def test_wiping_zeroes_the_memory_and_may_be_repeated() -> None:
    held = Secret.from_view(PLAIN)
    address = held.address
    held.wipe()
    assert memory(address, 32) == bytes(32)
    held.wipe()
    other = Secret.from_view(PLAIN)
    held.wipe()  # must not hit who has the memory now
    assert memory(other.address, other.size) == PLAIN


def test_a_wiped_secret_is_not_there_any_more() -> None:
    held = Secret.from_view(PLAIN)
    held.wipe()
    for use in (
        lambda: held.view,
        lambda: held.padded,
        held.integer,
        lambda: held.part(0, 1),
        lambda: held.equals(held),
    ):
        with pytest.raises(ValueError, match="the secret was wiped"):
            use()


def test_leaving_the_block_wipes_also_after_an_error() -> None:
    held = Secret.from_view(PLAIN)
    address = held.address
    with pytest.raises(ZeroDivisionError), held:
        raise ZeroDivisionError
    assert memory(address, held.size) == bytes(held.size)
    assert held.is_wiped


def test_wipe_all_wipes_what_is_still_held() -> None:
    held = [Secret.from_view(PLAIN) for _ in range(5)]
    secret.wipe_all()
    assert all(memory(one.address, one.size) == bytes(one.size) for one in held)
    assert arena_bytes() == bytes(secret._ARENA_SIZE)


def test_new_memory_is_zero() -> None:
    first = Secret.from_view(b"\xff" * 100)
    address = first.address
    first.wipe()
    again = Secret(100)
    assert again.address == address
    assert bytes(again.padded) == bytes(112)


@pytest.mark.parametrize("kind", [Secret, VolumeKey, KeyEncryptionKey, Identity, Share])
def test_no_words_show_a_secret(kind: type[Secret]) -> None:
    with kind.from_view(PLAIN) as held:
        expected = f"<{kind.__name__}: 28 bytes>"
        assert [repr(held), str(held), f"{held}", f"{held!s:<30}".strip(), "%s" % held] == [expected] * 5  # noqa: UP031
        assert [str([held]), str({"k": held})] == [f"[{expected}]", f"{{'k': {expected}}}"]
        with pytest.raises(TypeError):
            format(held, "x")
        with pytest.raises(TypeError):
            bytes(held)  # type: ignore[call-overload]  # the point of the test


def test_nobody_serialises_or_copies_one() -> None:
    with Secret.from_view(PLAIN) as held:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="a secret is never serialised"):
                pickle.dumps(held, protocol)
        for way in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="a secret is never serialised"):
                way(held)
        assert not hasattr(held, "__dict__")


def test_views_write_through_and_end_where_the_secret_ends() -> None:
    with Secret(20) as held:
        held.view[:] = bytes(range(20))
        held.view[0] = 255
        assert memory(held.address, 21) == b"\xff" + bytes(range(1, 20)) + b"\0"
        assert (len(held), len(held.view), len(held.padded)) == (20, 20, 32)
        with pytest.raises(ValueError, match="different structures"):
            held.view[:] = bytes(21)
        with pytest.raises(IndexError):
            held.view[20] = 1


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_integers_are_the_bytes_little_end_first(data: bytes) -> None:
    with Secret.from_view(data) as held:
        assert held.integer() == int.from_bytes(data, "little")
        with Secret.from_integer(held.integer(), held.size) as back:
            assert back.equals(held)
            assert bytes(back.view) == data


def test_an_integer_that_does_not_fit_is_refused_and_leaves_nothing() -> None:
    for value, size in ((1 << 160, 20), (1 << 256, 32), (256, 1), (1, 0), (-1, 8)):
        with pytest.raises(ValueError, match="does not fit"):
            Secret.from_integer(value, size)
    assert arena_bytes() == bytes(secret._ARENA_SIZE)
    assert secret._get_arena()._free == [(0, secret._ARENA_SIZE)]


def test_equality_is_asked_for_by_name() -> None:
    with Secret.from_view(PLAIN) as one, Secret.from_view(PLAIN) as same, Secret.from_view(PLAIN[:-1]) as shorter:
        assert one.equals(same)
        assert not one.equals(shorter)
        same.view[27] ^= 0x80
        assert not one.equals(same)
        assert one != same


def test_a_part_is_a_copy() -> None:
    with Secret.from_view(PLAIN) as held, held.part(8, 5) as part:
        assert bytes(part.view) == b"horse"
        part.view[:] = b"mouse"
        assert bytes(held.view) == PLAIN
        for start, size in ((24, 5), (-1, 2), (0, -1), (29, 0)):
            with pytest.raises(ValueError, match="of a secret of 28"):
                held.part(start, size)


def test_arena_is_used_again_and_joined() -> None:
    arena = secret._get_arena()
    pieces = [Secret(1000) for _ in range(60)]
    for index in [*range(0, 60, 2), *range(1, 60, 2)]:
        pieces[index].wipe()
    assert arena._free == [(0, secret._ARENA_SIZE)]
    whole = Secret(secret._ARENA_SIZE)
    assert whole.address == arena.address
    whole.wipe()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 9)), max_size=60))
def test_whatever_is_taken_and_given_back_pieces_never_overlap(steps: list[tuple[int, int]]) -> None:
    arena, held = secret._get_arena(), list[Secret]()
    for size, which in steps:
        if which < len(held):
            held.pop(which).wipe()
        else:
            held.append(Secret.from_view(bytes([len(held) + 1]) * size))
        spans = sorted((one.address, one.address + one._reserved) for one in held)
        assert all(first[1] <= second[0] for first, second in pairwise(spans))
        assert sum(free for _, free in arena._free) + sum(one._reserved for one in held) == secret._ARENA_SIZE
    for one in held:
        assert len(set(one.view)) <= 1
        one.wipe()
    assert arena._free == [(0, secret._ARENA_SIZE)]


def test_an_exhausted_arena_says_so_and_recovers() -> None:
    held = [Secret(secret._ARENA_SIZE // 4) for _ in range(4)]
    with pytest.raises(KeyquorumError, match=r"^no protected memory left for 16 bytes$"):
        Secret(1)
    held[1].wipe()
    with pytest.raises(KeyquorumError, match="no protected memory left"):
        Secret(secret._ARENA_SIZE // 4 + 1)
    Secret(secret._ARENA_SIZE // 4).wipe()


def test_threads_share_the_arena() -> None:
    script = """
import _thread, sys, time
from keyquorum.secret import Secret
left = [8]
def work(number):
    for _ in range(400):
        with Secret.from_view(bytes([number]) * (number * 7)) as held:
            if set(held.view) != {number}:
                print("somebody else wrote here")
    left[0] -= 1
for number in range(1, 9):
    _thread.start_new_thread(work, (number,))
while left[0]:
    time.sleep(0.01)
"""
    assert run_alone(script) == b""


def run_alone(script: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_the_memory_is_protected() -> None:
    assert secret.protection() in {"memfd_secret", "mlock"}
    base = f"{secret._get_arena().address:x}-"
    with open("/proc/self/smaps") as file:
        mapping = file.read().partition(f"\n{base}")[2]
    flags = mapping.partition("VmFlags: ")[2].split("\n")[0].split()
    assert "lo" in flags  # locked
    assert "dd" in flags or "memfd:secretmem" in mapping.split("\n")[0] or "secretmem" in mapping.split("\n")[0]


def test_the_process_is_not_dumped_nor_read_by_others() -> None:
    script = """
import ctypes, resource
from keyquorum.secret import Secret
Secret(1)
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""
    assert run_alone(script) == b"0 0 0\n"
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)  # here too, once the arena exists


WITHOUT_PRIVILEGE = """
import ctypes, os, resource, sys
ctypes.CDLL(None).prctl(24, 14, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_IPC_LOCK
resource.setrlimit(resource.RLIMIT_MEMLOCK, ({limit}, {limit}))
os.execv(sys.executable, [sys.executable, "-c", {script!r}])
"""
LOCKED = """
from keyquorum import process, secret
def program():
    process.warn_of_unlocked_memory()
    with open("/proc/self/status") as file:
        size = {line.split(":")[0]: line.split()[1] for line in file if line.startswith("Vm")}
    print(secret.protection(), int(size["VmLck"]) > int(size["VmRSS"]) // 2)
    bytearray(64 << 20)  # mapped, whatever the limit on locked memory is
    return 0
process.run(program)
"""


def test_a_program_that_may_locks_all_its_memory() -> None:
    protection, everything = run_alone(LOCKED).split()
    assert protection in {b"memfd_secret", b"mlock"}
    assert everything == b"True", "tests run as root"


def test_a_program_that_may_lock_little_locks_the_arena_only() -> None:
    said = run_alone(WITHOUT_PRIVILEGE.format(limit=8 << 20, script=LOCKED))
    assert said in {b"memfd_secret False\n", b"mlock False\n"}


def test_a_program_that_may_lock_nothing_says_so() -> None:
    script = WITHOUT_PRIVILEGE.format(limit=0, script="import sys; sys.stderr = sys.stdout\n" + LOCKED)
    warning, result = run_alone(script).decode().splitlines()
    assert warning.startswith("keyquorum: warning: this process may lock no memory, so its secrets could reach swap")
    assert result == "none False"


def test_the_keyring_of_the_thread_is_emptied() -> None:
    add_key = {"x86_64": 248}.get(os.uname().machine, 217)
    keyctl = libc._SYS_KEYCTL.get(os.uname().machine, libc._SYS_KEYCTL_GENERIC)

    def search() -> int:
        return libc.system_call(keyctl, *map(ctypes.c_long, (10, -1)), b"user", b"keyquorum test", ctypes.c_long(0))

    added = libc.system_call(add_key, b"user", b"keyquorum test", PLAIN, ctypes.c_long(len(PLAIN)), ctypes.c_long(-1))
    assert search() == added
    libc.clear_thread_keyring()
    with pytest.raises(OSError, match="Required key not available"):
        search()


def test_a_child_has_an_arena_of_its_own() -> None:
    script = """
import os
from keyquorum import secret
held = secret.Secret.from_view(b"parents own")
child = os.fork()
if not child:
    secret.start_afresh()
    other = secret.Secret.from_view(b"the child's")
    secret.wipe_all()
    os._exit(0)
os.waitpid(child, 0)
print(bytes(held.view))
"""
    assert run_alone(script) == b"b'parents own'\n"


def test_wiping_a_bytes_object_that_a_library_returned() -> None:
    for size in (2, 3, 31, 32, 33, 4096):
        value = bytes(bytearray(os.urandom(size)))
        wipe_bytes(value)
        assert value == bytes(size)
    array = bytearray(PLAIN)
    wipe_bytes(array)
    assert array == bytearray(len(PLAIN))


def test_objects_that_the_interpreter_shares_are_left_alone() -> None:
    wipe_bytes(b"")
    wipe_bytes(bytes([0x41]))
    assert bytes([0x41]) == b"A"


def test_wiping_touches_no_neighbour() -> None:
    values = [bytes(bytearray(b"\xaa" * 24)) for _ in range(1000)]
    wipe_bytes(values[500])
    assert sum(value == b"\xaa" * 24 for value in values) == 999
