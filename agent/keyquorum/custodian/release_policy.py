# SPDX-License-Identifier: Apache-2.0
"""Judging a request by its release policy (docs/custodian.md §5). Clock, counters and time zones are passed in.

Everything that goes wrong here is a denial: a policy that is not signed, not understood, not yet or no longer valid,
and a rule that cannot be evaluated. A rule that is not wanted shows as waived, so a verdict names every rule.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from keyquorum.custodian import approval, policy_format
from keyquorum.custodian.policy_format import DAY_MINUTES, DAYS, PLACES
from keyquorum.custodian.verdict import DENIED, PENDING, RELEASED, Verdict
from keyquorum.errors import TamperingError
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.signed_policy import accept

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import tzinfo

    from keyquorum.custodian.approval import Pending
    from keyquorum.custodian.policy_format import Hours, ReleasePolicy
    from keyquorum.evidence.signed_policy import SignedPolicy

    Zones = Callable[[str], tzinfo]

APPROVALS = "policy.approvals"
_SPEC = "docs/custodian.md §5"
_WHAT = "the release policy"
# What a lookup of time zones may raise; whatever it is, the rule was not evaluated, and that is a denial.
_NOT_EVALUATED = (LookupError, ValueError, OSError, OverflowError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked, and all that is known about it. `now` is in seconds since 1970.

    `custodian` and `requester` are labels by name ("regions", "countries", "operators"): the custodian's from its
    settings, the requester's from its certificate. `attestation` is the status of the attestation result. Counters
    are those of the fragment. `approvals` are envelopes for the entry `pending`.
    """

    now: int
    volume: str
    machine: str
    attestation: str
    custodian: Mapping[str, str] = field(default_factory=dict)
    requester: Mapping[str, str] = field(default_factory=dict)
    releases_in_hour: int
    releases: int
    pending: Pending | None = None  # without it no approval counts: there is nothing that it could be for
    approvals: tuple[bytes, ...] = ()


class _Rules(Checks):
    """The rules of one verdict, as they are evaluated; all are demanded by one page."""

    def __init__(self) -> None:
        super().__init__(defaultdict(lambda: _SPEC))

    def one_of(self, name: str, allowed: tuple[str, ...], actual: str) -> None:
        """Demand that something is on a list; an empty list is "any"."""
        if allowed:
            self.demand(name, expected=", ".join(allowed), actual=actual or "not known", holds=actual in allowed)
        else:
            self.waive(name, policy_format.ANY, actual)


def decide(policy: SignedPolicy, request: Request, zones: Zones) -> Verdict:
    """Return what the policy says about the request, with every rule; never raises for what a policy holds."""
    rules = _Rules()
    facts = {"policy-sha256": hashlib.sha256(policy.envelope).hexdigest(), "attestation": request.attestation or "none"}
    found = accept(policy, policy_format.POLICY_TYPE, policy_format.parse, request.now, rules, what=_WHAT)
    if found is None:
        return Verdict(act=DENIED, reason=rules.reason, checks=rules.made, facts=facts)
    rules.one_of("policy.volume", found.volumes, request.volume)
    rules.one_of("policy.machine", found.machines, request.machine)
    rules.one_of("policy.attestation", found.attestation, request.attestation)
    for place in PLACES:
        rules.one_of(f"policy.{place}.custodian", found.custodian[place], request.custodian.get(place, ""))
        rules.one_of(f"policy.{place}.requester", found.requester[place], request.requester.get(place, ""))
    _hours(found.hours, request.now, zones, rules)
    _limits(found.limits, request, rules)
    refused = rules.failed
    refused = _approvals(found, request, rules) or refused
    if not rules.failed:
        return Verdict(act=RELEASED, reason="", checks=rules.made, facts=facts)
    # People are asked only about what everything else allows.
    waits = found.approvals is not None and not refused
    return Verdict(
        act=PENDING if waits else DENIED,
        reason=rules.reason,
        checks=rules.made,
        facts=facts,
        within=found.approvals.within if found.approvals is not None and waits else 0,
    )


def _hours(hours: Hours | None, now: int, zones: Zones, rules: _Rules) -> None:
    if hours is None:
        rules.waive("policy.hours", policy_format.ANY)
        return
    days = ", ".join(DAYS[day] for day in sorted(hours.days))
    expected = f"{days} from {_clock(hours.start)} to {_clock(hours.end)} {hours.zone}"
    try:
        local = datetime.fromtimestamp(now, zones(hours.zone))
    except _NOT_EVALUATED:
        unknown = f"the time zone {hours.zone} is not known here"
        rules.demand("policy.hours", expected=expected, actual=unknown, holds=False)
        return
    minute, day = local.hour * 60 + local.minute, local.weekday()
    if hours.start < hours.end:
        inside = day in hours.days and hours.start <= minute < hours.end
    else:  # over midnight: the small hours belong to the day before
        inside = (day in hours.days and minute >= hours.start) or ((day - 1) % 7 in hours.days and minute < hours.end)
    rules.demand("policy.hours", expected=expected, actual=f"{DAYS[day]} {_clock(minute)}", holds=inside)


def _clock(minutes: int) -> str:
    if not 0 <= minutes <= DAY_MINUTES:
        raise ValueError(f"{minutes} minutes are no time of day")
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _limits(limits: tuple[int, int] | None, request: Request, rules: _Rules) -> None:
    counts = {"policy.limits.hour": request.releases_in_hour, "policy.limits.total": request.releases}
    for (name, count), most in zip(counts.items(), limits or (0, 0), strict=True):
        if limits is None:
            rules.waive(name, policy_format.ANY, f"{count} releases before this one")
        else:
            actual = f"{count} before this one"
            rules.demand(name, expected=f"fewer than {most} releases", actual=actual, holds=0 <= count < most)


def _approvals(policy: ReleasePolicy, request: Request, rules: _Rules) -> bool:
    """Count who agreed; return whether somebody refused, which ends the waiting."""
    asked = policy.approvals
    if asked is None:
        rules.waive(APPROVALS, policy_format.ANY)
        return False
    agreed: set[str] = set()
    refusals: list[str] = []
    problems: list[str] = []
    pending = request.pending
    for envelope in request.approvals:
        if pending is None:
            break
        try:
            found = approval.verify(envelope, asked.operators, pending, request.now, asked.within)
        except TamperingError as problem:
            problems.append(problem.message)
            continue
        if found.answer == approval.APPROVE:
            agreed.add(found.operator)
        else:
            refusals.append(f"{found.operator} refused")
    expected = f"{asked.needed} of {', '.join(asked.operators)} within {asked.within} s"
    actual = "; ".join([", ".join(sorted(agreed)) or "nobody", *refusals, *problems])
    rules.demand(APPROVALS, expected=expected, actual=actual, holds=len(agreed) >= asked.needed and not refusals)
    return bool(refusals)
