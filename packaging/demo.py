# SPDX-License-Identifier: Apache-2.0
"""The demonstration: `make demo`.

A virtual machine boots from an encrypted root that was enrolled in its own running system with a policy of 2 of 3:
a fragment disk, a TPM, another fragment disk. It is booted with all three, with each of them missing, and with only
one, where it must refuse and the passphrase prompt must be there. Every line below "console" is the guest's own.
build/demo/result.json has the outcome as data.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[0:0] = [str(REPOSITORY / "tests")]

from boots.enrolled import NAME, PROMPT, TWO_OF_THREE, Scene, enrolled_root, package  # noqa: E402 (needs the path above)

if TYPE_CHECKING:
    from guests.machine import Machine

RESULT = REPOSITORY / "build/demo/result.json"
_SECONDS = 600.0
_STORY = rf"keyquorum: (?P<said>[^\n]*)\n|(?P<prompt>{PROMPT})"

# What is left out of each boot, and whether the volume must open by itself.
BOOTS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("all three holders", (), True),
    ("without disk-a", ("frag-a",), True),
    ("without the TPM", ("tpm",), True),
    ("with only the TPM", ("frag-a", "frag-b"), False),
)


def main() -> int:
    """Run the demonstration; exit status 0 when every boot ended as it must."""
    _say("building the package and a Debian 13 machine; enrolling its running root (some minutes, once)")
    _say(f"package: {Path(package()).name}")
    started = time.monotonic()
    enrolled = enrolled_root()
    _say(f"the machine is ready ({time.monotonic() - started:.0f} s). Its policy:")
    for line in TWO_OF_THREE.splitlines():
        print(f"    {line}")
    print(Path(enrolled.path("enroll.log")).read_text(encoding="utf-8"))
    boots = [_boot(title, missing, opens) for title, missing, opens in BOOTS]
    good = all(boot["as_expected"] for boot in boots)
    result = {"version": 1, "package": Path(package()).name, "policy": TWO_OF_THREE, "boots": boots, "passed": good}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    verdict = "all boots ended as they must" if good else "A BOOT DID NOT END AS IT MUST"
    _say(f"{verdict}: {RESULT.relative_to(REPOSITORY)}")
    return 0 if good else 1


def _boot(title: str, missing: tuple[str, ...], opens: bool) -> dict[str, Any]:
    """Boot once, showing what the console says of us; a machine that asks gets its passphrase, as from a person."""
    _say(f"boot: {title}")
    with tempfile.TemporaryDirectory() as directory:
        scene = Scene(enrolled_root(), directory)
        for name in missing:
            if name == "tpm":
                scene.tpm = None
            else:
                del scene.disks[name]
        started = time.monotonic()
        with scene.machine() as vm:
            lines, prompted = _follow(vm)
            seconds = time.monotonic() - started
            if prompted:
                _say("the ordinary prompt is there; typing the passphrase")
                vm.type(scene.luks.passphrase.decode() + "\n")
            vm.wait_boot(_SECONDS)
            report = json.loads(vm.get(f"/run/keyquorum/{NAME}.json"))
    as_expected = prompted != opens and report["outcome"] == ("opened" if opens else "failed")
    _say("refused, asked, and booted with the passphrase" if prompted else "opened by itself")
    return {
        "title": title,
        "missing": list(missing),
        "console": lines,
        "prompt": prompted,
        "seconds_to_outcome": round(seconds, 1),
        "report": report,
        "as_expected": as_expected,
    }


def _follow(vm: Machine) -> tuple[list[str], bool]:
    """Show our lines as they come; return them, and whether the ordinary prompt appeared."""
    lines: list[str] = []
    while True:
        match = vm.wait_console(_STORY, _SECONDS)
        if match["prompt"]:
            print(f"    console | {match['prompt']}: _", flush=True)
            return lines, True
        lines.append(match["said"])
        print(f"    console | keyquorum: {match['said']}", flush=True)
        if match["said"].startswith(f"{NAME} is open"):
            return lines, False


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
