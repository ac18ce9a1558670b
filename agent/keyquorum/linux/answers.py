# SPDX-License-Identifier: Apache-2.0
"""Where PINs, passphrases and sheets come from: a descriptor, a credential, or a person (docs/holders-people.md §4).

They are read straight into locked memory and are at most 4 KiB; one newline at the end does not belong to them.
"""

from __future__ import annotations

import _thread
import os
import select
import stat
import time

from keyquorum.deadline import ready
from keyquorum.errors import UnavailableError, UsageError
from keyquorum.linux.run import MAX_SECRET
from keyquorum.secret import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.linux.prompt import Prompt

_PREFIX = "keyquorum."
_OF_SYSTEMD = {"pkcs11": "cryptsetup.pkcs11-pin", "tpm": "cryptsetup.tpm2-pin"}  # systemd.system-credentials(7)
_TRIES = 3
_LF, _CR = 0x0A, 0x0D


class LocalAnswers:
    """Implements `holders.contract.Answers` for several threads; a person is asked one thing at a time.

    `credentials` is systemd's credentials directory ("" for none), `descriptors` gives an open descriptor by holder
    name, `kinds` the kind of each holder, `prompt` is one of `linux.prompt`. A person has `seconds` for each answer.
    With `keep`, an answer is given again when the same holder asks again: enrolment proves at once what it sealed.
    Raises `UsageError` for a descriptor that is not open.
    """

    def __init__(
        self,
        *,
        credentials: str = "",
        descriptors: Mapping[str, int] | None = None,
        kinds: Mapping[str, str] | None = None,
        prompt: Prompt | None = None,
        seconds: float = 90.0,
        keep: bool = False,
    ) -> None:
        self._pipe: tuple[int, ...] = ()
        self._credentials, self._prompt, self._seconds, self._keep = credentials, prompt, seconds, keep
        self._descriptors, self._kinds = dict(descriptors or {}), dict(kinds or {})
        for name, descriptor in self._descriptors.items():
            _check_open(name, descriptor)  # before a descriptor of our own takes the number
        self._kept: dict[str, Secret] = {}
        self._asking, self._table = _thread.allocate_lock(), _thread.allocate_lock()
        self._cancelled, self._cancel = self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def introduce(self, kinds: Mapping[str, str]) -> None:
        """Learn the kind of each holder; with it, systemd's own credentials count too."""
        self._kinds.update(kinds)

    def ready(self, name: str) -> bool:
        """Say whether the answer for holder `name` is there without asking a person."""
        return name in self._descriptors or name in self._kept or bool(self._credential(name))

    def ask(self, name: str, question: str) -> Secret:
        """Return the answer; raises `UnavailableError` when nobody can be asked or nothing was typed."""
        return self._given(name) or self._remember(name, self._typed(name, question))

    def ask_new(self, name: str, question: str) -> Secret:
        """Return a new secret; a person types it twice."""
        given = self._given(name)
        if given is not None:
            return given
        for attempt in range(_TRIES):
            first = self._typed(name, question if not attempt else f"the two differ; {question}")
            again = self._typed(name, f"{question}, again")
            same = first.equals(again)
            again.wipe()
            if same:
                return self._remember(name, first)
            first.wipe()
        raise UnavailableError(f"what was typed for {name} differed {_TRIES} times")

    def offer(self, name: str, answer: Secret) -> None:
        """Keep a copy of an answer that is known already."""
        self.forget(name)
        with self._table:
            self._kept[name] = answer.part(0, answer.size)

    def forget(self, name: str) -> None:
        """Drop what is kept for a holder, so that it is asked again."""
        with self._table:
            kept = self._kept.pop(name, None)
        if kept is not None:
            kept.wipe()

    def cancel(self) -> None:
        """End the question that stands, for instance because the quorum is reached; the terminal is restored."""
        if not self._asking.acquire(blocking=False):
            os.write(self._cancel, b"x")
            if not self._asking.acquire(timeout=2.0):
                return  # a starved thread still finds the order
            self._forget_orders()
        self._asking.release()

    def _forget_orders(self) -> None:
        """Later questions are not meant; called by whoever holds `_asking`."""
        try:
            while self._pipe and os.read(self._cancelled, 64):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Wipe what is kept. Call `cancel` before when another thread may still be asking."""
        for name in tuple(self._kept):
            self.forget(name)
        if self._asking.acquire(blocking=False):  # else a thread still looks at the pipe, and its end closes it
            self._close_pipe()
            self._asking.release()

    def __del__(self) -> None:
        """Programs end without `close`; whoever makes many of these in one process loses no descriptors either."""
        self._close_pipe()

    def _close_pipe(self) -> None:
        for descriptor in self._pipe:
            os.close(descriptor)
        self._pipe = ()

    def _given(self, name: str) -> Secret | None:
        """Return a copy of the answer that nobody needs to be asked for; None when there is none."""
        with self._table:
            if name in self._kept:
                return self._kept[name].part(0, self._kept[name].size)
            descriptor = self._descriptors.pop(name, -1)
        if descriptor >= 0:  # a pipe gives its content once, the holder may ask twice
            answer = self._read(descriptor, f"descriptor {descriptor} for {name}")
            with self._table:
                self._kept[name] = answer
                return answer.part(0, answer.size)
        path = self._credential(name)
        return self._from_credential(path) if path else None

    def _credential(self, name: str) -> str:
        """Return the path of the holder's credential, "" when it has none."""
        if not self._credentials or "/" in name:
            return ""
        names = (_PREFIX + name, _OF_SYSTEMD.get(self._kinds.get(name, ""), ""))
        paths = [f"{self._credentials}/{found}" for found in names if found]
        return next((path for path in paths if os.path.exists(path)), "")

    def _from_credential(self, path: str) -> Secret:
        what = f"credential {os.path.basename(path)}"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as problem:
            raise UnavailableError(f"{what} cannot be read: {problem.strerror}") from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnavailableError(f"{what} is not a file")
            return self._read(descriptor, what)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, what: str) -> Secret:
        """Read to the end, bounded in bytes and time."""
        deadline, used = time.monotonic() + self._seconds, 0
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._cancelled, select.POLLIN)
        with Secret(MAX_SECRET + 3) as answer:  # room for a newline, and for one byte too many
            while used < answer.size:
                found = ready(poll, deadline)
                if not found or self._cancelled in found:
                    raise UnavailableError(f"{what} gave no answer in time")
                try:
                    got = os.readv(descriptor, [answer.view[used:]])
                except OSError as problem:
                    raise UnavailableError(f"{what} cannot be read: {problem.strerror}") from None
                if not got:
                    break
                used += got
            return _trimmed(answer, used, what)

    def _typed(self, name: str, question: str) -> Secret:
        if self._prompt is None:
            raise UnavailableError(
                f"nobody can be asked for {name}",
                f"give it as the credential {_PREFIX}{name} or with --pin-fd {name}=FD",
            )
        deadline = time.monotonic() + self._seconds
        if not self._asking.acquire(timeout=self._seconds):
            raise UnavailableError("another question is still open")
        try:
            answer = self._prompt(question, deadline - time.monotonic(), self._cancelled)
        finally:
            self._forget_orders()
            self._asking.release()
        if answer is None:
            raise UnavailableError("nothing was typed")
        with answer:
            return _trimmed(answer, answer.size, f"the answer for {name}")

    def _remember(self, name: str, answer: Secret) -> Secret:
        if self._keep:
            self.offer(name, answer)
        return answer


def _check_open(name: str, descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        raise UsageError(f"descriptor {descriptor} for {name} is not open") from None


def _trimmed(answer: Secret, used: int, what: str) -> Secret:
    """Return the first `used` bytes without the newline that ends them."""
    if used and answer.view[used - 1] == _LF:
        used -= 2 if used > 1 and answer.view[used - 2] == _CR else 1
    if not used:
        raise UnavailableError(f"{what} is empty")
    if used > MAX_SECRET:
        raise UnavailableError(f"{what} is longer than {MAX_SECRET} bytes")
    return answer.part(0, used)
