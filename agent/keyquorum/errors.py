# SPDX-License-Identifier: Apache-2.0
"""The one error tree, with the exit codes that scripts rely on (docs/cli.md, "Exit codes").

    KeyquorumError                 1  something failed
    ├── UsageError                 2  the call, a file given to it or the device does not fit
    │   └── MalformedError         2  an object that the caller gave does not parse
    ├── QuorumNotReachedError      3  fewer valid fragments than the policy asks for
    ├── TamperingError             4  an object from disk or from a holder is not what the owner signed
    ├── TryAgainError              5  nothing is wrong, but not now
    └── HolderError                   stays inside one unlock: it becomes a holder's verdict
        ├── UnavailableError          the holder is not there: ask the next one
        │   └── WaitingError          it is there and waits for a person's approval elsewhere
        └── RefusedError              the holder is there and says no, or gave something false

Every error carries a sentence for a person and, where there is one, the next step. No message ever
holds a secret. Exceptions of libraries and of the operating system never leave the adapter that
called them: the adapter turns them into one of these.
"""

from __future__ import annotations


class KeyquorumError(Exception):
    """Something failed; nothing more specific is known.

    `message` says what failed in one sentence without a full stop; `hint` says what the person can do next.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(KeyquorumError):
    """The request does not fit: wrong arguments, or a device this cannot be done to. Nothing was changed."""

    exit_code = 2


class MalformedError(UsageError):
    """An object the caller gave (a policy, a sheet, a PIN file) does not parse.

    `what` names the object, `where` the field in it, `problem` what is wrong there.
    """

    def __init__(self, what: str, where: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{what}: {where}: {problem}" if where else f"{what}: {problem}", hint)
        self.what = what
        self.where = where
        self.problem = problem


class QuorumNotReachedError(KeyquorumError):
    """Fewer valid fragments than the policy asks for (I2); the message says what was missing."""

    exit_code = 3


class TamperingError(KeyquorumError):
    """A header, token, fragment or key is not what its owner signed (I5, I7). Nothing of it is used.

    Attributes as in `MalformedError`.
    """

    exit_code = 4

    def __init__(self, what: str, where: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{what}: {where}: {problem}" if where else f"{what}: {problem}", hint)
        self.what = what
        self.where = where
        self.problem = problem


class TryAgainError(KeyquorumError):
    """Nothing is wrong, but the operation cannot be done at this moment (lock held, TPM locked out)."""

    exit_code = 5


class HolderError(KeyquorumError):
    """Base of the two answers by which a holder does not give its fragment; the proxy makes a verdict of it."""


class UnavailableError(HolderError):
    """The holder is not there or does not answer. It may come later; ask the next one (I3).

    `retry_after` are the seconds that it asked to be left alone, 0.0 when it said nothing about that.
    """

    def __init__(self, message: str, hint: str = "", *, retry_after: float = 0.0) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


class WaitingError(UnavailableError):
    """The holder is there, has nothing against it, and waits for a person's approval; ask again after `retry_after`."""


class RefusedError(HolderError):
    """The holder is there and says no, or what it gave is not what the owner signed (I2, I8).

    `tampered` is true when the refusal is about false data and not about a condition such as a PCR or a PIN;
    `mistyped` when a person may simply try again, because no counter runs.
    """

    def __init__(self, message: str, hint: str = "", *, tampered: bool = False, mistyped: bool = False) -> None:
        super().__init__(message, hint)
        self.tampered = tampered
        self.mistyped = mistyped
