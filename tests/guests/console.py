# SPDX-License-Identifier: Apache-2.0
"""The serial console: everything the machine printed, a cursor to wait along it, and a keyboard."""

import re
import socket
import threading
import time
from collections.abc import Callable

from guests.errors import MachineEndedError, NotInTimeError

TAIL_LINES = 60
LAST_WORDS = 3  # lines
SECONDS_TO_TYPE = 30
_PANIC = "---[ end Kernel panic"  # nothing comes after it

# ECMA-48 control sequences, operating-system commands, character-set choices and single escapes.
_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()*+#%][0-~]|[0-Z\\^-~])")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[()*+#%]?)\Z")
_DROPPED = re.compile(r"[\r\x00-\x08\x0b-\x1f\x7f]")


class Normaliser:
    """Makes plain text of terminal output as it comes: no escapes, no carriage returns, UTF-8 or replaced."""

    def __init__(self) -> None:
        self._bytes = b""
        self._text = ""

    def feed(self, chunk: bytes) -> str:
        """The plain text of this chunk; what may be the start of something longer waits for the next."""
        self._bytes += chunk
        complete = len(self._bytes) - _broken_utf8_tail(self._bytes)
        self._text += self._bytes[:complete].decode(errors="replace")
        self._bytes = self._bytes[complete:]
        plain = _CONTROL.sub("", self._text)
        unfinished = _UNFINISHED.search(plain)
        cut = unfinished.start() if unfinished else len(plain)
        self._text = plain[cut:]
        return _DROPPED.sub("", plain[:cut])


def _broken_utf8_tail(data: bytes) -> int:
    """How many bytes at the end are the start of a character that is not complete."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            width = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < width else 0
        if byte < 0x80:
            return 0
    return 0


class Console:
    """One end of the machine's serial line. `explain` says in messages what else is known, if the machine ended."""

    def __init__(self, line: socket.socket, explain: Callable[[], str]) -> None:
        self._line = line
        self._explain = explain
        self._text = ""
        self._cursor = 0
        self._closed = False
        self._news = threading.Condition()
        self._stamps: list[tuple[int, float]] = []
        limit = SECONDS_TO_TYPE.to_bytes(8, "little") + bytes(8)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._reader = threading.Thread(target=self._read, daemon=True, name="console")
        self._reader.start()

    @property
    def text(self) -> str:
        """Everything so far, as plain text."""
        with self._news:
            return self._text

    def wait(self, pattern: str, timeout: float, *, from_start: bool = False) -> re.Match[str]:
        """Wait until the pattern is seen after the last match (or anywhere); the cursor moves behind the match."""
        wanted = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                found = wanted.search(self._text, 0 if from_start else self._cursor)
                if found:
                    self._cursor = max(self._cursor, found.end())
                    return found
                if self._closed or _PANIC in self._text:
                    raise MachineEndedError(f"the machine ended before /{pattern}/ was on the console{self._tail()}")
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise NotInTimeError(f"/{pattern}/ was not on the console within {timeout:g} s{self._tail()}")
                self._news.wait(remaining)

    def when(self, position: int) -> float:
        """The monotonic time at which the character at this position was there (for measuring a match's start)."""
        with self._news:
            return next((stamp for end, stamp in self._stamps if end > position), time.monotonic())

    def type(self, text: str) -> None:
        """Type as a person at the serial terminal would; a new line is the return key."""
        try:
            self._line.sendall(text.replace("\n", "\r").encode())
        except OSError as error:
            raise MachineEndedError(f"nobody reads the console's keyboard: {error}{self.tail()}") from None

    def tail(self) -> str:
        """The last lines for a message: after a semicolon the very last, which summaries show too, then more, framed."""
        with self._news:
            return self._tail()

    def close(self) -> None:
        """Hang up."""
        self._line.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._line.close()

    def _tail(self) -> str:
        lines = self._text.splitlines()[-TAIL_LINES:]
        shown = "\n".join(lines)
        frame = f"--- the last lines of the console ---\n{shown}\n--- end of the console ---{self._explain()}"
        return f"; the console's last words: {' / '.join(lines[-LAST_WORDS:])!r}\n{frame}"

    def _read(self) -> None:
        normaliser = Normaliser()
        while True:
            try:
                chunk = self._line.recv(65536)
            except OSError:
                chunk = b""
            with self._news:
                self._text += normaliser.feed(chunk)
                self._stamps.append((len(self._text), time.monotonic()))
                self._closed = not chunk
                self._news.notify_all()
            if not chunk:
                return
