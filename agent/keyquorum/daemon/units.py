# SPDX-License-Identifier: Apache-2.0
"""systemd's view of the volumes, and the few things asked of it: the adapter to systemctl (docs/daemon.md §3)."""

from __future__ import annotations

from keyquorum.daemon.waiting import Unit, Volume
from keyquorum.errors import KeyquorumError
from keyquorum.linux import run

_UNLOCK, _PROMPT, _SUFFIX = "keyquorum-unlock@", "systemd-cryptsetup@", ".service"
_PROPERTIES = (
    "Id",
    "ActiveState",
    "SubState",
    "ExecMainStartTimestampMonotonic",
    "ExecMainExitTimestampMonotonic",
    "ExecMainStatus",
    "MainPID",
)
_LIMITS = run.Limits(seconds=30.0)
_MICROSECONDS = 1e6


def volumes() -> tuple[Volume, ...]:
    """Return every volume that has a keyquorum-unlock@ unit; raises `KeyquorumError` when systemd does not answer."""
    shown = _systemctl("show", f"--property={','.join(_PROPERTIES)}", f"{_UNLOCK}*{_SUFFIX}", f"{_PROMPT}*{_SUFFIX}")
    return parse(shown)


def parse(shown: str) -> tuple[Volume, ...]:
    """Read the blocks that `systemctl show` prints."""
    units = {}
    for block in shown.split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        units[fields.get("Id", "")] = _unit(fields)
    instances = sorted(name[len(_UNLOCK) : -len(_SUFFIX)] for name in units if name.startswith(_UNLOCK))
    return tuple(
        Volume(
            instance=instance,
            unlock=units[f"{_UNLOCK}{instance}{_SUFFIX}"],
            prompt=units.get(f"{_PROMPT}{instance}{_SUFFIX}", Unit()),
        )
        for instance in instances
        if instance
    )


def _unit(fields: dict[str, str]) -> Unit:
    return Unit(
        active=fields.get("ActiveState", "inactive"),
        sub=fields.get("SubState", "dead"),
        started=_number(fields.get("ExecMainStartTimestampMonotonic", "")) / _MICROSECONDS,
        ended=_number(fields.get("ExecMainExitTimestampMonotonic", "")) / _MICROSECONDS,
        status=_number(fields.get("ExecMainStatus", "")),
        pid=_number(fields.get("MainPID", "")),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def start_unlock(instance: str) -> None:
    """Queue another attempt for a volume."""
    _systemctl("start", "--no-block", f"{_UNLOCK}{instance}{_SUFFIX}")


def restart_prompt(instance: str) -> None:
    """Have systemd-cryptsetup look again: its question is withdrawn, and it finds the volume open.

    Dependencies are ignored: otherwise what somebody has mounted from the volume meanwhile would be unmounted.
    """
    _systemctl("restart", "--no-block", "--job-mode=ignore-dependencies", f"{_PROMPT}{instance}{_SUFFIX}")


def start_prompt(instance: str) -> None:
    """Have systemd-cryptsetup, which had failed, find the volume open."""
    _systemctl("start", "--no-block", f"{_PROMPT}{instance}{_SUFFIX}")


def start_bound(instance: str) -> None:
    """Queue the mounts and swaps on the volume that the boot wanted and did not get."""
    bound = _systemctl("show", "--property=BoundBy", f"dev-mapper-{instance}.device").strip().removeprefix("BoundBy=")
    if not bound:
        return
    shown = _systemctl("show", "--property=Id,ActiveState,WantedBy,RequiredBy", *bound.split())
    for block in shown.split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if fields.get("ActiveState") in {"inactive", "failed"} and (fields.get("WantedBy") or fields.get("RequiredBy")):
            _systemctl("start", "--no-block", fields.get("Id", ""))


def unescape(instance: str) -> str:
    """Return the name that an instance stands for, as systemd-escape --unescape does."""
    raw, out, position = instance.encode(), bytearray(), 0
    while position < len(raw):
        if raw[position : position + 2] == b"\\x":
            digits = raw[position + 2 : position + 4]
            if len(digits) == 2 and set(digits) <= set(b"0123456789abcdefABCDEF"):
                out.append(int(digits, 16))
                position += 4
                continue
        out += b"/" if raw[position : position + 1] == b"-" else raw[position : position + 1]
        position += 1
    return out.decode("utf-8", "replace")


def _systemctl(*words: str) -> str:
    verb, *rest = words
    options = [word for word in rest if word.startswith("--")]
    names = [word for word in rest if not word.startswith("--")]
    output = run.run_checked(("systemctl", verb, *options, "--", *names), _LIMITS)
    try:
        return output.decode()
    except UnicodeDecodeError:
        raise KeyquorumError("systemctl printed something that is not UTF-8") from None
