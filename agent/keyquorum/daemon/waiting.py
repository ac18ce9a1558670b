# SPDX-License-Identifier: Apache-2.0
"""Which volumes wait, and what to do for them now: rules without a clock and without systemd (docs/daemon.md §3).

Times are seconds on the monotonic clock.
"""

from __future__ import annotations

from keyquorum.errors import TamperingError, UsageError
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NEVER = float("inf")
RETRY, QUIET_RETRY, WITHDRAW, RESUME = "retry", "retry without asking", "withdraw the prompt", "go on"
_AFTER_DEVICE = (2.0, 60.0)  # the first and the longest delay between attempts when a device came
_AFTER_NOTHING = (10.0, 600.0)  # the same when nothing was announced
_OURS, _OTHERS = 1.0, 5.0  # how soon to look again at an attempt that runs: one we started, one of the boot
_UNSETTLED = 60.0  # how soon to look again at a volume that is neither open nor at its prompt
_PIN_TRIES = 2  # whoever plugs in devices must not make us lock a token with a stored PIN that is wrong
_HOPELESS = (UsageError.exit_code, TamperingError.exit_code)


class Unit(Record):
    """How systemd says a unit stands. `pid`, `started`, `ended` and the exit `status` are of its main process."""

    active: str = "inactive"
    sub: str = "dead"
    started: float = 0.0
    ended: float = 0.0
    status: int = 0
    pid: int = 0


class Volume(Record):
    """The two units of one volume: our attempt, and systemd-cryptsetup with its prompt.

    `instance` is the name as unit names have it. `asks` is true while the prompt's process has a question open.
    `worth_waiting` is false when the last attempt's report says that time alone will not help, or that trying again
    would use up tries of a PIN; `pin_refused` is true when a PIN was wrong.
    """

    instance: str
    unlock: Unit
    prompt: Unit
    asks: bool = False
    worth_waiting: bool = True
    pin_refused: bool = False


class Attempts(Record):
    """What is remembered of a volume that waits: attempts we started, and whether a device came since the last one."""

    count: int = 0
    last: float = 0.0
    device_came: bool = False


class Step(Record):
    """One thing to do for one volume."""

    what: str
    instance: str


class Plan(Record):
    """What to do now, what to remember, and when to look again although nothing happened."""

    steps: tuple[Step, ...]
    memory: dict[str, Attempts]
    look_again: float


def waits(volume: Volume) -> bool:
    """Say whether our attempt is over without success and systemd-cryptsetup is at its prompt, or failed too."""
    return volume.unlock.active in {"failed", "inactive"} and (_at_prompt(volume) or volume.prompt.active == "failed")


def decide(volumes: tuple[Volume, ...], memory: Mapping[str, Attempts], now: float, *, device_came: bool) -> Plan:
    """Return what to do; `memory` is what the plan before this one said to remember."""
    steps: list[Step] = []
    remembered: dict[str, Attempts] = {}
    look_again = NEVER
    for volume in volumes:
        past = memory.get(volume.instance, Attempts())
        if device_came:
            past = past.with_(device_came=True)
        opened = _opened_late(volume)
        if opened:
            steps.append(Step(what=opened, instance=volume.instance))
            due = now + _OURS
        elif volume.unlock.active == "activating":
            remembered[volume.instance] = past
            due = now + (_OURS if past.count else _OTHERS)
        elif waits(volume):
            due = _due(volume, past)
            if due <= now:
                steps.append(Step(what=RETRY if past.device_came else QUIET_RETRY, instance=volume.instance))
                past, due = Attempts(count=past.count + 1, last=now), now + _OURS
            remembered[volume.instance] = past
        elif volume.unlock.active == "active" and volume.prompt.active == "activating":
            due = now + _OTHERS
        else:
            due = NEVER if volume.prompt.active == "active" else now + _UNSETTLED
        look_again = min(look_again, due)
    return Plan(steps=tuple(steps), memory=remembered, look_again=look_again)


def _at_prompt(volume: Volume) -> bool:
    return volume.prompt.active == "activating" and volume.prompt.sub == "start"


def _opened_late(volume: Volume) -> str:
    """Return the step for a volume that was opened while its prompt was up, or after that had failed; "" for others.

    A prompt is withdrawn only while its question is open: before that, systemd-cryptsetup may be about to see for
    itself that the volume is open, and restarting it then would close the volume.
    """
    if volume.unlock.active != "active":
        return ""
    if _at_prompt(volume) and volume.asks and volume.unlock.ended > volume.prompt.started:
        return WITHDRAW
    if volume.prompt.active == "failed" and volume.unlock.ended > volume.prompt.started:
        return RESUME
    return ""


def _due(volume: Volume, past: Attempts) -> float:
    """Return when to try again, NEVER when only a device can help."""
    last = max(past.last, volume.unlock.ended)
    first, longest = _AFTER_DEVICE if past.device_came else _AFTER_NOTHING
    if volume.pin_refused and past.count >= _PIN_TRIES:
        return NEVER
    if not past.device_came and (volume.unlock.status in _HOPELESS or not volume.worth_waiting):
        return NEVER
    return last + min(first * 2.0 ** min(past.count, 30), longest)
