# SPDX-License-Identifier: Apache-2.0
"""The demonstration: `make demo`.

A virtual machine boots from an encrypted root that was enrolled in its own running system with a policy of 2 of 3:
a fragment disk, a TPM, another fragment disk. It is booted with all three, with each of two missing, and with only
one, where it must refuse and the passphrase prompt must be there. Every line behind "console" is the guest's own, as
it comes. build/demo/result.json has the outcome as data (docs/development.md §8).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[0:0] = [str(REPOSITORY / "tests")]

from boots import enrolled  # noqa: E402 (needs the path above)

if TYPE_CHECKING:
    from guests.machine import Machine

RESULT = REPOSITORY / "build/demo/result.json"
_SECONDS = 600.0
_STORY = rf"keyquorum: (?P<said>[^\n]*)\n|(?P<prompt>{enrolled.PROMPT})"
_HARDWARE = {"disk-a": "frag-a", "disk-b": "frag-b"}  # a holder's name, and its disk's in a Scene


class Boot(NamedTuple):
    """A boot of the demonstration: which holders are taken away, and whether the volume must open by itself."""

    title: str
    missing: tuple[str, ...]
    opens: bool


BOOTS = (
    Boot("all three holders are there", (), True),
    Boot("disk-a is pulled", ("disk-a",), True),
    Boot("the TPM is gone", ("tpm",), True),
    Boot("both disks are pulled: the TPM alone", ("disk-a", "disk-b"), False),
)


def main() -> int:
    """Run the demonstration; exit status 0 when every boot ended as it must."""
    _prepare()
    ended = []
    for number, boot in enumerate(BOOTS, 1):
        _say(f"boot {number} of {len(BOOTS)}: {boot.title}")
        ended.append(_boot(boot))
    outcome = result(Path(enrolled.package()).name, ended)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    _say("in short:")
    for boot in outcome["boots"]:
        ending = "asked for the passphrase" if boot["prompt"] else "opened by itself"
        mark = "as it must" if boot["as_expected"] else "WRONG"
        print(f"    {boot['title']:<40}{ending} after {boot['seconds_to_outcome']:.0f} s, {mark}")
    _say(f"{'all boots ended as they must' if outcome['passed'] else 'A BOOT ENDED WRONG'}: {_shown(RESULT)}")
    return 0 if outcome["passed"] else 1


def _prepare() -> None:
    """Build package and machine, and enrol its root, saying what takes the time; nothing is done twice."""
    _say("the first run takes some minutes: a Debian is built, booted and enrolled; later ones find that machine")
    _timed("the Debian package", enrolled.package)
    _timed("a Debian 13 with that package, its root on LUKS2", enrolled.product_tree)
    machine = _timed("booted with its passphrase; root enrolled while in use", enrolled.enrolled_root)
    _say("its policy, policy.toml:")
    _show(enrolled.TWO_OF_THREE, "")
    _say("what `keyquorum enroll` said in that machine:")
    _show(Path(machine.path("enroll.log")).read_text(encoding="utf-8"), "")


def _timed(what: str, make: Any) -> Any:
    print(f"demo:   {what} ...", end="", flush=True)
    started = time.monotonic()
    made = make()
    print(f" {time.monotonic() - started:.0f} s", flush=True)
    return made


def _boot(boot: Boot) -> dict[str, Any]:
    """Boot once, showing what the console says of us; a machine that asks gets its passphrase, as from a person."""
    with tempfile.TemporaryDirectory() as directory:
        scene = enrolled.Scene(enrolled.enrolled_root(), directory)
        for holder in boot.missing:
            if holder == "tpm":
                scene.tpm = None
            else:
                del scene.disks[_HARDWARE[holder]]
        with scene.machine() as vm:
            started = time.monotonic()
            lines, prompted = _follow(vm)
            seconds = time.monotonic() - started
            if prompted:
                _say("  the ordinary prompt; a person types the passphrase")
                vm.type(scene.luks.passphrase.decode() + "\n")
            vm.wait_agent(_SECONDS)
            report = json.loads(vm.get(f"/run/keyquorum/{enrolled.NAME}.json"))
    _say("  refused, asked, and booted with the passphrase" if prompted else "  opened by itself, and booted")
    return boot_result(boot, lines, prompted, seconds, report)


def _follow(vm: Machine) -> tuple[list[str], bool]:
    """Show our lines as they come; return them, and whether the ordinary prompt appeared."""
    lines: list[str] = []
    while True:
        match = vm.wait_console(_STORY, _SECONDS)
        if match["prompt"]:
            _show(f"{match['prompt']}: _", "console | ")
            return lines, True
        lines.append(match["said"])
        _show(f"keyquorum: {match['said']}", "console | ")
        if match["said"].startswith(f"{enrolled.NAME} is open"):
            return lines, False


def boot_result(boot: Boot, lines: list[str], prompted: bool, seconds: float, report: dict[str, Any]) -> dict[str, Any]:
    """Say how a boot ended; `seconds` from power on until the volume was open or the prompt was there."""
    return {
        "title": boot.title,
        "missing": list(boot.missing),
        "console": lines,
        "prompt": prompted,
        "seconds_to_outcome": round(seconds, 1),
        "report": report,
        "as_expected": prompted != boot.opens and report["outcome"] == ("opened" if boot.opens else "failed"),
    }


def result(package: str, boots: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what goes into build/demo/result.json (docs/development.md §8)."""
    passed = all(boot["as_expected"] for boot in boots)
    return {"version": 1, "package": package, "policy": enrolled.TWO_OF_THREE, "boots": boots, "passed": passed}


def _show(text: str, prefix: str) -> None:
    for line in text.splitlines():
        print(f"    {prefix}{line}", flush=True)


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
