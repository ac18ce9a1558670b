# SPDX-License-Identifier: Apache-2.0
"""The one place that starts other programs (tests/house checks that it is).

A program is looked up in a fixed path, never gets a shell, an argument that is secret, a descriptor of ours or our
environment, runs in a session of its own, and is over at its deadline: whatever it started in its process group is
killed with it. Its input may come from locked memory and its output may go there. `subprocess` is not used: it costs
a boot more than all of this (docs/decisions/0003-boot-imports.md) and copies output through immutable objects.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time

from keyquorum.deadline import ready
from keyquorum.errors import KeyquorumError
from keyquorum.linux.pipes import Collected, Cut, Locked, Pipes
from keyquorum.native import libc
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.secret import Secret

PATH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
_ENVIRONMENT = {"PATH": ":".join(PATH), "LC_ALL": "C.UTF-8"}
MAX_OUTPUT = 1 << 20
MAX_SECRET = 4096
_MAX_ERRORS = 4096
_MAX_SHOWN = 200
_HIGH = 100  # descriptors from here on are not where a child's own begin
_GRACE = 0.5  # seconds between asking a program to end and killing it
_SIGKILL, _SIGPIPE, _SIGTERM = 9, 13, 15  # the module signal imports enum
_SYS_CLOSE_RANGE, _CLOSE_RANGE_CLOEXEC = 436, 4
_HAS_INPUT = select.POLLIN | select.POLLHUP | select.POLLERR


class Limits(Record):
    """Bounds of one run: `seconds` until it is killed, `output` bytes; `cancel` is a descriptor that ends it early."""

    seconds: float
    output: int = MAX_OUTPUT
    cancel: int = -1


class Finished(Record):
    """How a program ended: its exit status (minus the signal that killed it), output, and its words on errors."""

    status: int
    output: bytes
    errors: str


def run(
    arguments: tuple[str, ...],
    limits: Limits,
    *,
    stdin: Secret | None = None,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run a program and return its output, whatever its exit status.

    Raises `KeyquorumError` when it is not there, does not end in time, says too much or is called off.
    """
    sink = Collected(limits.output)
    status, errors = _execute(arguments, limits, sink, stdin=stdin, environment=environment)
    return Finished(status=status, output=bytes(sink.data), errors=errors)


def run_checked(
    arguments: tuple[str, ...],
    limits: Limits,
    *,
    stdin: Secret | None = None,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Run a program that must succeed; return its output. Raises `KeyquorumError` with the program's own words."""
    done = run(arguments, limits, stdin=stdin, environment=environment)
    if done.status:
        raise failed(arguments[0], done.status, done.errors)
    return done.output


def run_for_secret(arguments: tuple[str, ...], limits: Limits, *, terminal: str = "") -> tuple[int, Secret]:
    """Run a program whose output is a secret of at most `MAX_SECRET` bytes; return its exit status and the secret.

    `terminal` is where it meets a person: the path of its input and of its error output.
    """
    sink = Locked(min(limits.output, MAX_SECRET))
    with sink.data:
        status, _ = _execute(arguments, limits, sink, terminal=terminal)
        return status, sink.data.part(0, sink.used)


def start(arguments: tuple[str, ...], descriptors: tuple[int, ...], environment: Mapping[str, str]) -> int:
    """Start a process of ours that stays, and return its number; whoever starts it waits for it.

    It gets `descriptors` as 3, 4 and so on, our words' stream for its own, and no other of our descriptors.
    """
    _keep_descriptors_private()
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH) for descriptor in descriptors]
    try:
        return os.posix_spawn(
            find(arguments[0]),
            arguments,
            {**_ENVIRONMENT, **environment},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR | os.O_NOCTTY, 0),
                *((os.POSIX_SPAWN_DUP2, descriptor, 3 + place) for place, descriptor in enumerate(high)),
            ],
            setsigmask=(),
            setsigdef=(_SIGPIPE,),
        )
    except OSError as problem:
        raise KeyquorumError(f"{os.path.basename(arguments[0])} cannot be run: {problem.strerror}") from None
    finally:
        for descriptor in high:
            os.close(descriptor)


def failed(program: str, status: int, errors: str) -> KeyquorumError:
    """Return the error for a program that ended with a status other than 0."""
    how = f"was killed by signal {-status}" if status < 0 else f"failed with exit status {status}"
    return KeyquorumError(f"{os.path.basename(program)} {how}{': ' if errors else ''}{errors}")


def find(program: str) -> str:
    """Return the absolute path of a program from the fixed path; raises `KeyquorumError`."""
    for path in (program,) if program.startswith("/") else [f"{directory}/{program}" for directory in PATH]:
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    raise KeyquorumError(f"the program {program} is not installed")


