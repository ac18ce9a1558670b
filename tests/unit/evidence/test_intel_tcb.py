# SPDX-License-Identifier: Apache-2.0
"""Levels of a platform, their merging, and what a policy takes for a time (docs/attestation-intel.md §4, §5)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.evidence import intel_quote, intel_tcb
from keyquorum.evidence.intel_certificates import Platform
from keyquorum.evidence.intel_collateral import (
    STATUSES,
    Issue,
    IsvLevel,
    ModuleIdentity,
    TcbInfo,
    TcbLevel,
)
from keyquorum.evidence.intel_quote import TdReport
from keyquorum.evidence.intel_reference import LOOSENABLE
from keyquorum.evidence.result import Status
from unit.evidence.intel_maker import Scene, tcb_level
from unit.evidence.tpm_maker import NOW

PLATFORM = Platform(ppid=bytes(16), fmspc=bytes(6), pce_id=bytes(2), components=(5,) * 16, pcesvn=9)
ISSUE = Issue(kind="TDX", issued=0, next_update=1, evaluation=1)
_BODY = intel_quote.parse(Scene().quote()).body
assert isinstance(_BODY, TdReport)
TD = replace(_BODY, tee_tcb_svn=bytes((5,)) * 16)


def platform_level(sgx: int, pcesvn: int, tdx: int, status: str, *advisories: str) -> TcbLevel:
    return TcbLevel(sgx=(sgx,) * 16, pcesvn=pcesvn, tdx=(tdx,) * 16, status=status, advisories=advisories)


def info(*levels: TcbLevel) -> TcbInfo:
    default = ModuleIdentity(name="", mrsigner=bytes(48), attributes=bytes(8), mask=b"\xff" * 8, levels=())
    first = replace(default, name="TDX_01", levels=(part("UpToDate"),))
    return TcbInfo(issue=ISSUE, fmspc=bytes(6), pce_id=bytes(2), module=default, modules=(first,), levels=levels)


def part(status: str, *advisories: str) -> IsvLevel:
    return IsvLevel(svn=1, status=status, advisories=advisories)


def test_the_first_level_that_is_reached_counts() -> None:
    levels = (
        platform_level(6, 9, 5, "UpToDate"),
        platform_level(5, 10, 5, "SWHardeningNeeded"),
        platform_level(5, 9, 6, "ConfigurationNeeded"),
        platform_level(5, 9, 5, "OutOfDate"),
        platform_level(1, 1, 1, "Revoked"),
    )
    assert intel_tcb.match(info(*levels), PLATFORM, TD) is levels[3]
    assert intel_tcb.match(info(*levels), PLATFORM, None) is levels[2], "SGX has no components of TDX"
    assert intel_tcb.match(info(*levels[:3]), PLATFORM, TD) is None
    assert intel_tcb.match(info(*levels), replace(PLATFORM, components=(0,) * 16), TD) is None


@given(at=st.integers(0, 15))
def test_components_are_compared_one_by_one_and_not_as_a_number(at: int) -> None:
    high = [255] * 16
    high[at] = 4
    reached = info(platform_level(5, 9, 5, "UpToDate"))
    assert intel_tcb.match(reached, replace(PLATFORM, components=tuple(high)), None) is None
    generation_1 = bytearray(bytes((0, 1)) + bytes((255,)) * 14)
    assert intel_tcb.match(reached, PLATFORM, replace(TD, tee_tcb_svn=bytes(generation_1))) is not None
    if at >= 2:
        generation_1[at] = 4
        assert intel_tcb.match(reached, PLATFORM, replace(TD, tee_tcb_svn=bytes(generation_1))) is None


def test_a_module_is_judged_by_its_generation() -> None:
    known = info(platform_level(5, 9, 5, "UpToDate"))
    for version, name in ((0, ""), (1, "TDX_01"), (2, None), (0x1F, None)):
        found = intel_tcb.module_of(known, replace(TD, tee_tcb_svn=bytes((9, version)) + bytes(14)))
        assert (found.name if found else None) == name
    assert intel_tcb.module_name(replace(TD, tee_tcb_svn=bytes((9, 0x1F)) + bytes(14))) == "TDX_1F"


MERGED = {
    "UpToDate": "OutOfDate",
    "SWHardeningNeeded": "OutOfDate",
    "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
    "OutOfDate": "OutOfDate",
    "OutOfDateConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "Revoked": "Revoked",
}


@pytest.mark.parametrize("status", STATUSES)
def test_statuses_merge_to_the_worst(status: str) -> None:
    level = platform_level(5, 9, 5, status, "INTEL-SA-00002")
    good, old, revoked = part("UpToDate"), part("OutOfDate", "INTEL-SA-00001"), part("Revoked")
    assert intel_tcb.converge(level).status == status
    assert intel_tcb.converge(level, good, good).status == status
    for parts in ((good, old), (old, good), (old, old)):
        merged = intel_tcb.converge(level, *parts)
        assert merged.status == MERGED[status]
        assert merged.advisories == ("INTEL-SA-00001", "INTEL-SA-00002")
    for parts in ((revoked, good), (old, revoked), (revoked, old)):
        assert intel_tcb.converge(level, *parts).status == "Revoked"


@settings(deadline=None)
@given(svns=st.lists(st.integers(0, 20), min_size=1, max_size=6), have=st.integers(0, 20))
def test_the_highest_level_that_is_reached_counts(svns: list[int], have: int) -> None:
    found = intel_tcb.isv_level(tuple(IsvLevel(svn=svn, status="UpToDate", advisories=()) for svn in svns), have)
    reached = [svn for svn in svns if svn <= have]
    assert (found.svn if found else None) == max(reached, default=None)


def tolerant(status: str, until: int, advisories: dict[str, int] | None = None) -> dict[str, object]:
    return {"tcb": {"statuses": {status: until}, "advisories": advisories or {}, "evaluation": 0}}


@pytest.mark.parametrize("status", LOOSENABLE)
def test_a_status_that_the_policy_takes_is_shown_as_waived(status: str) -> None:
    levels = {"tcbLevels": [tcb_level(3, status, tdx=2, advisoryIDs=["INTEL-SA-00002"])]}
    taken = {"INTEL-SA-00002": NOW + 1}
    result, evaluation = Scene(info=levels, policy=tolerant(status, NOW + 1, taken)).appraise()
    assert (result.status, evaluation) == (Status.TRUSTED, 18), result.reason
    assert {"intel.tcb.status", "intel.tcb.advisories"} <= {check.name for check in result.waived}
    assert Scene(info=levels, policy=tolerant(status, NOW, taken)).failed() == ["intel.tcb.status"]
    ended = {"INTEL-SA-00002": NOW}
    assert Scene(info=levels, policy=tolerant(status, NOW + 1, ended)).failed() == ["intel.tcb.advisories"]
    other = "OutOfDate" if status != "OutOfDate" else "ConfigurationNeeded"
    assert Scene(info=levels, policy=tolerant(other, NOW + 1, taken)).failed() == ["intel.tcb.status"]


def test_the_policys_floor_counts_as_the_callers_does() -> None:
    rules = {"statuses": {}, "advisories": {}, "evaluation": 19}
    assert Scene(policy={"tcb": rules}).failed() == ["intel.tcb-info.floor", "intel.qe-identity.floor"]


def test_the_number_to_remember_is_the_lower_one_and_never_goes_back() -> None:
    mixed = Scene(info={"tcbEvaluationDataNumber": 20}, trust={"evaluation": 17})
    assert mixed.appraise()[1] == 18
    assert Scene(trust={"evaluation": 18}).appraise()[1] == 18


def test_a_module_of_generation_0_is_judged_with_the_platform() -> None:
    old = {"tee_tcb_svn": bytes((3, 0)) + bytes((2,)) * 14}
    low = tcb_level(3, tdx=2)
    low["tcb"]["tdxtcbcomponents"][1:2] = [{"svn": 0}]
    result, _ = Scene(body=old, info={"tcbLevels": [low]}).appraise()
    assert result.status is Status.TRUSTED, result.reason
    assert "intel.tcb.module-level" in {check.name for check in result.waived}
    assert Scene(body=old).failed() == ["intel.tcb.level"]
