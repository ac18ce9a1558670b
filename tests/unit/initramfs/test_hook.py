# SPDX-License-Identifier: Apache-2.0
"""The hook of initramfs-tools, with its functions and the list of what goes in from the test."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).resolve().parents[3] / "hooks/initramfs-tools/hooks/keyquorum"
# As in hook-functions: 1 if the target is there already, 2 if the source is missing.
FUNCTIONS = """
copy_file() { [ -f "$2" ] || return 2; [ ! -e "$DESTDIR/$(basename "$3")" ] || return 1; cp "$2" "$DESTDIR"; }
copy_exec() { [ -f "$1" ]; }
manual_add_modules() { echo "$1" >>"$DESTDIR/modules"; }
"""


def build(directory: Path, lines: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the hook for a list; the image is the directory `image`."""
    image = directory / "image"
    (image / "cryptroot").mkdir(parents=True)
    (image / "cryptroot/crypttab").write_text("root /dev/vda none luks\n")
    (directory / "functions").write_text(FUNCTIONS)
    (directory / "list").write_text("".join(f"{line}\n" for line in lines))
    lister = directory / "lister"
    lister.write_text(f"#!/bin/sh\ncat {directory}/list\n")
    lister.chmod(0o755)
    text = HOOK.read_text()
    for path, name in (
        ("/usr/share/initramfs-tools/hook-functions", "functions"),
        ("/usr/lib/keyquorum/keyquorum-boot-image", "lister"),
    ):
        assert path in text
        text = text.replace(path, str(directory / name))
    return subprocess.run(
        ["/bin/sh", "-c", text],
        env={"DESTDIR": str(image), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("last", [False, True], ids=["more follows", "nothing follows"])
def test_a_library_that_is_missing_is_told_and_does_not_end_the_image(tmp_path: Path, last: bool) -> None:
    """The module of a token, say, whose package was removed: a new kernel needs its image all the same."""
    lines = ["module tpm_crb", f"exec {tmp_path}/module.so"]
    done = build(tmp_path, lines if last else [*lines, "module vsock"])
    assert (done.returncode, done.stderr) == (0, f"keyquorum: {tmp_path}/module.so is not in this initramfs\n")


@pytest.mark.parametrize("last", [False, True], ids=["more follows", "nothing follows"])
def test_a_file_that_is_missing_is_told_and_the_rest_goes_in(tmp_path: Path, last: bool) -> None:
    there, gone = tmp_path / "policy.json", tmp_path / "gone.json"
    there.write_text("{}")
    lines = ["module tpm_crb", f"file {there} {there}", f"file {there} {there}", f"file {gone} {gone}"]
    done = build(tmp_path, lines if last else [*lines, "module vsock"])
    assert done.returncode == 0
    assert done.stderr == f"keyquorum: {gone} is not in this initramfs\n"
    assert (tmp_path / "image/policy.json").read_text() == "{}"
    assert (tmp_path / "image/modules").read_text().splitlines() == (["tpm_crb"] if last else ["tpm_crb", "vsock"])


def test_a_file_that_is_there_already_is_no_news(tmp_path: Path) -> None:
    there = tmp_path / "policy.json"
    there.write_text("{}")
    done = build(tmp_path, [f"file {there} {there}"] * 2)
    assert (done.returncode, done.stderr) == (0, "")
