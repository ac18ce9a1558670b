# SPDX-License-Identifier: Apache-2.0
"""Explain a policy in words, and check it against its own rules.

Says which holders open a volume, which losses it survives and what to watch out for. Nothing is enrolled and no
holder is asked. What may be in the file: man keyquorum-policy.

for example:
  keyquorum policy check policy.toml
  keyquorum policy check policy.toml --json
"""

from __future__ import annotations

import re
import tomllib

from keyquorum import speech
from keyquorum.cli import shell
from keyquorum.errors import MalformedError, UsageError
from keyquorum.model import explain, placement, policy, strict_json, tree
from keyquorum.model.policy_warnings import cautions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from keyquorum.model.explain import Meaning
    from keyquorum.model.policy import HolderSpec, Policy
    from keyquorum.model.quorum import Ways

SUMMARY = "check and explain a policy file"
_POSITION = re.compile(r" \(at (line \d+), column \d+\)$")
_LARGEST_JSON = 1 << 53  # beyond it the JSON readers of other languages round


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = verbs.add_parser("check", help="explain a policy and check its rules")
    check.add_argument("file", metavar="FILE", help="the policy, a TOML file")
    check.add_argument("--json", action="store_true", help="print the explanation as one JSON object")


def run(arguments: Namespace) -> int:
    """Check a policy; return 0, or 2 when it breaks its own rules. Raises `UsageError` when it does not parse."""
    found = load_policy(arguments.file)
    meaning = explain.analyse(found)
    if arguments.json:
        outcome = to_json(meaning, arguments.file)
        speech.say(strict_json.serialise(outcome).decode())
        return int(outcome["exit_code"])
    for line in explain.sentences(meaning):
        speech.say(line)
    for caution in cautions(meaning):
        speech.warn(caution.message)
    placement.refuse(found, arguments.file)
    return 0


def load_policy(path: str) -> Policy:
    """Read a policy file of at most 64 KiB; raises `UsageError` and `MalformedError` naming the file and the place."""
    data = shell.read_file(path, policy.MAX_FILE)
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise MalformedError(path, f"byte {error.start}", "is not UTF-8 text") from None
    except RecursionError:
        raise MalformedError(path, "", "is nested too deep") from None
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        position = _POSITION.search(message)
        problem = _POSITION.sub("", message)  # tomllib quotes what it shows of the file
        raise MalformedError(path, position[1] if position else "", f"not TOML: {problem}") from None
    except ValueError:  # what int() says to thousands of digits
        raise MalformedError(path, "", "not TOML: a number is too large") from None
    return policy.parse(table, path)


def to_json(meaning: Meaning, path: str) -> dict[str, Any]:
    """Return everything that `policy check` says as data (docs/policy.md §8)."""
    found = meaning.policy
    broken = placement.violations(found)
    return {
        "version": 1,
        "command": "policy check",
        "policy": path,
        "exit_code": UsageError.exit_code if broken else 0,
        "sentences": list(explain.sentences(meaning)),
        "tree": tree.to_json(found.tree),
        "fragments": [_fragment(spec) for spec in found.holders],
        "groups": {name: list(at) for at, name in found.groups},
        "quorums": _ways(meaning, meaning.quorums) | {"fewest": meaning.fewest},
        "losses": _ways(meaning, meaning.losses) | {"fewest": len(meaning.fatal)},
        "survives": meaning.survives,
        "indispensable": [found.names_at(place) for place in meaning.indispensable],
        "unattended": _ways(meaning, meaning.unattended) if meaning.unattended else None,
        "people": {"holders": list(meaning.people), "needed": meaning.people_needed},
        "rules": {
            "distinct": list(found.rules.distinct),
            "no_quorum_within": list(found.rules.no_quorum_within),
            "survives": found.rules.survives,
        },
        "violations": [
            {
                "rule": violation.rule,
                "label": violation.label,
                "value": violation.value,
                "names": list(violation.names),
                "message": violation.sentence(),
            }
            for violation in broken
        ],
        "warnings": [{"code": caution.code, "message": caution.message} for caution in cautions(meaning)],
        "settings": {
            "kem": found.kem or None,
            "valid_days": found.valid_days,
            "measure_pcr": found.measure_pcr,
            "allow_single_holder": found.allow_single_holder,
        },
        "size": {"set": meaning.size.volume_set, "token": meaning.size.token},
    }


def _fragment(spec: HolderSpec) -> dict[str, Any]:
    return {
        "index": spec.index,
        "name": spec.name,
        "holder": spec.holder,
        "kind": spec.kind,
        "description": explain.describe(spec),
        "place": spec.place,
        "asks_person": explain.asks_person(spec),
        "labels": dict(spec.labels),
    }


def _ways(meaning: Meaning, ways: Ways) -> dict[str, Any]:
    """Return sets by holders' names; `count` is null when there are too many to count or to write as a number."""
    shown = [[meaning.policy.names_at(place) for place in way] for way in ways.shown]
    return {"count": ways.total if 0 <= ways.total <= _LARGEST_JSON else None, "shown": shown}
