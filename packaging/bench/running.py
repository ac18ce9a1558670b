# SPDX-License-Identifier: Apache-2.0
"""Openings in a running guest: every way in turn, round after round, so that what disturbs one disturbs all."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guests.disk_image import root_image
from guests.machine import Machine
from guests.nbd_server import Faults

from . import scenery
from .scenery import PIN_FILE, Scenery, device
from .table import BY_NAME, Outcome, Sample
from .tell import say

_HERE = os.path.dirname(os.path.abspath(__file__))
_METER = "/root/meter.py"
_SECONDS = 300.0


@dataclass(frozen=True)
class Way:
    """One way to open a volume; the mapping is named after the way."""

    name: str
    command: str
    descriptors: Mapping[str, str] = field(default_factory=dict)
    silent: str = ""  # what falls silent meanwhile: "disk" or "tpm"
    cold: bool = False  # with the guest's page cache dropped before


def _keyquorum(volume: str, way: str, options: str = "") -> str:
    return f"keyquorum unlock {device(volume)} --name {way} {options}"


_WITH_VIRTUAL = f"env KEYQUORUM_CONFIG={scenery.VIRTUAL_CONFIG}"

WAYS = (
    Way("keyfile", f"cryptsetup open --key-file {scenery.KEY_FILE} {device('keyfile')} keyfile"),
    Way("clevis", f"clevis luks unlock -d {device('clevis')} -n clevis"),
    Way("three", _keyquorum("kq-three", "three")),
    Way(
        "token",
        _keyquorum("kq-token", "token", "--holder tpm --holder pkcs11 --pin-fd token=9"),
        descriptors={"9": PIN_FILE},
    ),
    Way("custodians", _keyquorum("kq-custodians", "custodians")),
    Way("mute", _keyquorum("kq-mute", "mute")),
    Way("systemd", f"systemd-cryptsetup attach systemd {device('systemd')} - tpm2-device=/dev/tpmrm0,headless=1"),
    Way("tpm", _keyquorum("kq-tpm", "tpm")),
)
# A silent disk is only silent for who really reads it: all ways of this comparison start with an empty page cache.
FAILURES = (
    Way("disks", _keyquorum("kq-disks", "disks"), cold=True),
    Way("silent-disk", _keyquorum("kq-disks", "silent-disk"), silent="disk", cold=True),
    Way("absent-disk", _keyquorum("kq-absent", "absent-disk"), cold=True),
    Way("virtual-tpm", f"{_WITH_VIRTUAL} {_keyquorum('kq-virtual', 'virtual-tpm')}", cold=True),
    Way("silent-tpm", f"{_WITH_VIRTUAL} {_keyquorum('kq-virtual', 'silent-tpm')}", silent="tpm", cold=True),
    Way("unmeasured", f"{_WITH_VIRTUAL} {_keyquorum('kq-measured', 'unmeasured')}", silent="tpm", cold=True),
)


def prepare() -> None:
    """Build the guest's root."""
    root_image(scenery.tree())


def measure(rounds: int) -> tuple[list[Outcome], dict[str, object]]:
    """All rows about a running guest, and for information what enrolment, tokens and memory come to."""
    with tempfile.TemporaryDirectory() as directory, scenery.scenery(directory) as scene:
        with open(os.path.join(_HERE, "meter.py"), "rb") as file:
            scene.vm.put(_METER, file.read())
        enrolment = scenery.enrol(scene)
        with scenery.mute(scene):
            found = _rounds(scene, WAYS, rounds)
            found |= _rounds(scene, FAILURES, rounds)
            started = {way.name: _started(scene.vm, way) for way in WAYS}
        information: dict[str, object] = {
            "enrolment, s": {name: round(seconds, 2) for name, seconds in enrolment.items()},
            "memory of the largest process, KiB": {
                name: max(run["rss"] for run in runs) for name, runs in found.items()
            },
            "wall time, s": {name: _sample(runs, "wall").to_json() for name, runs in found.items()},
            "user and system time, s": {name: _sample(runs, "cpu").to_json() for name, runs in found.items()},
            "started": started,
            "left behind": {
                name: sorted({left for run in runs for left in run["left"]}) for name, runs in found.items()
            },
            "tokens, bytes": _tokens(scene.vm),
        }
    return _outcomes(found, started), information


