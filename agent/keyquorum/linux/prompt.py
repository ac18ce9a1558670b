# SPDX-License-Identifier: Apache-2.0
"""Asking a person: on the terminal, at the initramfs' console, or through systemd's password agents.

Each way is a function of the question, the seconds to wait and a descriptor that ends the waiting when it becomes
readable. It returns what was typed, in locked memory, or None when that was nothing: a time-out, Ctrl-C, Ctrl-D, an
empty line, nobody there. docs/holders-people.md §4.
"""

from __future__ import annotations

import os
import select
import time
from _signal import (  # type: ignore[import-not-found]  # the module signal imports enum, and no boot image has it
    SIG_IGN,
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGTERM,
    getsignal,
    signal,
)

from keyquorum.deadline import ready
from keyquorum.errors import KeyquorumError
from keyquorum.linux import run
from keyquorum.linux.run import MAX_SECRET, Limits
from keyquorum.secret import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Prompt = Callable[[str, float, int], Secret | None]

ASKPASS = "/lib/cryptsetup/askpass"  # knows the console, plymouth and cryptroot-unlock
_SYSTEMD_RUNS = "/run/systemd/system"  # sd_booted(3)
_AGENT = "systemd-ask-password"
_TERMINAL = "/dev/tty"
_CONSOLE = "/dev/console"
_KERNEL_MESSAGES = "/proc/sys/kernel/printk"
_MAX_QUESTION = 200
_INTERRUPT, _END, _BACKSPACE, _TAB, _KILL_LINE, _DELETE = 0x03, 0x04, 0x08, 0x09, 0x15, 0x7F

_changed: dict[int, list[Any]] = {}


def choose() -> Prompt | None:
    """Return the way to the person who is most likely there, or None when nobody can be asked."""
    if _has_terminal():
        return terminal
    if os.path.isdir(_SYSTEMD_RUNS):
        return agent
    return askpass if os.access(ASKPASS, os.X_OK) else None


def restore_terminals() -> None:
    """Give every terminal its echo back; safe at any time, for the signal handlers of programs."""
    for descriptor, before in tuple(_changed.items()):
        _changed.pop(descriptor, None)
        _set_attributes(descriptor, before)


def echo_on(path: str) -> None:
    """Make a terminal echo and take whole lines again, after a program that was killed while it had that off."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        attributes = _attributes(descriptor)
        if attributes:
            import termios

            attributes[3] |= termios.ECHO | termios.ICANON | termios.ISIG
            _set_attributes(descriptor, attributes)
    finally:
        os.close(descriptor)


def terminal(question: str, seconds: float, cancel: int = -1) -> Secret | None:
    """Ask on the controlling terminal with the echo off; it comes back on every way out, signals included."""
    try:
        descriptor = os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.tcgetpgrp(descriptor) != os.getpgrp():
            return None  # in the background: touching the terminal would stop us
        with _Quiet(descriptor):
            os.write(descriptor, f"{printable(question)}: ".encode())
            try:
                return _read_line(descriptor, time.monotonic() + seconds, cancel)
            finally:
                os.write(descriptor, b"\n")
    except OSError:  # hung up
        return None
    finally:
        os.close(descriptor)


def askpass(question: str, seconds: float, cancel: int = -1) -> Secret | None:
    """Ask as Debian's initramfs does, on the console.

    askpass(8) of cryptsetup-initramfs needs a terminal as its input: without one it shows no question and answers on
    the console. It blocks SIGTERM; killed, it leaves the console without echo and the kernel without console
    messages, so both are put back here.
    """
    try:
        console = os.open(_CONSOLE, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    before, messages = _attributes(console), _read_kernel_messages()
    try:
        limits = Limits(seconds=seconds, cancel=cancel)
        answer = _typed((ASKPASS, f"{printable(question)}: "), limits, terminal=_CONSOLE)
        if answer is None:
            _set_attributes(console, before)
            _write_kernel_messages(messages)
        return answer
    finally:
        os.close(console)


def agent(question: str, seconds: float, cancel: int = -1) -> Secret | None:
    """Ask through the password agents of systemd: console, plymouth, wall, desktop."""
    whole = max(1, int(seconds))
    arguments = (_AGENT, "--no-tty", "--id=keyquorum", "--icon=drive-harddisk", f"--timeout={whole}")
    return _typed((*arguments, f"{printable(question)}:"), Limits(seconds=seconds + 1, cancel=cancel))


def printable(question: str) -> str:
    """Make a question fit for a terminal: it may name a token by a label that the token chose."""
    return "".join(c if c.isprintable() else "?" for c in question)[:_MAX_QUESTION]


def _typed(arguments: tuple[str, ...], limits: Limits, terminal: str = "") -> Secret | None:
    try:
        status, answer = run.run_for_secret(arguments, limits, terminal=terminal)
    except KeyquorumError:  # not there, timed out or called off: nothing was typed
        return None
    if status or not answer.size:
        answer.wipe()
        return None
    return answer


def _has_terminal() -> bool:
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class _Quiet:
    """A terminal that neither echoes nor turns keys into signals, as long as the `with` block lasts.

    Keys are read one by one: so Ctrl-C is a key like others and cannot kill us while the echo is off. Signals from
    elsewhere are caught when this is the main thread; other threads rely on the program's `restore_terminals`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> None:
        before, quiet = _attributes(self._descriptor), _attributes(self._descriptor)
        if not quiet:
            raise OSError
        import termios

        quiet[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        quiet[6][termios.VMIN], quiet[6][termios.VTIME] = 1, 0
        self._catch_signals()
        _changed[self._descriptor] = before
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, quiet)

    def __exit__(self, *_: object) -> None:
        _set_attributes(self._descriptor, _changed.pop(self._descriptor, []))
        self._release_signals()

    def _catch_signals(self) -> None:
        for number in (SIGTERM, SIGHUP, SIGQUIT, SIGINT):
            if getsignal(number) in {SIG_IGN, None}:
                continue
            try:
                self._handlers[number] = signal(number, self._on_signal)
            except ValueError:  # not the main thread
                return

    def _release_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal(number, handler)
        self._handlers = {}

    def _on_signal(self, number: int, _frame: object) -> None:
        restore_terminals()
        self._release_signals()
        os.kill(os.getpid(), number)


