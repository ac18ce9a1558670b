# SPDX-License-Identifier: Apache-2.0
"""The benchmark and its page: every row documented with the target that was set, and the parts that measure do work.

No test here depends on a time: `make bench` alone says whether a target is met.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PACKAGING = str(REPOSITORY / "packaging")
PAGE = (REPOSITORY / "docs/benchmarks.md").read_text(encoding="utf-8")

# Set when the work was ordered, and not by the code that is measured.
TARGETS = {
    "unlock-wall": "<= 0.2 x",
    "unlock-cpu": "<= 0.2 x",
    "token-wall": "<= 0.2 x",
    "token-cpu": "<= 0.2 x",
    "custodian-wall": "<= 0.2 x",
    "custodian-cpu": "<= 0.2 x",
    "processes": "<= 1",
    "tpm-wall": "<= 1.5 x",
    "boot": "<= 2 x",
    "growth": "<= 1 x",
    "growth-published": "<= 1 x",
    "split-3-of-5": "<= 3 x",
    "combine-3-of-5": "<= 3 x",
    "split-128-of-255": "< 1 x",
    "combine-128-of-255": "< 1 x",
    "verify-snp": "<= 2 x",
    "verify-tdx": "<= 2 x",
    "release": "<= 0.5 x",
    "release-reused": "<= 0.2 x",
    "silent-disk": "<= 1.1 x",
    "silent-tpm": "<= 1.1 x",
    "absent-disk": "<= 1.1 x",
    "silent-custodian": "<= 1.1 x",
    "left-behind": "<= 0",
}

OTHER_FIELD = "#define DOUBLE(p0, p2, p3, p7) p0 ^= p7, p2 ^= p7, p3 ^= p0;"


@pytest.fixture
def bench() -> Iterator[Any]:
    """The package's modules by name."""
    sys.path.insert(0, PACKAGING)
    try:
        yield lambda name: importlib.import_module(f"bench.{name}")
    finally:
        sys.path.remove(PACKAGING)


def documented() -> dict[str, list[str]]:
    """The cells of each line of the page's tables, by the name in the first one."""
    lines = [re.split(r"\s*\|\s*", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in lines}


def test_every_row_is_documented_with_its_target(bench: Any) -> None:
    page = documented()
    for row in bench("table").ROWS:
        assert row.name in page, f"docs/benchmarks.md has no line for {row.name}"
        assert bench("table").target_of(row) in page[row.name], f"docs/benchmarks.md has another target for {row.name}"


def test_the_page_has_no_rows_that_are_not_measured(bench: Any) -> None:
    assert set(documented()) <= set(bench("table").BY_NAME)


def test_targets_are_those_that_were_set(bench: Any) -> None:
    assert {row.name: bench("table").target_of(row) for row in bench("table").ROWS} == TARGETS
    assert bench("table").PUBLISHED_GROWTH == 5_846_465


def test_the_program_starts_and_prints_its_rows(bench: Any) -> None:
    argv = [sys.executable, "-m", "bench", "--rows"]
    environment = {**os.environ, "PYTHONPATH": PACKAGING}
    printed = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, check=True, cwd=REPOSITORY).stdout
    assert [row["name"] for row in json.loads(printed)] == [row.name for row in bench("table").ROWS]


def test_a_target_is_met_missed_or_undefined(bench: Any) -> None:
    table = bench("table")
    sample = table.Sample

    def passed(name: str, ours: float, peer: float) -> bool:
        return bool(table.Outcome(table.BY_NAME[name], sample((ours,)), sample((peer,))).passed)

    assert passed("unlock-wall", 1.0, 5.0)
    assert not passed("unlock-wall", 1.01, 5.0)
    assert not passed("unlock-wall", 1.0, 0.0)  # no peer, no ratio, not met
    assert passed("combine-128-of-255", 0.9, 1.0)
    assert not passed("combine-128-of-255", 1.0, 1.0)
    assert passed("processes", 1.0, 100.0)
    assert not passed("processes", 2.0, 100.0)
    assert passed("left-behind", 0.0, 0.0)
    assert not passed("left-behind", 1.0, 0.0)


def test_the_median_and_not_the_best_decides(bench: Any) -> None:
    table = bench("table")
    outcome = table.Outcome(table.BY_NAME["unlock-wall"], table.Sample((0.1, 3.0, 3.0)), table.Sample((5.0,)))
    assert outcome.to_json()["ours"] == {"what": outcome.row.ours, "min": 0.1, "median": 3.0, "max": 3.0, "n": 3}
    assert not outcome.passed
    assert "MISSED" in "\n".join(table.lines([outcome]))