def _rounds(scene: Scenery, ways: Sequence[Way], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Each way once per round; the first round only warms caches."""
    found: dict[str, list[dict[str, Any]]] = {way.name: [] for way in ways}
    for number in range(rounds + 1):
        say(f"round {number} of {rounds}: {', '.join(way.name for way in ways)}")
        for way in ways:
            run = _once(scene, way)
            if number:
                found[way.name].append(run)
    return found


def _once(scene: Scenery, way: Way) -> dict[str, Any]:
    """Open, see what was left running, let the silent ones speak again, close."""
    order = {"argv": way.command.split(), "descriptors": dict(way.descriptors), "cold": way.cold}
    if way.silent == "disk":
        scene.silent.faults = Faults(reads="silent")
    if way.silent == "tpm":
        scene.vm.run("systemctl kill --signal=STOP virtual-tpm")
    try:
        said = scene.vm.run(f"python3 -IS {_METER}", data=json.dumps(order).encode(), timeout=_SECONDS).text
    finally:
        if way.silent == "disk":
            scene.silent.faults = Faults()
        if way.silent == "tpm":
            scene.vm.run("systemctl kill --signal=CONT virtual-tpm")
    run: dict[str, Any] = json.loads(said)
    if run["code"] != 0:
        raise RuntimeError(f"`{way.command}` ended with {run['code']}\n{run['said']}")
    scene.vm.run(f"cryptsetup close {way.name} && udevadm settle")
    return run


_BIRTH = re.compile(r"\b(?:clone3?|fork|vfork)\(")
_PROGRAM = re.compile(r"\bexecve\(.* = 0$")


def _started(vm: Machine, way: Way) -> tuple[int, int]:
    """How many processes one opening consists of, itself included, and how many programs it starts."""
    redirections = " ".join(f"{number}<{path}" for number, path in way.descriptors.items())
    trace = "strace -f -qq -e trace=clone,clone3,fork,vfork,execve -e signal=none -o /root/trace"
    vm.run(f"{trace} {way.command} {redirections}; udevadm settle", timeout=_SECONDS)
    vm.run(f"cryptsetup close {way.name} && udevadm settle")
    return count_started(vm.get("/root/trace").decode(errors="replace"))


def count_started(trace: str) -> tuple[int, int]:
    """Processes and programs in what `strace -f` wrote; threads are no processes."""
    processes, programs, begun = 1, 0, dict[str, str]()
    for line in trace.splitlines():
        pid, _, event = line.partition(" ")
        if event.rstrip().endswith("<unfinished ...>"):
            begun[pid] = event.rstrip().removesuffix("<unfinished ...>")
            continue
        if "resumed>" in event:
            event = begun.pop(pid, "") + event.partition("resumed>")[2]
        if _BIRTH.search(event) and "CLONE_THREAD" not in event and not event.rstrip().endswith(("= ?", ")")):
            processes += 0 if " = -1 " in event else 1
        programs += bool(_PROGRAM.search(event.rstrip()))
    return processes, programs


def _outcomes(found: Mapping[str, list[dict[str, Any]]], started: Mapping[str, tuple[int, int]]) -> list[Outcome]:
    def compared(row: str, ours: str, peer: str, what: str) -> Outcome:
        return Outcome(BY_NAME[row], _sample(found[ours], what), _sample(found[peer], what))

    def left(*ways: str) -> Sample:
        return Sample(tuple(float(len(run["left"])) for name in ways for run in found[name]))

    counts = [Sample((float(started[name][0]),)) for name in ("three", "clevis")]
    return [
        compared("unlock-wall", "three", "clevis", "wall"),
        compared("unlock-cpu", "three", "clevis", "cpu"),
        compared("token-wall", "token", "clevis", "wall"),
        compared("token-cpu", "token", "clevis", "cpu"),
        Outcome(BY_NAME["processes"], counts[0], counts[1]),
        compared("tpm-wall", "tpm", "systemd", "wall"),
        compared("silent-disk", "silent-disk", "disks", "wall"),
        compared("silent-tpm", "silent-tpm", "virtual-tpm", "wall"),
        compared("absent-disk", "absent-disk", "disks", "wall"),
        compared("custodian-wall", "custodians", "clevis", "wall"),
        compared("custodian-cpu", "custodians", "clevis", "cpu"),
        compared("silent-custodian", "mute", "custodians", "wall"),
        Outcome(
            BY_NAME["left-behind"],
            left("silent-disk", "silent-tpm", "unmeasured", "mute"),
            left("disks", "virtual-tpm", "custodians"),
        ),
    ]


def _sample(runs: Sequence[Mapping[str, Any]], what: str) -> Sample:
    return Sample(tuple(float(run[what]) for run in runs))


def _tokens(vm: Machine) -> dict[str, dict[str, object]]:
    """How large each volume's token is, and how much of it each fragment's place and envelope take."""
    sizes: dict[str, dict[str, object]] = {}
    for name in ("clevis", "systemd", *scenery.POLICIES):
        token = vm.run(f"cryptsetup token export --token-id 0 {device(name)}").output
        sizes[name] = {"holders": list(scenery.POLICIES.get(name, ())), "bytes": len(token)}
    return sizes
