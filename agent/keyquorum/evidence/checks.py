# SPDX-License-Identifier: Apache-2.0
"""Collecting the checks of one appraisal, and concluding from them (docs/attestation.md §2).

Trust is never a default: a result is trusted only if every check that the story must reach was made and none failed.
A story that stops early is thereby untrusted, whatever it had found so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.evidence.result import AttestationResult, Check, Link, Outcome, Status, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.errors import TamperingError


class Checks:
    """The checks of one appraisal. `references` gives each check's name the place where it is demanded."""

    def __init__(self, references: Mapping[str, str]) -> None:
        self._references = references
        self._made: list[Check] = []
        self.failed = False  # whether any check failed so far
        self.claims: dict[str, str] = {}
        self.chain: tuple[Link, ...] = ()

    def demand(self, name: str, *, expected: str, actual: str, holds: bool) -> bool:
        """Note a check and return whether it passed."""
        self._note(name, expected, actual, Outcome.PASSED if holds else Outcome.FAILED)
        return holds

    def waive(self, name: str, reason: str, actual: str = "") -> None:
        """Note that a check is not demanded, and by whose wish."""
        self._note(name, reason, actual or "not looked at", Outcome.WAIVED)

    def refuse(self, name: str, problem: TamperingError, expected: str = "well-formed") -> None:
        """Note what a parser or a verification refused."""
        actual = f"{problem.where}: {problem.problem}" if problem.where else problem.problem
        self._note(name, expected, actual, Outcome.FAILED)

    def claim(self, name: str, value: str) -> None:
        """Note a verified statement about the machine."""
        self.claims[name] = printable(value)

    def _note(self, name: str, expected: str, actual: str, outcome: Outcome) -> None:
        self._made.append(Check(name, self._references[name], printable(expected), printable(actual), outcome))
        if outcome is Outcome.FAILED:
            self.failed = True

    @property
    def made(self) -> tuple[Check, ...]:
        """The checks so far, in their order."""
        return tuple(self._made)

    @property
    def reason(self) -> str:
        """What the first failed check says, "" if none failed."""
        first = next((check for check in self._made if check.outcome is Outcome.FAILED), None)
        return printable(f"{first.name}: expected {first.expected}, found {first.actual}") if first else ""

    def conclude(self, technology: str, at: int, required: frozenset[str]) -> AttestationResult:
        """Return the result; `required` are the checks without which there is no trust.

        What was claimed before something failed is left out: nobody vouches for it.
        """
        checks = self.made
        missing = sorted(required - {check.name for check in checks})
        if not self.failed and not missing:
            return AttestationResult(
                technology=technology,
                status=Status.TRUSTED,
                at=at,
                checks=checks,
                chain=self.chain,
                claims=dict(self.claims),
                last_trusted=at,
            )
        return AttestationResult(
            technology=technology,
            status=Status.UNTRUSTED,
            at=at,
            checks=checks,
            chain=self.chain,
            reason=self.reason or f"{missing[0]}: was not reached",
        )
