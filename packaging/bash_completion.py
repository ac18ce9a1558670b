# SPDX-License-Identifier: Apache-2.0
"""Makes the bash completion: `python packaging/bash_completion.py` prints it.

It is packaging/completion/keyquorum.bash with the verbs, options, holder kinds and crypttab flags that docs/cli.md and
the program have.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).resolve().parent.parent
TEMPLATE = REPOSITORY / "packaging/completion/keyquorum.bash"
sys.path[0:0] = [str(REPOSITORY / "agent"), str(REPOSITORY / "packaging")]

import command_line  # noqa: E402 (needs the path above)
from keyquorum.holders import KINDS  # noqa: E402

if TYPE_CHECKING:
    from command_line import Verb

# An option's value by the word that stands for it in the help.
_KINDS_OF_VALUE = {"FILE": "file", "DIR": "directory", "KIND": "holder", "LIST": "flags"}


def script() -> str:
    """Return the completion."""
    verbs = command_line.verbs()
    parents = [words for words in verbs if any(other.startswith(f"{words} ") for other in verbs if words)]
    filled = {
        "@WORDS@": "\n".join(f"\t{words or '.'!r}) echo '{_followers(words, verbs)}' ;;" for words in verbs),
        "@VALUES@": "\n".join(f"\t{name}) echo {kind} ;;" for name, kind in sorted(_values(verbs).items())),
        "@HOLDERS@": " ".join(KINDS),
        "@FLAGS@": " ".join(_flags(verbs["unlock"])),
        "@PARENTS@": f"@({'|'.join(parents)})",
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for mark, words in filled.items():
        text = text.replace(mark, words)
    return text


def _followers(words: str, verbs: dict[str, Verb]) -> str:
    below = [other.removeprefix(f"{words} ") for other in verbs if other and other.rpartition(" ")[0] == words]
    names = [name for option in verbs[words].options for name in option.names]
    own = ["--help", *([] if words else ["--version"])]
    return " ".join([*below, *(name for name in names if name not in {"-h", "--help"}), *own])


def _values(verbs: dict[str, Verb]) -> dict[str, str]:
    return {
        name: _KINDS_OF_VALUE.get(option.value, "other")
        for verb in verbs.values()
        for option in verb.options
        for name in option.names
        if option.value
    }


def _flags(unlock: Verb) -> list[str]:
    """Return the crypttab options that the help of --options lists."""
    (text,) = (option.text for option in unlock.options if "--options" in option.names)
    return [word for word in text.partition(": ")[2].partition(";")[0].split(", ") if word]


if __name__ == "__main__":
    sys.stdout.write(script())
