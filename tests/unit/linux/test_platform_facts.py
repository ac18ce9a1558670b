# SPDX-License-Identifier: Apache-2.0
"""Facts of the machine as one printable line each (docs/holders-tpm.md §6)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keyquorum.linux import platform_facts

BOTH = ("bios-version", "cpu-model")


def machine(root: Path, bios: bytes | None, cpuinfo: bytes | None) -> str:
    for path, content in (("sys/class/dmi/id/bios_version", bios), ("proc/cpuinfo", cpuinfo)):
        if content is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
    return str(root)


def test_they_are_read_where_the_kernel_tells_them(tmp_path: Path) -> None:
    cpuinfo = b"processor\t: 0\nmodel\t\t: 23\nmodel name\t: Example(R)  CPU @ 2.00GHz\n\nmodel name\t: Another\n"
    root = machine(tmp_path, b"1.14.0\n", cpuinfo)
    assert platform_facts.read(BOTH, root) == {"bios-version": "1.14.0", "cpu-model": "Example(R) CPU @ 2.00GHz"}
    assert platform_facts.read(("cpu-model",), root) == {"cpu-model": "Example(R) CPU @ 2.00GHz"}
    assert platform_facts.read((), root) == {}


def test_what_a_machine_does_not_tell_is_empty(tmp_path: Path) -> None:
    root = machine(tmp_path, None, b"processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert platform_facts.read(BOTH, root) == {"bios-version": "", "cpu-model": ""}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[2Jfalse", "?[2Jfalse"),
        (b"  a \t b\n\n", "a b"),
        (b"x" * 500, "x" * 128),
        (b"caf\xc3\xa9 \xff", "caf\u00e9 \ufffd"),
        (b"\xe2\x80\xaegpj", "?gpj"),
        (b"", ""),
    ],
)
def test_a_text_cannot_surprise_a_terminal(tmp_path: Path, raw: bytes, shown: str) -> None:
    assert platform_facts.read(("bios-version",), machine(tmp_path, raw, None)) == {"bios-version": shown}


def test_this_machine_has_a_cpu() -> None:
    found = platform_facts.read(("cpu-model",))["cpu-model"]
    wanted = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert found == (" ".join(wanted[1].split())[:128] if wanted else "")
