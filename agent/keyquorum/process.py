# SPDX-License-Identifier: Apache-2.0
"""The edge of every program: what goes wrong becomes words and an exit code, and every secret is wiped."""

from __future__ import annotations

import os
import sys
from _signal import SIGHUP, SIGTERM, signal  # type: ignore[import-not-found]  # the module signal imports enum

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
    signal(SIGTERM, _terminate)
    signal(SIGHUP, _terminate)
    secret.keep_out_of_swap()
    try:
        return program()
    except KeyquorumError as error:
        speech.fail(error)
        return error.exit_code
    except (KeyboardInterrupt, TerminatedError):
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
            stream.flush()
        except OSError:  # nobody reads it
            continue
    os._exit(code)


def fault(error: Exception) -> str:
    """Name a fault of our own without its message, which might hold data."""
    place, frame = "", error.__traceback__
    while frame is not None:
        place = f"{os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno}"
        frame = frame.tb_next
    return f"a fault in keyquorum itself: {type(error).__name__} at {place}"


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise TerminatedError
