# SPDX-License-Identifier: Apache-2.0
"""What the package says, made from our own texts: release, Debian's changelog, README, default settings file."""

from __future__ import annotations

import re
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[0:0] = [str(REPOSITORY / "agent")]

from keyquorum import __version__  # noqa: E402 (needs the path above)
from keyquorum.settings import TABLE  # noqa: E402

_RELEASE = re.compile(r"(?ms)^## \[(?P<version>[0-9.]+)\] - (?P<date>[0-9-]+)$(?P<text>.*?)(?=^## \[|\Z)")
_WIDTH = 78
# Where the package has what README.md links to.
_MOVED = {"packaging/examples": "examples", "CHANGELOG.md": "changelog.gz", "LICENSE": "copyright"}


def releases() -> list[tuple[str, int, list[str]]]:
    """Return version, time (seconds since 1970, midnight UTC) and entries of each release in CHANGELOG.md."""
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    return [
        (
            found["version"],
            int(datetime.fromisoformat(found["date"]).replace(tzinfo=UTC).timestamp()),
            re.findall(r"(?m)^- (.*)$", found["text"]),
        )
        for found in _RELEASE.finditer(text)
    ]


def newest_release() -> tuple[str, int]:
    """Return version and time of the newest release, which must be this version's."""
    version, time, _ = releases()[0]
    if version != __version__:
        raise SystemExit(f"this is {__version__}, but CHANGELOG.md starts with {version}")
    return version, time


def changelog(package: str, maintainer: str) -> str:
    """Return Debian's changelog, made from ours."""
    blocks = []
    for version, time, entries in releases():
        wrapped = [
            textwrap.fill(entry.replace("`", ""), _WIDTH, initial_indent="  * ", subsequent_indent="    ")
            for entry in entries
        ]
        stamp = datetime.fromtimestamp(time, UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")
        head = f"{package} ({version}) unstable; urgency=medium"
        blocks.append("\n\n".join([head, "\n".join(wrapped), f" -- {maintainer}  {stamp}"]))
    return "\n\n".join(blocks) + "\n"


def readme() -> str:
    """Return README.md with its links leading to where the package has things."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\(([^)]+)\)", lambda found: f"]({_MOVED.get(found[1], found[1])})", text)


def settings_file() -> str:
    """Return keyquorum.conf with every setting at its default, commented out."""
    lines = ["# Settings of keyquorum, see keyquorum.conf(5). What is commented out is the default."]
    for row in TABLE:
        lines += ["", *textwrap.wrap(row.help, _WIDTH, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"#{row.name} = {row.default}".rstrip())
    return "\n".join(lines) + "\n"
