# SPDX-License-Identifier: Apache-2.0
"""Whoever writes the volume's header must not say what goes into the boot image, which lies on an unencrypted /boot.

A refusal shows what the header says, and the list that the hook reads carries refusals as notes: a line break in the
header, or what a shell makes one of, must not become an order to copy the owner's private key (docs/boot.md §2).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devices.luks2_header import rewrite
from devices.test_boot_command_line import place, write
from keyquorum.initramfs.main import main

if TYPE_CHECKING:
    from typing import Any

    from devices.bench import Bench

REPOSITORY = Path(__file__).resolve().parents[2]
HOOK = REPOSITORY / "hooks/initramfs-tools/hooks/keyquorum"
ORDERS = ["x\nexec /etc/keyquorum/owner.key", "x\nfile /etc/shadow /etc/shadow", "x\\nexec /etc/shadow"]


def require(order: str) -> Any:
    return lambda metadata: metadata["config"].update(requirements={"mandatory": [order]})


def encrypt(order: str) -> Any:
    return lambda metadata: metadata["segments"]["0"].update(encryption=f"aes-xts-{order}")


@pytest.mark.parametrize("change", [require, encrypt])
@pytest.mark.parametrize("order", ORDERS)
def test_the_list_has_no_lines_that_a_header_wrote(
    bench: Bench, capsys: pytest.CaptureFixture[str], change: Any, order: str
) -> None:
    volume, _, _ = bench.enrolled()
    rewrite(volume, change(order))
    destination = bench.path("image")
    os.makedirs(f"{destination}/cryptroot")
    bench.write("image/cryptroot/crypttab", f"root {volume} none luks\n")
    assert main([destination]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("note root will ask for its passphrase: LUKS2 header: ")


def test_status_has_no_lines_that_a_header_wrote(bench: Bench) -> None:
    volume, _, _ = bench.enrolled()
    rewrite(volume, require("x\n00000000-0000-0000-0000-000000000000 on /dev/vda"))
    uuid = bench.volumes[0]
    link = f"/dev/disk/by-uuid/{uuid}"
    os.makedirs(os.path.dirname(link), exist_ok=True)
    os.symlink(volume, link)
    try:
        assert bench.run("status").out.count("\n") == 1
    finally:
        os.unlink(link)


@pytest.mark.parametrize("text", ORDERS)
def test_the_hook_makes_no_orders_of_notes(tmp_path: Path, text: str) -> None:
    """The hook under dash, whose echo makes line breaks of backslashes."""
    for program, target in (("dash", "/bin/sh"), ("cat", "/bin/cat")):
        place(tmp_path, program, target)
    shown = text.replace("\n", "?")
    write(tmp_path, "/list", f"note root: {shown}\nexec /usr/bin/python3\nfile /a /b c\nmodule dm\n")
    write(tmp_path, "/usr/lib/keyquorum/keyquorum-boot-image", "#!/bin/sh\ncat /list\n")
    functions = "".join(
        f'{name}() {{ printf "%s|" {name} "$@"; echo; }}\n' for name in ("copy_exec", "copy_file", "manual_add_modules")
    )
    write(tmp_path, "/usr/share/initramfs-tools/hook-functions", functions)
    write(tmp_path, "/image/cryptroot/crypttab", "root x none\n")
    write(tmp_path, "/hook", HOOK.read_text())
    done = subprocess.run(
        ["/usr/sbin/chroot", str(tmp_path), "/bin/sh", "/hook"],
        env={"PATH": "/bin", "DESTDIR": "/image"},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.splitlines() == [
        "copy_exec|/usr/bin/python3|",
        "copy_file|keyquorum|/a|/b c|",
        "manual_add_modules|dm|",
    ]
    assert done.stderr == f"keyquorum: root: {shown}\n"


def test_a_header_fills_no_console(bench: Bench) -> None:
    volume, _, _ = bench.enrolled()
    rewrite(volume, require("x" * 3000))
    said = bench.run("check", volume, "--json")
    assert said.code == 4
    assert len(said.json["message"]) < 1000
    assert "... (3000 characters)" in said.json["message"]
    assert len(said.err) < 1500
