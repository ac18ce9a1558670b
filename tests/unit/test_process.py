# SPDX-License-Identifier: Apache-2.0
"""The edge of every program: exit codes, words without secrets, and memory wiped on every way out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from keyquorum import errors, process
from keyquorum.errors import KeyquorumError
from keyquorum.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

CODES = {
    errors.KeyquorumError: 1,
    errors.UsageError: 2,
    errors.MalformedError: 2,
    errors.QuorumNotReachedError: 3,
    errors.TamperingError: 4,
    errors.TryAgainError: 5,
    errors.HolderError: 1,
    errors.UnavailableError: 1,
    errors.WaitingError: 1,
    errors.RefusedError: 1,
}


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGHUP)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def make(kind: type[KeyquorumError]) -> KeyquorumError:
    if issubclass(kind, (errors.MalformedError, errors.TamperingError)):
        return kind("object", "field", "is wrong", "look at it")
    return kind("it is wrong", "look at it")


def failing(error: BaseException) -> int:
    def program() -> int:
        raise error

    return process.run(program)


def test_the_whole_tree_has_its_documented_codes() -> None:
    def tree(kind: type[KeyquorumError]) -> Iterator[type[KeyquorumError]]:
        yield kind
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:
                yield from tree(child)

    assert {kind: kind.exit_code for kind in tree(KeyquorumError)} == CODES
    assert errors.__doc__ is not None
    for kind, code in CODES.items():
        if "exit_code" in kind.__dict__:
            assert f"{kind.__name__} " in errors.__doc__
            assert str(code) in errors.__doc__


@pytest.mark.parametrize("kind", CODES)
def test_an_error_becomes_its_words_and_code(kind: type[KeyquorumError], capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(make(kind)) == kind.exit_code
    said = capsys.readouterr()
    assert said.out == ""
    first, hint = said.err.splitlines()
    assert first.startswith("keyquorum: ")
    assert first.endswith("is wrong")
    assert hint == "keyquorum:   look at it"


def test_a_program_that_succeeds_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert process.run(lambda: 7) == 7
    assert capsys.readouterr() == ("", "")


def test_a_fault_is_named_without_its_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEYQUORUM_TRACE", raising=False)
    assert failing(ValueError("the key is 0123456789abcdef")) == 1
    said = capsys.readouterr().err
    assert "a fault in keyquorum itself: ValueError at test_process.py:" in said
    assert "0123456789abcdef" not in said
    assert "Traceback" not in said


def test_a_fault_is_traced_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYQUORUM_TRACE", "1")
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_unwind_and_wipe(number: int) -> None:
    held = list[Secret]()

    def program() -> int:
        with Secret.from_view(b"secret") as inner:
            held.append(inner)
            os.kill(os.getpid(), number)
            for _ in range(1000):
                os.getpid()  # the handler runs between two instructions
        return 0

    assert process.run(program) == 130
    assert held[0].is_wiped


def test_every_way_out_wipes_what_is_left() -> None:
    ways: list[BaseException | None] = [None, KeyquorumError("x"), KeyboardInterrupt(), ValueError("x")]
    for error in ways:
        held = Secret.from_view(b"secret")

        def program(error: BaseException | None = error) -> int:
            if error is not None:
                raise error
            return 0

        process.run(program)
        assert bytes(held.view) == bytes(6)
        held.wipe()


def test_leaving_waits_for_no_thread_and_flushes() -> None:
    script = """
import _thread, sys, time
from keyquorum.process import leave
_thread.start_new_thread(time.sleep, (300,))
sys.stdout.write("said")
leave(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"said", b"")


def test_nobody_reading_the_output_is_no_fault() -> None:
    script = """
import sys
from keyquorum import process
def program():
    for _ in range(100_000):
        sys.stdout.write("line\\n")
    return 0
process.leave(process.run(program))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(5)
        child.stdout.close()
        said = child.stderr.read()
        assert (child.wait(30), said) == (1, b"")


def test_nohup_is_respected() -> None:
    def program() -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        return 7

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert process.run(program) == 7


def test_closed_descriptors_are_filled_before_anything_is_opened() -> None:
    """What is opened later must not become standard output or error: it may be a disk."""
    code = (
        "import os\nfrom keyquorum import process\n"
        "def program():\n"
        "    descriptor = os.open('/dev/zero', os.O_RDWR)\n"
        "    return 0 if descriptor > 2 and os.readlink('/proc/self/fd/2') == '/dev/null' else 1\n"
        "process.leave(process.run(program))\n"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
