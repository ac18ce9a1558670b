# SPDX-License-Identifier: Apache-2.0
"""Step 3: ask the holders, side by side, and stop as soon as the quorum is there (I2, I3; docs/boot.md §5).

Every holder answers in a thread of its own, which also checks the fragment. A thread that hangs is left behind.
"""

from __future__ import annotations

import time

from keyquorum import process
from keyquorum.errors import KeyquorumError, RefusedError, TamperingError, UnavailableError, WaitingError
from keyquorum.holders import REMOTE, load
from keyquorum.holders.contract import open_task
from keyquorum.mailbox import Mailbox
from keyquorum.model import report, tree
from keyquorum.model.report import Verdict
from keyquorum.record import Record
from keyquorum.unlock.check_fragment import check_fragment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.holders.contract import Answers, Tuning
    from keyquorum.model.volume_set import Placement
    from keyquorum.secret import Share
    from keyquorum.unlock.remote import Remote
    from keyquorum.unlock.verified_set import Enrolment


_MAY_COME = (report.UNAVAILABLE, report.SILENT, report.WAITING)
_TRIES = 3  # for what a person mistyped; PINs have counters of their own and get one


class Limits(Record):
    """Seconds one holder and one person may take, the end of the whole (monotonic clock), and which kinds are asked."""

    holder: float
    person: float
    deadline: float
    kinds: tuple[str, ...] = ()
    everyone: bool = False  # ask all holders even when fewer would do (check, proof of an enrolment)
    custodian: float = 0.0  # seconds one custodian may take


class Context(Record):
    """What the holders are given, and the present time in seconds since 1970."""

    answers: Answers
    tuning: Tuning
    now: int
    tell: Callable[[Verdict], None]


class _Answer(Record):
    verdict: Verdict
    share: Share | None
    retry_after: float = 0.0


def _forget(answer: _Answer | None) -> None:
    """Wipe the share of an answer that comes when nobody waits for it any more; None is a custodian's knock."""
    if answer is not None and answer.share is not None:
        answer.share.wipe()


