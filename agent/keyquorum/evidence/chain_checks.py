# SPDX-License-Identifier: Apache-2.0
"""Checks that every technology's certificate chain needs: its instants and its revocation, as named checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import certificates
from keyquorum.evidence.instants import shown

if TYPE_CHECKING:
    from keyquorum.evidence.certificate import Certificate
    from keyquorum.evidence.certificates import Revocation
    from keyquorum.evidence.checks import Checks


def demand_validity(name: str, path: tuple[Certificate, ...], now: int, what: str, checks: Checks) -> None:
    """Note under `name` whether every certificate is valid at `now`."""
    try:
        certificates.check_validity(path, now, what)
    except TamperingError as problem:
        checks.refuse(name, problem, f"valid at {shown(now)}")
    else:
        checks.demand(name, expected="valid", actual="valid", holds=True)


def judge_revocation(
    name: str,
    path: tuple[Certificate, ...],
    revocation: Revocation,
    checks: Checks,
    *,
    now: int,
    what: str,
    unlisted: str,
) -> None:
    """Note under `name` whether a certificate is revoked; waived for the reason `unlisted` when no list was given."""
    try:
        looked_up = certificates.Lookup(revocation, now).check(path, what)
    except TamperingError as problem:
        checks.refuse(name, problem, "not revoked")
        return
    if looked_up:
        checks.demand(name, expected="not revoked", actual=f"{looked_up} looked up", holds=True)
    else:
        checks.waive(name, unlisted)
