# SPDX-License-Identifier: Apache-2.0
"""Who hears how an unlock goes: a person, a boot and its kernel log, or the journal (docs/boot.md §5, §8)."""

from __future__ import annotations

from keyquorum import speech
from keyquorum.errors import KeyquorumError
from keyquorum.holders import REMOTE
from keyquorum.linux import boot_record
from keyquorum.model import report as reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.model.report import Report, Verdict


_NOTHING_NEW = (reports.NOT_ASKED, reports.NOT_NEEDED)


class Person:
    """Somebody who reads standard error."""

    def begin(self, report: Report) -> None:
        """Hear which volume it is about."""

    def verdict(self, verdict: Verdict) -> None:
        """Hear one holder's verdict."""
        speech.verdict(verdict)

    def outcome(self, report: Report) -> None:
        """Hear how it ended."""
        line = speech.outcome_line(report)
        if report.exit_code:
            speech.fail(KeyquorumError(line, report.hint))
        else:
            speech.note(line)


class Boot(Person):
    """The console of an initramfs, and the kernel log, from which the journal takes it later."""

    def verdict(self, verdict: Verdict) -> None:
        """Hear one holder's verdict."""
        super().verdict(verdict)
        boot_record.to_kernel_log(speech.printable(speech.verdict_line(verdict).strip()))

    def outcome(self, report: Report) -> None:
        """Hear how it ended."""
        super().outcome(report)
        boot_record.to_kernel_log(speech.printable(speech.outcome_line(report)))


class Lingering:
    """Whoever hears custodians while the ordinary prompt stands: the kernel log, each thing once.

    The console hears only what a person elsewhere has to do, for the number that he needs stands nowhere else, and
    what is wrong about an answer that counts all the same, such as roots for tests.
    """

    def __init__(self) -> None:
        self._heard: set[tuple[int, str, str]] = set()

    def verdict(self, verdict: Verdict) -> None:
        """Hear one holder's verdict."""
        what = (verdict.index, verdict.verdict, verdict.reason)
        if verdict.kind not in REMOTE or verdict.verdict in _NOTHING_NEW or what in self._heard:
            return
        self._heard.add(what)
        line = speech.printable(speech.verdict_line(verdict).strip())
        boot_record.to_kernel_log(line)
        if verdict.verdict == reports.WAITING or (verdict.verdict == reports.VALID and verdict.reason):
            boot_record.to_console(line)


class Journal(Person):
    """The journal, with fields (docs/daemon.md §4). What it does not take goes to standard error."""

    def __init__(self) -> None:
        self._report: Report | None = None

    def begin(self, report: Report) -> None:
        """Remember what the verdicts are about."""
        self._report = report

    def verdict(self, verdict: Verdict) -> None:
        """Hear one holder's verdict."""
        from keyquorum.linux import journal
        from keyquorum.model import journal_entry

        line = speech.printable(speech.verdict_line(verdict).strip())
        if self._report is None or not journal.send(journal_entry.of_verdict(self._report, verdict, line)):
            super().verdict(verdict)

    def outcome(self, report: Report) -> None:
        """Hear how it ended."""
        from keyquorum.linux import journal
        from keyquorum.model import journal_entry

        line = speech.printable(speech.outcome_line(report))
        if not journal.send(journal_entry.of_outcome(report, line)):
            super().outcome(report)


def choose(*, boot: bool) -> Person:
    """Return who hears it: the journal only where it would read standard error anyway, so that nothing comes twice."""
    if boot:
        return Boot()
    try:
        from keyquorum.linux import journal
    except ImportError:  # somebody in the shell of an initramfs, which has no journal
        return Person()
    return Journal() if journal.reads_standard_error() else Person()