def _attributes(descriptor: int) -> list[Any]:
    """Return a terminal's settings; an empty list when it is none, or when an initramfs lacks the module."""
    try:
        import termios
    except ImportError:
        return []
    try:
        return termios.tcgetattr(descriptor)
    except termios.error:
        return []


def _set_attributes(descriptor: int, attributes: list[Any]) -> None:
    if not attributes:
        return
    import termios

    try:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, attributes)
    except termios.error:  # hung up: nobody is left to see an echo
        return


def _read_kernel_messages() -> bytes:
    """Return which kernel messages the console shows; empty when that cannot be read (proc(5), sys/kernel/printk)."""
    try:
        with open(_KERNEL_MESSAGES, "rb") as file:
            return file.read(64)
    except OSError:
        return b""


def _write_kernel_messages(levels: bytes) -> None:
    try:
        with open(_KERNEL_MESSAGES, "wb", buffering=0) as file:
            file.write(levels)
    except OSError:  # messages stay off the console; nothing else depends on them
        return


def _read_line(descriptor: int, deadline: float, cancel: int) -> Secret | None:
    """Read keys into locked memory until Enter."""
    poll = select.poll()
    for watched in (descriptor, cancel):
        if watched >= 0:
            poll.register(watched, select.POLLIN)
    with Secret(MAX_SECRET + 1) as line:
        used = 0
        while True:
            found = ready(poll, deadline)
            if not found or cancel in found or not os.readv(descriptor, [line.view[used : used + 1]]):
                return None
            key = line.view[used]
            if key in {0x0A, 0x0D, _END}:
                return line.part(0, used) if used else None
            if key == _INTERRUPT:
                return None
            used = _edit(line, used, key)


def _edit(line: Secret, used: int, key: int) -> int:
    """Apply a key to the line, where it stands at `used` already; return the new length."""
    if key in {_BACKSPACE, _DELETE}:
        used -= bool(used)
        while used and line.view[used] & 0xC0 == 0x80:  # the rest of a UTF-8 character
            used -= 1
    elif key == _KILL_LINE:
        used = 0
    elif (key >= 0x20 or key == _TAB) and used < MAX_SECRET:
        used += 1
    line.view[used:] = bytes(line.size - used)
    return used
