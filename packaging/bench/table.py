# SPDX-License-Identifier: Apache-2.0
"""The rows of the benchmark: what is compared with what, and the target. docs/benchmarks.md has one line for each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PUBLISHED_GROWTH = 5_846_465  # bytes that clevis (tpm2, tang, sss) added to an initramfs when the target was set


@dataclass(frozen=True)
class Row:
    """One comparison. The target is the most that the ratio of the medians may be, or what ours itself may be."""

    name: str
    section: str
    ours: str
    peer: str
    unit: str
    target: float
    published: str = ""  # what the peer took when the target was set, on that day's machine
    below: bool = False  # must be less than the target, not just as much
    absolute: bool = False  # the target is for our own figure


RUNNING, BOOT, SIZE, SHARING, SILENT = "running", "boot", "size", "sharing", "silent"
EVIDENCE, CUSTODIAN = "evidence", "custodian"
_CLEVIS = "clevis luks unlock, sss 2 of {tpm2, tang, tang}"
_ANCHOR = "C -O3, constant time, 32 lanes"
_BOOTS, _GREW = "1.19 s; clevis 9.77 s", f"{PUBLISHED_GROWTH:,} B"
_KEY_FILE = "key file in the initramfs"
_SILENT_CLEVIS = "clevis 1.16 x"
_TANG = "tangd, one recovery, a process for each connection"
_PRIMITIVES = "signatures and certificates alone"
_CONTROL = "the same with all three holders answering"
_BOTH = "the same with both custodians answering"

ROWS = (
    Row("unlock-wall", RUNNING, "unlock from 2 of {disk, TPM, disk}", _CLEVIS, "s", 0.2, "4.68 s"),
    Row("unlock-cpu", RUNNING, "the same, user and system time", _CLEVIS, "s", 0.2, "5.87 s"),
    Row("token-wall", RUNNING, "unlock from TPM and token of {disk, TPM, token}", _CLEVIS, "s", 0.2, "4.68 s"),
    Row("token-cpu", RUNNING, "the same, user and system time", _CLEVIS, "s", 0.2, "5.87 s"),
    Row("custodian-wall", RUNNING, "unlock from TPM and one of two custodians", _CLEVIS, "s", 0.2, "4.68 s"),
    Row("custodian-cpu", RUNNING, "the same, user and system time", _CLEVIS, "s", 0.2, "5.87 s"),
    Row("processes", RUNNING, "processes of one unlock, itself included", _CLEVIS, "", 1, "172", absolute=True),
    Row("tpm-wall", RUNNING, "unlock by the TPM alone", "systemd-cryptsetup attach, tpm2 token", "s", 1.5, "0.52 s"),
    Row("boot", BOOT, "device seen to root mapped, 2 of {disk, TPM, disk}", _KEY_FILE, "s", 2.0, _BOOTS),
    Row("growth", SIZE, "what {disk, TPM} adds to an initramfs", "what clevis adds, in this run", "B", 1.0, _GREW),
    Row("growth-published", SIZE, "the same", "what clevis added, as published", "B", 1.0, _GREW),
    Row("split-3-of-5", SHARING, "split 64 bytes into 3 of 5", _ANCHOR, "µs", 3.0, "1.9 to 2.0 µs"),
    Row("combine-3-of-5", SHARING, "combine 64 bytes from 3 of 5", _ANCHOR, "µs", 3.0, "1.5 to 2.0 µs"),
    Row("split-128-of-255", SHARING, "split into 128 of 255", _ANCHOR, "µs", 1.0, "1,353 to 2,716 µs", below=True),
    Row("combine-128-of-255", SHARING, "combine from 128 of 255", _ANCHOR, "µs", 1.0, "649 to 1,297 µs", below=True),
    Row("verify-snp", EVIDENCE, "judge a report of SEV-SNP with its chain", _PRIMITIVES, "µs", 2.0),
    Row("verify-tdx", EVIDENCE, "judge a quote of TDX with chain and collateral", _PRIMITIVES, "µs", 2.0),
    Row("release", CUSTODIAN, "a custodian's release, with a TLS handshake of both sides", _TANG, "ms", 0.5),
    Row("release-reused", CUSTODIAN, "the same, 16 releases on one connection", _TANG, "ms", 0.2),
    Row("silent-disk", SILENT, "unlock while the second disk never answers", _CONTROL, "s", 1.1, _SILENT_CLEVIS),
    Row("silent-tpm", SILENT, "unlock while the TPM never answers", _CONTROL, "s", 1.1, _SILENT_CLEVIS),
    Row("absent-disk", SILENT, "unlock while the second disk is not attached", _CONTROL, "s", 1.1),
    Row("silent-custodian", SILENT, "unlock while one custodian never answers", _BOTH, "s", 1.1, _SILENT_CLEVIS),
    Row(
        "left-behind",
        SILENT,
        "processes left after a silent holder",
        _CONTROL,
        "",
        0,
        "3",
        absolute=True,
    ),
)
BY_NAME: Mapping[str, Row] = {row.name: row for row in ROWS}


@dataclass(frozen=True)
class Sample:
    """What was measured, in the row's unit."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure that ratios are made of."""
        return statistics.median(self.values)

    def to_json(self) -> dict[str, float]:
        """Least, middle, most and how many."""
        return {"min": min(self.values), "median": self.median, "max": max(self.values), "n": len(self.values)}


