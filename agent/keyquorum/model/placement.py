# SPDX-License-Identifier: Apache-2.0
"""Placement rules: where fragments may be in relation to each other (docs/policy.md §4).

Checked by `policy check`, at enrolment and at rotation. A holder without the label that a rule names breaks the rule:
what is not known cannot be kept apart.
"""

from __future__ import annotations

from keyquorum.errors import MalformedError
from keyquorum.model import quorum
from keyquorum.model.holder_options import CustodianOptions
from keyquorum.model.policy import MAX_TRUST
from keyquorum.model.tree import satisfied
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyquorum.model.policy import HolderSpec, Policy


class Violation(Record):
    """A broken rule. `names` are the offending fragments; `label` and `value` are "" where the rule has none."""

    rule: str
    label: str
    value: str
    names: tuple[str, ...]
    problem: str

    def sentence(self) -> str:
        """Return the words for a person."""
        return f"rule {self.rule}{' ' + self.label if self.label else ''}: {self.problem}"


def violations(policy: Policy) -> tuple[Violation, ...]:
    """Return every broken rule; none means that the policy keeps its own rules."""
    found: list[Violation] = []
    for label in policy.rules.distinct:
        found += _distinct(policy, label)
    for label in policy.rules.no_quorum_within:
        found += _no_quorum_within(policy, label)
    if policy.rules.survives:
        found += _survives(policy)
    if policy.rules.minimum_trust:
        found += _minimum_trust(policy)
    return tuple(found)


def refuse(policy: Policy, what: str) -> None:
    """Raise `MalformedError` naming the broken rules, if there are any."""
    broken = violations(policy)
    if broken:
        raise MalformedError(what, "rules", "; ".join(violation.sentence() for violation in broken))


def _distinct(policy: Policy, label: str) -> Iterator[Violation]:
    yield from _unlabelled(policy, "distinct", label)
    for value, specs in by_value(policy, label):
        if len(specs) > 1:
            names = tuple(spec.name for spec in specs)
            both = "both" if len(names) == 2 else "all"
            yield Violation(
                rule="distinct", label=label, value=value, names=names, problem=f"{_and(names)} {both} have {value}"
            )


def _no_quorum_within(policy: Policy, label: str) -> Iterator[Violation]:
    yield from _unlabelled(policy, "no_quorum_within", label)
    for value, specs in by_value(policy, label):
        if satisfied(policy.tree, {spec.index for spec in specs}):
            names = tuple(spec.name for spec in specs)
            problem = f"{value} reaches the quorum by itself, with {_and(names)}"
            yield Violation(rule="no_quorum_within", label=label, value=value, names=names, problem=problem)


def _survives(policy: Policy) -> Iterator[Violation]:
    fatal = sorted(quorum.smallest(quorum.dual(policy.place_tree())))
    if len(fatal) <= policy.rules.survives:
        names = tuple(policy.names_at(place) for place in fatal)
        problem = f"the quorum is lost without {_and(names)}"
        yield Violation(rule=f"survives {policy.rules.survives}", label="", value="", names=names, problem=problem)


def _minimum_trust(policy: Policy) -> Iterator[Violation]:
    """Only custodians are judged: the other holders are in the owner's own hands."""
    least = policy.rules.minimum_trust
    rule = f"minimum_trust {least}"
    levels = tuple(str(level) for level in range(MAX_TRUST + 1))
    for value, specs in by_value(policy.with_(holders=tuple(s for s in policy.holders if _elsewhere(s))), "trust"):
        if value not in levels:
            problem = f"{value} is no level from 0 to {MAX_TRUST}"
        elif int(value) < least:
            problem = f"has trust {value}" if len(specs) == 1 else f"have trust {value}"
        else:
            continue
        names = tuple(spec.name for spec in specs)
        yield Violation(rule=rule, label="", value=value, names=names, problem=f"{_and(names)}: {problem}")
    bare = tuple(spec.name for spec in policy.holders if _elsewhere(spec) and not spec.label("trust"))
    if bare:
        have = "has" if len(bare) == 1 else "have"
        yield Violation(rule=rule, label="", value="", names=bare, problem=f"{_and(bare)} {have} no label trust")


def _elsewhere(spec: HolderSpec) -> bool:
    return isinstance(spec.options, CustodianOptions)


def _unlabelled(policy: Policy, rule: str, label: str) -> Iterator[Violation]:
    if label == "device":
        return
    names = tuple(dict.fromkeys(spec.holder for spec in policy.holders if not spec.label(label)))
    if names:
        have = "has" if len(names) == 1 else "have"
        yield Violation(rule=rule, label=label, value="", names=names, problem=f"{_and(names)} {have} no label {label}")


def by_value(policy: Policy, label: str) -> list[tuple[str, list[HolderSpec]]]:
    """Group fragments by their value of a label, without regard to case; those without the label are left out."""
    groups: dict[str, list[HolderSpec]] = {}
    for spec in policy.holders:
        if spec.label(label):
            groups.setdefault(spec.label(label).strip().casefold(), []).append(spec)
    return [(specs[0].label(label), specs) for specs in groups.values()]


def _and(names: tuple[str, ...]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
