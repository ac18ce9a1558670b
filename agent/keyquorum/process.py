# SPDX-License-Identifier: Apache-2.0
"""The edge of every program: what goes wrong becomes words and an exit code, and every secret is wiped."""

from __future__ import annotations

import os
import sys
from _signal import SIG_IGN, SIGHUP, SIGTERM, getsignal, signal  # type: ignore[import-not-found]  # the module signal imports enum

from keyquorum import secret, speech
from keyquorum.errors import KeyquorumError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_INTERRUPTED = 130


class TerminatedError(BaseException):
    """The process was asked to end; unwinding wipes what must be wiped."""


def run(program: Callable[[], int]) -> int:
    """Run a program to its exit code."""
    _open_standard_streams()
    for number in (SIGTERM, SIGHUP):
        if getsignal(number) != SIG_IGN:  # started by nohup, for instance
            signal(number, _terminate)
    secret.keep_out_of_swap()
    try:
        return program()
    except KeyquorumError as error:
        speech.fail(error)
        return error.exit_code
    except (KeyboardInterrupt, TerminatedError):
        speech.note("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:  # nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return KeyquorumError.exit_code
    except Exception as error:  # the edge of the process: a traceback would help nobody at a boot prompt
        speech.fail(KeyquorumError(fault(error), "please report it; set KEYQUORUM_TRACE=1 to see where it happened"))
        if "KEYQUORUM_TRACE" in os.environ:
            raise
        return KeyquorumError.exit_code
    finally:
        secret.wipe_all()


def warn_of_unlocked_memory() -> None:
    """Tell a person whose secrets this process cannot keep out of swap space."""
    if secret.protection() == "none":
        speech.warn(
            "this process may lock no memory, so its secrets could reach swap space; allow it 1 MiB "
            "(LimitMEMLOCK= of its unit, ulimit -l of a shell)"
        )


def leave(code: int) -> NoReturn:
    """End the process now: no thread that hangs in a silent device is waited for, no memory tidied for nobody."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:  # nobody reads it
            continue
    os._exit(code)


def _open_standard_streams() -> None:
    """Make descriptors 0 to 2 and the streams on them usable, whatever we were started with.

    A boot without a console starts us with all three closed. The next file that is opened, perhaps a disk, would get
    the number and then our words (I1, I5). A terminal that lacks a character of ours gets it escaped.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (as long as the process)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (as above)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def fault(error: Exception) -> str:
    """Name a fault of our own without its message, which might hold data."""
    place, frame = "", error.__traceback__
    while frame is not None:
        place = f"{os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno}"
        frame = frame.tb_next
    return f"a fault in keyquorum itself: {type(error).__name__} at {place}"


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise TerminatedError