@dataclass(frozen=True)
class Outcome:
    """A row with both sides' measurements of one run."""

    row: Row
    ours: Sample
    peer: Sample

    @property
    def ratio(self) -> float | None:
        """Our median over the peer's; None where the peer's is nothing."""
        return self.ours.median / self.peer.median if self.peer.median else None

    @property
    def passed(self) -> bool:
        """Whether the target is met."""
        figure = self.ours.median if self.row.absolute else self.ratio
        if figure is None:
            return False
        return figure < self.row.target if self.row.below else figure <= self.row.target

    def to_json(self) -> dict[str, Any]:
        """The row of result.json."""
        row = self.row
        return {
            "name": row.name,
            "ours": {"what": row.ours, **self.ours.to_json()},
            "peer": {"what": row.peer, **self.peer.to_json()},
            "unit": row.unit,
            "ratio": self.ratio,
            "target": row.target,
            "target_is": ("below" if row.below else "at most") + (", absolute" if row.absolute else ""),
            "passed": self.passed,
        }


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """The table for a terminal."""
    head = ("row", "ours: median (min - max)", "peer: median (min - max)", "n", "ratio", "target", "")
    cells = [head, *(_cells(outcome) for outcome in outcomes)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _cells(outcome: Outcome) -> tuple[str, ...]:
    row = outcome.row
    ratio = "-" if outcome.ratio is None else f"{outcome.ratio:.2f} x"
    count = f"{len(outcome.ours.values)}/{len(outcome.peer.values)}"
    figures = [show_figures(sample.to_json(), row.unit) for sample in (outcome.ours, outcome.peer)]
    return row.name, *figures, count, ratio, target_of(row), verdict(outcome.passed)


def target_of(row: Row) -> str:
    """A target in words: `<= 0.2 x`, `<= 1`."""
    return f"{'<' if row.below else '<='} {row.target:g}{'' if row.absolute else ' x'}"


def verdict(passed: bool) -> str:
    """As the table says it."""
    return "met" if passed else "MISSED"


def show_figures(sample: Mapping[str, float], unit: str) -> str:
    """A sample in words: `0.31 (0.28 - 0.35) s`."""
    digits = {"s": 2, "ms": 2, "µs": 1}.get(unit, 0)
    figures = [f"{sample[name]:.{digits}f}" for name in ("median", "min", "max")]
    return f"{figures[0]} ({figures[1]} - {figures[2]}) {unit}".rstrip()