class Gathering:
    """The fragments of one set, as they come in. `close` it: that wipes them."""

    def __init__(self, enrolment: Enrolment, context: Context, limits: Limits) -> None:
        self.enrolment, self._context, self._limits = enrolment, context, limits
        self.shares: dict[int, Share] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._mistyped = False
        self._answering: set[int] = set()  # holders who still owe an answer, to this question or to an earlier one
        self._remote = self._make_remote()
        context.answers.introduce({p.name: p.kind for p in enrolment.volume_set.placements})

    @property
    def missing(self) -> int:
        """How many more valid fragments the quorum needs."""
        return tree.missing(self.enrolment.volume_set.policy, self.shares.keys())

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every holder's verdict so far, in the order of the set; those never asked are among them."""
        return tuple(self._verdicts.get(p.index) or self._unasked(p) for p in self.enrolment.volume_set.placements)

    def ask_unattended(self) -> None:
        """Ask all holders at once that need no person, and whatever answer is already here (a PIN as credential)."""
        self._ask([p for p in self._open_questions() if p.kind not in REMOTE and not self._needs_person(p)])

    def begin_custodians(self) -> None:
        """Begin to ask custodians, if more is needed and any of them may be asked now. Does not wait."""
        if self._remote is None or self._done():
            return
        asked = self._remote.running  # also one whose answer is here and was not taken yet: it owes none any more
        for placement in self._open_questions():
            if placement.kind in REMOTE and placement.index not in asked and self._remote.may_ask(placement):
                self._answering.add(placement.index)
                try:
                    self._remote.begin(placement, self._limits.custodian)
                except UnavailableError as error:
                    self._accept(self._not_begun(placement, error))

    def wait_for_custodians(self, seconds: float) -> bool:
        """Wait up to `seconds` for what was begun, until the quorum is there; say whether any still runs."""
        if self._remote is None:
            return False
        end = time.monotonic() + seconds
        while self._remote.running and not self._done():
            for answer in self._remote.take(max(0.0, end - time.monotonic())):
                self._accept(answer)
            self._note_overdue(self._remote.overdue())
            if time.monotonic() >= end:
                break
        return bool(self._remote.running) and not self._done()

    def ask_person(self) -> None:
        """Ask for PINs, passphrases and sheets, one after the other, while they can still reach the quorum."""
        asked: set[int] = set()
        while self._limits.everyone or self.person_could_help(frozenset(asked)):
            questions = [p for p in self._open_questions() if p.index not in asked and self._needs_person(p)]
            if not questions:
                return
            asked.add(questions[0].index)
            self._ask_until_typed_right(questions[0])

    def _ask_until_typed_right(self, placement: Placement) -> None:
        for _ in range(_TRIES):
            self._mistyped = False
            self._ask([placement])
            if not self._mistyped:
                return

    def person_could_help(self, asked: frozenset[int] = frozenset()) -> bool:
        """Say whether the quorum would be reached if every question not `asked` yet were answered right."""
        hoped = {p.index for p in self._open_questions() if p.index not in asked and self._needs_person(p)}
        if hoped and self._remote is not None:
            hoped |= self._remote.running
        return not self._done() and tree.satisfied(self.enrolment.volume_set.policy, self.shares.keys() | hoped)

    def close(self) -> None:
        """Wipe every share and withdraw a question that still stands. Shares that come later are wiped as they come."""
        self._context.answers.cancel()
        if self._remote is not None:
            for placement in self._remote.close():
                verdict = report.NOT_ASKED if self.missing else report.NOT_NEEDED
                self._note(self._verdict(placement, verdict, "was called off" if self.missing else ""))
            self._remote = None
        for share in self.shares.values():
            share.wipe()

    def _done(self) -> bool:
        return not self._limits.everyone and self.missing == 0

    def _open_questions(self) -> list[Placement]:
        """Return the holders worth asking now: useful, wanted by the caller, and not yet valid or refused.

        A silent one is asked again only when its late answer has come: no pile of threads waits for a dead device.
        """
        volume_set, kinds = self.enrolment.volume_set, self._limits.kinds
        useful = tree.useful(volume_set.policy, self.shares.keys())
        return [
            p
            for p in volume_set.placements
            if (p.index in useful or self._limits.everyone)
            and (not kinds or p.kind in kinds)
            and p.index not in self._answering
            and (p.index not in self._verdicts or self._verdicts[p.index].verdict in _MAY_COME)
        ]

    def _needs_person(self, placement: Placement) -> bool:
        """Say whether somebody must be asked; a holder that cannot even tell is asked like a device, and says why."""
        try:
            return load(placement.kind).needs_person(placement.where) and not self._context.answers.ready(
                placement.name
            )
        except KeyquorumError:
            return False

    def _ask(self, placements: list[Placement]) -> None:
        box, waiting = Mailbox(), {p.index: p for p in placements}
        started = time.monotonic()
        person = len(placements) == 1 and self._needs_person(placements[0])
        end = started + self._limits.person if person else min(self._limits.deadline, started + self._limits.holder)
        for placement in placements:
            self._answering.add(placement.index)
            try:
                box.run(lambda placement=placement: self._attempt(placement, end))  # type: ignore[misc]  # lambda default
            except UnavailableError as error:
                box.put(self._not_begun(placement, error))
        if self._remote is not None:
            self._remote.listen(box)
            box.put(None)  # whoever answered before we listened knocked at no door
        try:
            while waiting and not self._done():
                left = end - time.monotonic()
                for answer in box.take(max(0.0, left)):
                    if answer is None:  # a custodian may have answered meanwhile
                        self.wait_for_custodians(0.0)
                    else:
                        del waiting[answer.verdict.index]
                        self._accept(answer)
                if left <= 0:  # only now: what is here counts, however late we are awake
                    break
        finally:
            if self._remote is not None:
                self._remote.listen(None)
            box.close(_forget)
        for placement in waiting.values():
            if self._done():
                self._note(self._verdict(placement, report.NOT_NEEDED))
            else:
                waited = time.monotonic() - started
                self._note(self._verdict(placement, report.SILENT, f"no answer in {waited:.1f} s", seconds=waited))

    def _make_remote(self) -> Remote | None:
        if not any(p.kind in REMOTE for p in self.enrolment.volume_set.placements):
            return None
        try:
            from keyquorum.unlock.remote import Remote
        except ImportError:  # a boot image of before: the holder's own absence is then its verdict
            return None
        return Remote(self.enrolment.volume_set.set_id, self._attempt, _forget)

    def _note_overdue(self, placements: list[Placement]) -> None:
        waited = self._limits.custodian
        for placement in placements:
            self._note(self._verdict(placement, report.SILENT, f"no answer in {waited:.1f} s", seconds=waited))

    def _accept(self, answer: _Answer) -> None:
        if answer.share is not None:
            self.shares[answer.verdict.index] = answer.share
        self._note(answer.verdict, again=self._mistyped)

    def _note(self, verdict: Verdict, *, again: bool = False) -> None:
        """Keep a verdict and tell it; the same one once more only `again`, to somebody who just typed something."""
        before = self._verdicts.get(verdict.index)
        self._verdicts[verdict.index] = verdict
        if again or before is None or (before.verdict, before.reason) != (verdict.verdict, verdict.reason):
            self._context.tell(verdict)

    def _attempt(self, placement: Placement, deadline: float, cancel: int = -1) -> _Answer:
        """Ask one holder and check what it gives. Runs in a thread; every error becomes the holder's verdict."""
        started, share, retry_after = time.monotonic(), None, 0.0
        try:
            share, warning = self._checked_share(placement, deadline, cancel)
            reason = "; ".join(words for words in (warning, self._clock_warning()) if words)
            verdict, hint = report.VALID, ""
        except UnavailableError as error:
            verdict = report.WAITING if isinstance(error, WaitingError) else report.UNAVAILABLE
            reason, hint, retry_after = error.message, error.hint, error.retry_after
        except RefusedError as error:
            verdict = report.TAMPERED if error.tampered else report.REFUSED
            reason, hint = error.message, error.hint
            self._mistyped = self._mistyped or error.mistyped
        except TamperingError as error:
            verdict, reason, hint = report.TAMPERED, error.message, error.hint
        except KeyquorumError as error:
            verdict, reason, hint = report.UNAVAILABLE, error.message, error.hint
        except Exception as error:  # noqa: BLE001 (the edge of a thread: a fault must not look like silence)
            verdict, reason, hint = report.UNAVAILABLE, process.fault(error), ""
        taken = time.monotonic() - started
        self._answering.discard(placement.index)
        found = self._verdict(placement, verdict, reason, hint, taken)
        return _Answer(verdict=found, share=share, retry_after=retry_after)

    def _not_begun(self, placement: Placement, error: UnavailableError) -> _Answer:
        """Return the verdict on a holder that there was no thread or descriptor for: the others may still do (I2)."""
        self._answering.discard(placement.index)
        return _Answer(verdict=self._verdict(placement, report.UNAVAILABLE, error.message, error.hint), share=None)

    def _checked_share(self, placement: Placement, deadline: float, cancel: int) -> tuple[Share, str]:
        volume_set = self.enrolment.volume_set
        task = open_task(volume_set, placement, self._context.answers, self._context.tuning, deadline)
        held = load(placement.kind).open(task.with_(cancel=cancel))
        with held.identity:
            return check_fragment(self.enrolment, placement, held, self._context.now), held.warning

    def _clock_warning(self) -> str:
        early = self._context.now < self.enrolment.volume_set.issued
        return "the clock is before the enrolment, so expiry was not judged" if early else ""

    def _unasked(self, placement: Placement) -> Verdict:
        kinds = self._limits.kinds
        if kinds and placement.kind not in kinds:
            return self._verdict(placement, report.NOT_ASKED, "left out by --holder")
        if self.missing == 0:
            return self._verdict(placement, report.NOT_NEEDED)
        if self._needs_person(placement):
            return self._verdict(placement, report.NOT_ASKED, "needs a person")
        if placement.kind in REMOTE:
            return self._verdict(placement, report.NOT_ASKED, "is asked while the prompt stands")
        return self._verdict(placement, report.NOT_ASKED, "could not reach the quorum any more")

    @staticmethod
    def _verdict(placement: Placement, verdict: str, reason: str = "", hint: str = "", seconds: float = 0.0) -> Verdict:
        return Verdict(
            index=placement.index,
            name=placement.name,
            kind=placement.kind,
            verdict=verdict,
            reason=reason,
            hint=hint,
            seconds=seconds,
        )
