# SPDX-License-Identifier: Apache-2.0
"""The figures of docs/benchmarks.md, from build/bench/result.json: `PYTHONPATH=packaging python -m bench --write-doc`.

Everything between the two marks is written here; the text around them is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .table import ROWS, Row, show_figures, target_of

BEGIN, END = "<!-- figures: written by --write-doc -->\n", "<!-- end of figures -->\n"


def write(page: Path, result: Mapping[str, Any]) -> None:
    """Put a result's figures into the page; ValueError if the page has no marks."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} has no marks for the figures")
    page.write_text(f"{before}{begin}\n{rendered(result)}\n{end}{after}", encoding="utf-8")


def rendered(result: Mapping[str, Any]) -> str:
    """The figures as Markdown; a row that was not measured says so."""
    measured = {row["name"]: row for row in result["rows"]}
    information = {name: section["information"] for name, section in result["sections"].items()}
    tables = [_conditions(result), _rows(measured), "For information, not compared with a target:\n"]
    if "running" in information:
        tables += [_openings(information["running"]), _sizes(information["running"])]
    if "size" in information:
        tables += [_growth(information["size"])]
    if "sharing" in information:
        tables += [_wider(information["sharing"])]
    return "\n".join(tables)


def _conditions(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    sections = result["sections"].items()
    loads = ", ".join(f"{name} {section['load']:.2f}" for name, section in sections)
    minutes = sum(section["seconds"] for _, section in sections) / 60
    dates = sorted({section["date"] for _, section in sections})
    return (
        f"Measured {' and '.join(dates)} in {minutes:.0f} minutes on {machine['cores']} cores with {machine['system']} "
        f"and Python {machine['python']}; guests: {machine['guests']}. Load average of the last minute before each "
        f"section: {loads}.\n"
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    cells = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in cells)


def _rows(measured: Mapping[str, Mapping[str, Any]]) -> str:
    head = ("row", "ours", "median (min - max)", "peer", "median (min - max)", "n", "ratio", "target", "", "published")
    return _table(head, [_line(row, measured.get(row.name)) for row in ROWS])


def _line(row: Row, found: Mapping[str, Any] | None) -> tuple[str, ...]:
    name = f"`{row.name}`"
    if found is None:
        return name, row.ours, "", row.peer, "", "", "", target_of(row), "not measured yet", row.published
    ours, peer = found["ours"], found["peer"]
    return (
        name,
        row.ours,
        show_figures(ours, row.unit),
        row.peer,
        show_figures(peer, row.unit),
        f"{ours['n']}/{peer['n']}",
        "-" if found["ratio"] is None else f"{found['ratio']:.2f}",
        target_of(row),
        "**met**" if found["passed"] else "**missed**",
        row.published,
    )


def _openings(running: Mapping[str, Any]) -> str:
    head = ("opening in the running guest", "wall, s", "user+sys, s", "memory, MiB", "processes", "programs", "left")
    lines = []
    for name, wall in running["wall time, s"].items():
        processes, programs = running["started"].get(name, ("", ""))
        lines.append(
            (
                name,
                show_figures(wall, "s").removesuffix(" s"),
                f"{running['user and system time, s'][name]['median']:.2f}",
                f"{running['memory of the largest process, KiB'][name] / 1024:.0f}",
                processes,
                programs,
                ", ".join(running["left behind"][name]) or "nothing",
            )
        )
    return _table(head, lines)


def _sizes(running: Mapping[str, Any]) -> str:
    head = ("volume", "holders", "token, bytes", "time of enrolment, s")
    lines = []
    for name, token in running["tokens, bytes"].items():
        lines.append((name, ", ".join(token["holders"]) or "-", token["bytes"], running["enrolment, s"][name]))
    return _table(head, lines)


def _growth(size: Mapping[str, Any]) -> str:
    head = ("initramfs", "what it grows by", "files", "unpacked, bytes", "zstd -19 by itself, bytes")
    lines = []
    for name, image in size.items():
        grown = image["after"]["zstd -19"] - image["before"]["zstd -19"]
        unpacked = image["after"]["unpacked"] - image["before"]["unpacked"]
        lines += [
            (name, part["group"], part["files"], part["unpacked"], part["zstd -19 alone"]) for part in image["made of"]
        ]
        lines.append((name, "**all, as one stream**", "", unpacked, grown))
    return _table(head, lines)


def _wider(sharing: Mapping[str, Any]) -> str:
    head = ("64 bytes", "C with 64 lanes, µs", "ours against it", "ours, first call of a process, µs")
    lines = []
    for name, wide in sharing["C with 64 lanes"].items():
        what, _, scheme = name.partition("-")
        lines.append((name, wide["µs"], wide["ratio"], sharing["first call of a process, µs"][scheme][what]))
    return _table(head, lines)
