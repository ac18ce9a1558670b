# SPDX-License-Identifier: Apache-2.0
"""Facts of this machine that its firmware does not measure: BIOS version and CPU model (docs/holders-tpm.md §6)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_READ = 16 * 1024  # /proc/cpuinfo names the model of the first CPU within its first lines
MAX_TEXT = 128


def read(names: Iterable[str], root: str = "") -> dict[str, str]:
    """Return the facts by name (see `model.holder_options.FACTS`); one that the machine does not tell is empty.

    `root` stands before /sys and /proc, for tests.
    """
    return {name: _clean(_READERS[name](root or _ROOT)) for name in names}


_ROOT = "/"


def _bios_version(root: str) -> bytes:
    return _content(os.path.join(root, "sys/class/dmi/id/bios_version"))


def _cpu_model(root: str) -> bytes:
    for line in _content(os.path.join(root, "proc/cpuinfo")).split(b"\n"):
        label, _, value = line.partition(b":")
        if label.strip() == b"model name":
            return value
    return b""


_READERS = {"bios-version": _bios_version, "cpu-model": _cpu_model}


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_READ)
    except OSError:
        return b""


def _clean(value: bytes) -> str:
    """Return one printable line without doubled spaces, so that the text can be shown and compared."""
    text = " ".join(value.decode("utf-8", "replace").split())
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_TEXT]
