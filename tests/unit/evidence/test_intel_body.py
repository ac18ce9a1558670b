# SPDX-License-Identifier: Apache-2.0
"""RTMRs that are judged by the events of a log, which counts as far as they vouch for it (docs/attestation-intel.md)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from keyquorum.evidence.result import Status
from unit.evidence.intel_maker import Scene, ccel, extended

KERNEL, LINE = b"a kernel", b"its command line"
EVENTS = [hashlib.sha384(data).hexdigest() for data in (KERNEL, LINE)]
BODY = {"rtmr1": extended(KERNEL, LINE)}
RULE = {"rtmr1": {"events": EVENTS}}
LOG = ccel((1, b"firmware"), (2, KERNEL), (2, LINE))


def test_an_rtmr_that_is_made_of_known_events_is_taken() -> None:
    for body, log in ((BODY, LOG), ({"rtmr1": extended(LINE)}, ccel((2, LINE)))):
        result, _ = Scene(body=body, log=log, reference=RULE).appraise()
        assert result.status is Status.TRUSTED, result.reason
        assert result.claims["tdx.rtmr1"] == body["rtmr1"].hex()
        assert not {"tdx.log.format", "tdx.log.replay", "tdx.rtmr1"} & {check.name for check in result.waived}


LOGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no log": ({"log": b""}, ["tdx.log.format", "tdx.rtmr1"]),
    "torn log": ({"log": LOG.rstrip(b"\xff")[:-1]}, ["tdx.log.format", "tdx.rtmr1"]),
    "another log": ({"log": ccel((2, KERNEL))}, ["tdx.log.replay", "tdx.rtmr1"]),
    "another register": ({"log": ccel((1, KERNEL), (1, LINE))}, ["tdx.log.replay", "tdx.rtmr1"]),
    "another order": ({"log": ccel((2, LINE), (2, KERNEL))}, ["tdx.log.replay", "tdx.rtmr1"]),
    "foreign event": (
        {"body": {"rtmr1": extended(KERNEL, b"init=/bin/sh")}, "log": ccel((2, KERNEL), (2, b"init=/bin/sh"))},
        ["tdx.rtmr1"],
    ),
    "nothing measured": ({"body": {"rtmr1": bytes(48)}, "log": ccel((1, b"x"))}, ["tdx.rtmr1"]),
}


@pytest.mark.parametrize("case", LOGS)
def test_a_log_that_does_not_hold_is_named(case: str) -> None:
    changes, failed = LOGS[case]
    assert Scene(**({"body": BODY, "log": LOG, "reference": RULE} | changes)).failed() == failed


def test_a_log_that_nobody_needs_is_not_read() -> None:
    result, _ = Scene(log=b"nonsense").appraise()
    assert result.status is Status.TRUSTED
    assert {"tdx.log.format", "tdx.log.replay"} <= {check.name for check in result.waived}