def a_result(bench: Any) -> dict[str, Any]:
    """A result with all rows, as the program writes it; the figures mean nothing."""
    table = bench("table")
    once = {"min": 1.0, "median": 1.0, "max": 1.0, "n": 1}
    image = {"before": {"unpacked": 1, "zstd -19": 2}, "after": {"unpacked": 31, "zstd -19": 12}}
    grown = image | {"made of": [{"group": "libraries", "files": 1, "unpacked": 30, "zstd -19 alone": 11}]}
    schemes = {scheme: {"split": 1.0, "combine": 2.0} for scheme in ("3-of-5", "128-of-255")}
    wide = {f"{what}-{scheme}": {"µs": 1.0, "ratio": 2.0} for what in ("split", "combine") for scheme in schemes}
    running = {
        "wall time, s": {"three": once},
        "user and system time, s": {"three": once},
        "memory of the largest process, KiB": {"three": 2048},
        "started": {"three": [1, 1]},
        "left behind": {"three": []},
        "tokens, bytes": {"kq-three": {"holders": ["disk", "tpm"], "bytes": 999}},
        "enrolment, s": {"kq-three": 1.5},
    }
    information = {
        "running": running,
        "size": {"keyquorum": grown, "clevis": grown},
        "sharing": {"C with 64 lanes": wide, "first call of a process, µs": schemes},
        "boot": {},
    }
    outcomes = [table.Outcome(row, table.Sample((0.5,)), table.Sample((1.0,))) for row in table.ROWS]
    return {
        "machine": {"cores": 2, "system": "Debian", "python": "3.11", "guests": "some"},
        "rows": [outcome.to_json() for outcome in outcomes],
        "sections": {
            name: {"date": "2026-11-22", "load": 0.25, "seconds": 90, "information": more}
            for name, more in information.items()
        },
    }


def test_a_result_goes_into_the_page_between_the_marks(bench: Any, tmp_path: Path) -> None:
    page = bench("page")
    path = tmp_path / "page.md"
    path.write_text(f"before\n{page.BEGIN}old figures\n{page.END}after\n", encoding="utf-8")
    page.write(path, a_result(bench))
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{page.BEGIN}")
    assert text.endswith(f"{page.END}after\n")
    assert "old figures" not in text
    assert all(f"| `{row.name}` |" in text for row in bench("table").ROWS)
    again = a_result(bench)
    page.write(path, again)
    assert path.read_text(encoding="utf-8") == text


