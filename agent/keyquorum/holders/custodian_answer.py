# SPDX-License-Identifier: Apache-2.0
"""What a custodian's answer is worth, and what it means for the unlock (docs/custodian.md §3).

The order is fixed (I7): status, envelope, signature, payload, question. No I/O.
"""

from __future__ import annotations

from keyquorum.envelope import dsse
from keyquorum.envelope.dsse import PublicKey
from keyquorum.errors import RefusedError, TamperingError, UnavailableError, WaitingError
from keyquorum.model import release_messages as messages
from keyquorum.model.fields import Fields
from keyquorum.model.http_answer import MAX_BODY
from keyquorum.model.release_messages import Denied, Released, Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.errors import HolderError
    from keyquorum.holders.custodian_where import Where
    from keyquorum.model.fragment_name import FragmentName
    from keyquorum.model.http_answer import HttpAnswer
    from keyquorum.model.release_messages import Challenge

_WHAT = "the custodian's answer"
_STATUSES = {200: Released, 202: Waiting, 403: Denied}
_PAUSE = {429: "has had enough requests for now", 503: "is not ready"}
_WAIT = 30.0  # seconds until a custodian is asked again that does not say when it likes to be


def read_challenge(answer: HttpAnswer, where: Where, wanted: FragmentName) -> Challenge:
    """Return the challenge; raises `HolderError` or `TamperingError`."""
    if answer.status != 200:
        raise unexpected(answer, where)
    payload = believe(answer.body, messages.CHALLENGE_TYPE, where)
    return messages.parse_challenge(payload, where.custodian, wanted)


def read_release(answer: HttpAnswer, where: Where, question: bytes) -> Released:
    """Return what was released; raises `HolderError` or `TamperingError` for everything else."""
    if answer.status not in _STATUSES or _problem(answer):
        raise unexpected(answer, where)
    found = messages.parse_answer(believe(answer.body, messages.ANSWER_TYPE, where), question)
    if not isinstance(found, _STATUSES[answer.status]):
        raise TamperingError(_WHAT, "answer", f"is not what its status {answer.status} says")
    if isinstance(found, Waiting):
        raise WaitingError(
            f"{where.custodian} waits for a person's approval of request {found.number}",
            f"an operator there says: keyquorum custodian approve {found.number}",
            retry_after=float(found.retry_after),
        )
    if isinstance(found, Denied):
        raise RefusedError(
            f"{where.custodian} denies it: {found.check}: expected {found.expected}, found {found.actual}",
            f"entry {found.number} of its log has every check",
        )
    return found


def believe(body: bytes, payload_type: str, where: Where) -> bytes:
    """Return what the custodian signed; raises `TamperingError`."""
    envelope, _ = messages.parse_answer_body(body)
    return dsse.verify(dsse.parse(envelope, _WHAT), payload_type, (PublicKey(raw=where.key),))


def unexpected(answer: HttpAnswer, where: Where) -> HolderError:
    """Return the error for an answer that nobody signed and that gives nothing."""
    problem = _problem(answer)
    said = f": {problem}" if problem else ""
    if answer.status in _PAUSE:
        pause = float(answer.retry_after) or _WAIT
        words = f"{where.custodian} {_PAUSE[answer.status]}{said}; it asks for a pause of {pause:.0f} s"
        return UnavailableError(words, retry_after=pause)
    if answer.status == 403:
        return RefusedError(
            f"{where.custodian} gives this machine nothing{said or ' and does not say why'}",
            "it was not enrolled there, was revoked, or has no fragment there: the operator's log says which",
        )
    return UnavailableError(
        f"{where.custodian} answers with HTTP status {answer.status}{said}",
        "the two programs may be of unlike versions",
        retry_after=_WAIT,
    )


def _problem(answer: HttpAnswer) -> str:
    """Return the line that an unsigned refusal has, "" for any other body (docs/custodian.md §3)."""
    try:
        fields = Fields.read(answer.body, _WHAT, MAX_BODY, TamperingError)
        found = fields.text("problem", longest=256)
        fields.finish()
    except TamperingError:
        return ""
    return found
