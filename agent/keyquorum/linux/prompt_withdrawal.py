# SPDX-License-Identifier: Apache-2.0
"""Taking back the initramfs' passphrase prompt once the volume is open (docs/boot.md §9).

Debian's cryptroot script waits in `askpass | cryptsetup open` and would ask again after every failure. It skips a
mapping that exists only before it asks, so it is ended: the boot goes on with the next script, and local-block runs
cryptroot again should any other volume still be missing.
"""

from __future__ import annotations

import os
import select
import time

from keyquorum.deadline import ready
from keyquorum.linux import boot_record

_SCRIPTS = (b"/scripts/local-top/cryptroot", b"/scripts/local-block/cryptroot")
_ASKPASS = b"/lib/cryptsetup/askpass"
_FIFO = "/lib/cryptsetup/passfifo"
_CONSOLE = "/dev/console"
_SIGKILL, _SIGTERM, _SIGCONT, _SIGSTOP = 9, 15, 18, 19
_CONSOLE_ON = 7  # SYSLOG_ACTION_CONSOLE_ON, syslog(2)
_PATIENCE = 2.0  # seconds for a process to end by itself


def withdraw(name: str, proc: str = "/proc", fifo: str = _FIFO, console: str = _CONSOLE) -> None:
    """End the prompt for mapping `name`, and leave the console as it was before the question.

    The script stands still meanwhile: it must not ask again, and once it has ended the boot runs on and would end us
    halfway. askpass blocks SIGTERM and has the echo off; an answer to it restores the console, and with cryptsetup gone
    nobody reads the answer.
    """
    if not _asking(proc, name):
        return
    boot_record.to_kernel_log(f"withdrawing the passphrase prompt for {name}")
    scripts = [pid for pid in _processes(proc) if any(script in _strings(proc, pid, "cmdline") for script in _SCRIPTS)]
    for pid in scripts:
        _signal(pid, _SIGSTOP)
    try:
        asking = _asking(proc, name)  # again: until it stood still, the script may have started more
        questions = [pid for pid in asking if _ASKPASS in _strings(proc, pid, "cmdline")]
        readers = [pid for pid in asking if pid not in {*scripts, *questions}]
        _end(readers)
        if not _answered(questions, fifo):
            _end(questions)
            _restore(console)
    finally:
        for pid in scripts:
            _signal(pid, _SIGTERM)
            _signal(pid, _SIGCONT)


def _asking(proc: str, name: str) -> list[int]:
    """What runs for a mapping's question: askpass, who waits for its answer, perhaps a script's own fork."""
    wanted = b"CRYPTTAB_NAME=" + os.fsencode(name)
    return [pid for pid in _processes(proc) if wanted in _strings(proc, pid, "environ")]


def _processes(proc: str) -> list[int]:
    return [int(name) for name in os.listdir(proc) if name.isdigit() and int(name) not in {1, os.getpid()}]


def _strings(proc: str, pid: int, what: str) -> list[bytes]:
    try:
        with open(f"{proc}/{pid}/{what}", "rb") as file:
            return file.read(1 << 16).split(b"\0")
    except OSError:  # it ended meanwhile
        return []


def _answered(questions: list[int], fifo: str) -> bool:
    """Answer askpass as cryptroot-unlock would; say whether every question has ended by that."""
    if not questions:
        return True
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"-")
        finally:
            os.close(descriptor)
    except OSError:  # it does not listen there
        return False
    return _ended(questions)


def _end(pids: list[int]) -> None:
    """Ask processes to end; kill those that do not."""
    for pid in pids:
        _signal(pid, _SIGTERM)
    if not _ended(pids):
        for pid in pids:
            _signal(pid, _SIGKILL)
        _ended(pids)


def _ended(pids: list[int]) -> bool:
    """Wait until all have ended; say whether they have."""
    deadline = time.monotonic() + _PATIENCE
    for pid in pids:
        try:
            process = os.pidfd_open(pid)
        except OSError:  # it is gone
            continue
        try:
            poll = select.poll()
            poll.register(process, select.POLLIN)
            if not ready(poll, deadline):
                return False
        finally:
            os.close(process)
    return True


def _restore(console: str) -> None:
    """Undo what a killed askpass left: the console without echo, kernel messages kept off it."""
    from keyquorum.linux import prompt
    from keyquorum.native import libc

    prompt.echo_on(console)
    libc.kernel_log_control(_CONSOLE_ON)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