def test_a_page_without_marks_is_refused(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("no marks\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no marks"):
        bench("page").write(path, a_result(bench))


def test_what_was_not_measured_says_so(bench: Any) -> None:
    result = a_result(bench)
    result["rows"] = result["rows"][1:]
    text = bench("page").rendered(result | {"sections": {}})
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert [line for line in lines if "not measured yet" in line] == [lines[0]]
    assert lines[0].startswith("| `unlock-wall` |")


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("lanes", ["32 lanes", "64 lanes"])
def test_the_anchor_and_keyquorum_combine_what_the_other_split(
    bench: Any, lanes: str, scheme: int, tmp_path: Path
) -> None:
    arithmetic = bench("arithmetic")
    anchor = arithmetic.compiled(str(tmp_path), lanes)
    arithmetic.prove_interoperation(anchor, arithmetic.SCHEMES[scheme])
    timed = arithmetic._run([anchor, "time", "3", "5", "10", "2"], "").split()
    assert timed[::2] == ["split", "combine"] * 2
    assert all(float(nanoseconds) > 0 for nanoseconds in timed[1::2])


def test_what_is_judged_is_trusted_and_both_sides_are_timed(bench: Any) -> None:
    outcomes, _ = bench("evidence").measure(1)
    assert [outcome.row.name for outcome in outcomes] == ["verify-snp", "verify-tdx"]
    assert all(sample.median > 0 for outcome in outcomes for sample in (outcome.ours, outcome.peer))


def test_an_anchor_that_means_something_else_is_noticed(bench: Any, tmp_path: Path) -> None:
    arithmetic = bench("arithmetic")
    source = Path(PACKAGING, "bench/shamir_anchor.c").read_text(encoding="utf-8")
    wrong = source.replace("#define DOUBLE(p0, p2, p3, p7) p0 ^= p7, p2 ^= p7, p3 ^= p7;", OTHER_FIELD)
    assert wrong != source
    (tmp_path / "anchor.c").write_text(wrong, encoding="utf-8")
    anchor = arithmetic.compiled(str(tmp_path), "32 lanes", str(tmp_path / "anchor.c"))
    with pytest.raises(AssertionError, match="does not combine"):
        arithmetic.prove_interoperation(anchor, arithmetic.SCHEMES[0])


def test_processes_and_programs_are_counted_in_a_trace(bench: Any) -> None:
    trace = """\
10 execve("/usr/bin/env", ["env"], 0x7 /* 9 vars */) = 0
10 execve("/nowhere/clevis", ["clevis"], 0x7 /* 9 vars */) = -1 ENOENT (No such file or directory)
10 execve("/usr/bin/clevis", ["clevis"], 0x7 /* 9 vars */) = 0
10 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD, child_tidptr=0x7) = 11
11 vfork( <unfinished ...>
12 execve("/usr/bin/jose", ["jose"], 0x7 /* 9 vars */ <unfinished ...>
11 <... vfork resumed>) = 12
12 <... execve resumed>) = 0
10 clone3({flags=CLONE_VM|CLONE_FS|CLONE_THREAD|CLONE_SYSVSEM, stack_size=0x7} => {parent_tid=[13]}, 88) = 13
10 clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD, stack_size=0x9000}, 88) = -1 EAGAIN (Resource)
"""
    assert bench("running").count_started(trace) == (3, 3)


def test_a_traced_shell_counts_what_it_starts(bench: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    watch = ["strace", "-f", "-qq", "-e", "trace=clone,clone3,fork,vfork,execve", "-e", "signal=none", "-o", str(trace)]
    subprocess.run([*watch, "sh", "-c", "/bin/true; (/bin/true; /bin/true); exec /bin/true"], check=True)
    processes, programs = bench("running").count_started(trace.read_text())
    assert programs == 5
    assert processes in {4, 5}  # whether a subshell execs its last command is the shell's affair


def archive(directory: Path, files: dict[str, bytes]) -> bytes:
    """What cpio(1) makes of some files."""
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    command = ["cpio", "--create", "--format=newc", "--quiet"]
    names = "\n".join(files).encode()
    return subprocess.run(command, cwd=directory, input=names, stdout=subprocess.PIPE, check=True).stdout


def test_an_image_is_taken_apart_and_put_together(bench: Any, tmp_path: Path) -> None:
    initramfs = bench("initramfs")
    early = archive(tmp_path, {"kernel/x86/microcode": b"m" * 5})
    packed = archive(tmp_path, {"usr/bin/python3": b"p" * 5000, "etc/empty": b""})
    main = subprocess.run(["zstd", "-1", "-c"], input=packed, stdout=subprocess.PIPE, check=True).stdout
    image = tmp_path / "initrd"
    image.write_bytes(early + bytes(512) + main)
    found = initramfs.read_image(str(image))
    assert found.files == {"kernel/x86/microcode": b"m" * 5, "usr/bin/python3": b"p" * 5000}
    assert found.unpacked == len(early) + 512 + len(packed)
    assert found.recompressed() < 1000
    (grown,) = initramfs.growth(initramfs.Image(0, b"", {"kernel/x86/microcode": b"m" * 5}), found)
    assert (grown.name, grown.files, grown.unpacked) == ("Python's interpreter", 1, 5000)


def test_an_image_of_another_kind_is_refused(bench: Any, tmp_path: Path) -> None:
    image = tmp_path / "initrd"
    image.write_bytes(b"\x1f\x8b gzip")
    with pytest.raises(ValueError, match="something unknown at byte 0"):
        bench("initramfs").read_image(str(image))


def test_the_meter_tells_time_and_what_is_left_running(bench: Any) -> None:
    meter = bench("meter")
    before = meter.processes()
    assert os.getpid() in before
    child = subprocess.Popen(["sleep", "60"])
    try:
        while meter.processes().get(child.pid) == "python":
            time.sleep(0.01)  # the kernel closes our pipe to it before it gives it its new name
        assert meter.processes().get(child.pid) == "sleep"
    finally:
        child.kill()
        child.wait()
    assert child.pid not in meter.processes()
