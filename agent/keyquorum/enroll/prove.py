# SPDX-License-Identifier: Apache-2.0
"""Step 4: read every fragment back from its holder and rebuild the key, before anything relies on it (I6)."""

from __future__ import annotations

import time

from keyquorum.errors import KeyquorumError
from keyquorum.model import report
from keyquorum.unlock.gather import Context, Gathering, Limits
from keyquorum.unlock.reconstruct import rebuild_volume_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.enroll.plan import Plan
    from keyquorum.unlock.verified_set import Enrolment


def prove(plan: Plan, enrolment: Enrolment) -> None:
    """Ask every holder as an unlock would; raises `KeyquorumError` unless each one gives its fragment.

    A custodian that waits for a person's approval gives none yet; the others must then be enough.
    """
    request = plan.request
    request.tell("reading every fragment back")
    context = Context(answers=request.answers, tuning=request.tuning, now=request.now, tell=lambda _verdict: None)
    seconds = request.settings.holder_timeout * len(plan.fragments) + request.settings.prompt_timeout
    limits = Limits(
        holder=request.settings.holder_timeout,
        person=request.settings.prompt_timeout,
        deadline=time.monotonic() + seconds,
        everyone=True,
        custodian=request.settings.custodian_timeout,
    )
    gathering = Gathering(enrolment, context, limits)
    try:
        gathering.ask_unattended()
        gathering.begin_custodians()
        gathering.ask_person()
        gathering.wait_for_custodians(request.settings.custodian_timeout)
        for verdict in gathering.verdicts:
            if verdict.verdict == report.WAITING:  # what it holds, it has tried when it was deposited
                request.warn(f"{verdict.name} ({verdict.kind}) is not proved: {verdict.reason}")
            elif verdict.verdict != report.VALID:
                raise KeyquorumError(
                    f"{verdict.name} ({verdict.kind}) does not give its fragment back: {verdict.reason}", verdict.hint
                )
        with rebuild_volume_key(enrolment.volume_set, gathering.shares) as rebuilt:
            if not rebuilt.equals(plan.volume_key):
                raise KeyquorumError("the fragments do not rebuild the volume key")
    finally:
        gathering.close()