def _execute(
    arguments: tuple[str, ...],
    limits: Limits,
    sink: Collected | Locked,
    *,
    stdin: Secret | None = None,
    environment: Mapping[str, str] | None = None,
    terminal: str = "",
) -> tuple[int, str]:
    path, name = find(arguments[0]), os.path.basename(arguments[0])
    errors = Cut(_MAX_ERRORS)
    deadline = time.monotonic() + limits.seconds
    pipes = Pipes(with_input=stdin is not None)
    try:
        child = _spawn((path, arguments), {**_ENVIRONMENT, **(environment or {})}, pipes, terminal)
        try:
            _attend(child, pipes, (sink, errors), stdin=stdin, cancel=limits.cancel, deadline=deadline)
        except TimeoutError:
            raise KeyquorumError(f"{name} did not finish within {limits.seconds:g} s") from None
        except InterruptedError:
            raise KeyquorumError(f"{name} was called off") from None
        except OverflowError:
            raise KeyquorumError(f"{name} wrote more than {limits.output} bytes") from None
        finally:
            status = _end(child)
    except OSError as problem:
        raise KeyquorumError(f"{name} cannot be run: {problem.strerror}") from None
    finally:
        pipes.close()
    return status, _words(errors.data)


def _spawn(program: tuple[str, tuple[str, ...]], environment: dict[str, str], pipes: Pipes, terminal: str) -> int:
    _keep_descriptors_private()
    stdin: tuple[object, ...] = (os.POSIX_SPAWN_OPEN, 0, terminal or "/dev/null", os.O_RDWR | os.O_NOCTTY, 0)
    if pipes.input >= 0:
        stdin = (os.POSIX_SPAWN_DUP2, pipes.their_input, 0)
    child = os.posix_spawn(
        *program,
        environment,
        file_actions=[
            stdin,
            (os.POSIX_SPAWN_DUP2, pipes.their_output, 1),
            (os.POSIX_SPAWN_DUP2, 0 if terminal else pipes.their_errors, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(_SIGPIPE,),  # Python ignores it, a program that writes into a closed pipe should end
    )
    for theirs in (pipes.their_input, pipes.their_output, pipes.their_errors):
        pipes.shut(theirs)
    return child


def _keep_descriptors_private() -> None:
    """Mark every descriptor close-on-exec: Python's own are, those we were started with (--pin-fd) are not."""
    try:
        libc.system_call(_SYS_CLOSE_RANGE, 3, (1 << 31) - 1, _CLOSE_RANGE_CLOEXEC)
    except OSError:  # Linux before 5.11
        for entry in os.listdir("/proc/self/fd"):
            if int(entry) > 2:
                try:
                    os.set_inheritable(int(entry), False)
                except OSError as problem:
                    if problem.errno != errno.EBADF:  # the listing's own descriptor is gone
                        raise


def _attend(
    child: int,
    pipes: Pipes,
    sinks: tuple[Collected | Locked, Cut],
    *,
    stdin: Secret | None,
    cancel: int,
    deadline: float,
) -> None:
    """Feed and read the program until it ends.

    Raises TimeoutError at the deadline, InterruptedError when called off, OverflowError for too much output.
    """
    poll, ended, written = select.poll(), os.pidfd_open(child), 0
    try:
        readers = {pipes.output: sinks[0], pipes.errors: sinks[1]}
        for descriptor in (*readers, ended, *((cancel,) if cancel >= 0 else ())):
            poll.register(descriptor, select.POLLIN)
        if stdin is not None:
            poll.register(pipes.input, select.POLLOUT)
        while True:
            found = ready(poll, deadline)
            if not found:
                raise TimeoutError
            if cancel in found:
                raise InterruptedError
            if stdin is not None and pipes.input in found:
                written = _feed(pipes, poll, stdin, written)
            for descriptor, sink in readers.items():
                if found.get(descriptor, 0) & _HAS_INPUT and _read(descriptor, sink) == 0:
                    poll.unregister(descriptor)
            if ended in found:
                for descriptor, sink in readers.items():
                    while _read(descriptor, sink) > 0:
                        pass
                return
    finally:
        os.close(ended)


def _read(descriptor: int, sink: Collected | Locked) -> int:
    """Read once; 0 is the end, -1 that there is nothing now (a grandchild may hold the other end open)."""
    try:
        return sink.take(descriptor)
    except BlockingIOError:
        return -1


def _feed(pipes: Pipes, poll: select.poll, stdin: Secret, written: int) -> int:
    """Write on; close the program's input at the end, or when it does not want more."""
    try:
        written += os.write(pipes.input, stdin.view[written:])
    except BrokenPipeError:
        written = stdin.size
    if written >= stdin.size:
        poll.unregister(pipes.input)
        pipes.shut(pipes.input)
    return written


def _end(child: int) -> int:
    """End the program's whole process group and return its exit status.

    The group outlives its leader as long as the leader is not waited for, so its number cannot mean anybody else.
    """
    if not _has_ended(child, 0):
        _signal_group(child, _SIGTERM)
        _has_ended(child, _GRACE)
    _signal_group(child, _SIGKILL)
    if not _has_ended(child, _GRACE):  # stuck in the kernel: nobody can end it, and nobody should wait for it
        return -_SIGKILL
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _has_ended(child: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def _signal_group(child: int, number: int) -> None:
    try:
        os.killpg(child, number)
    except (ProcessLookupError, PermissionError):  # gone, or runs as another user now (root may signal everyone)
        return


def _words(errors: bytearray) -> str:
    """Return the last line of a program's error output, fit to be shown."""
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    return "".join(c if c.isprintable() else "?" for c in line)[:_MAX_SHOWN]
