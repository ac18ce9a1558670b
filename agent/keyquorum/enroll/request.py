# SPDX-License-Identifier: Apache-2.0
"""What an enrolment is asked to do, and what it is given to do it with."""

from __future__ import annotations

from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.envelope.signing import Owner
    from keyquorum.holders.contract import Answers, Papers, Tuning
    from keyquorum.model.policy import Policy
    from keyquorum.settings import Settings


class Machine(Record):
    """What every story on the administrator's side is given: settings, answers, and ways to speak.

    `now` is seconds since 1970; `tell` shows a step, `warn` a warning.
    """

    settings: Settings
    tuning: Tuning
    answers: Answers
    now: int
    tell: Callable[[str], None]
    warn: Callable[[str], None]


class Request(Machine):
    """One volume to enrol. `show` prints a recovery sheet; `papers` is what custodians get, by the holder's name."""

    device: str
    header: str
    policy: Policy
    kem: str
    direct: bool
    with_keyslot: bool
    owner: Owner
    show: Callable[[str], None]
    papers: tuple[tuple[str, Papers], ...] = ()
