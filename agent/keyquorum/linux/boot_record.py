# SPDX-License-Identifier: Apache-2.0
"""What a boot leaves for later: its lines in the kernel log, its report under /run/keyquorum (docs/boot.md §8).

/run survives the change from the initramfs to the system, so `keyquorum status` and the journal can tell afterwards
what happened before they existed. Neither holds a secret.
"""

from __future__ import annotations

import os

from keyquorum.model import strict_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.model.report import Report

DIRECTORY = "/run/keyquorum"
_KERNEL_LOG = "/dev/kmsg"
_CONSOLE = "/dev/console"
_DEBUG = 7  # reaches the journal, but not the console, where the same line is already


def to_kernel_log(line: str) -> None:
    """Add a line to the kernel's log; a machine that allows none loses nothing else."""
    _tell(_KERNEL_LOG, f"<{_DEBUG}>keyquorum: {line}\n")


def to_console(line: str) -> None:
    """Write a line to the console, below whatever stands there: a prompt goes on waiting for what is typed."""
    _tell(_CONSOLE, f"\r\nkeyquorum: {line}\r\n")


def _tell(device: str, text: str) -> None:
    try:
        descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            os.write(descriptor, text.encode()[:900])
        finally:
            os.close(descriptor)
    except OSError:
        return


def keep_report(report: Report, directory: str = DIRECTORY) -> None:
    """Write the report as DIRECTORY/NAME.json, replacing an older one whole or not at all.

    A report without a name is of an unlock that never knew its volume: nobody would look for it.
    """
    if not report.name:
        return
    path = os.path.join(directory, f"{report.name}.json")
    try:
        os.makedirs(directory, 0o755, exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, strict_json.serialise(report.to_json()) + b"\n")
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except OSError as error:
        to_kernel_log(f"{path} cannot be written: {error.strerror}")
