# SPDX-License-Identifier: Apache-2.0
"""Who writes the machine's file, one after the other, and what the boot image lacks of it (docs/custodian.md §11.4).

Between reading the file and writing it a custodian is asked, for minutes perhaps: whoever wrote meanwhile would be
undone.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from keyquorum.errors import KeyquorumError
from keyquorum.linux import atomic_file
from keyquorum.linux.turn import turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_IMAGE_DUE = ".image-due"


@contextmanager
def alone(path: str) -> Iterator[None]:
    """Keep other commands from the machine's file at `path`; its directory is made if it is missing."""
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
    except OSError as error:
        raise KeyquorumError(f"{directory} cannot be made: {error.strerror}") from None
    with turn(directory):
        yield


def note_image(path: str) -> None:
    """Note that the boot image will not have what the file says, before the file says it."""
    atomic_file.write(path + _IMAGE_DUE, b"")


def image_due(path: str) -> bool:
    """Say whether the boot image was not rebuilt since."""
    return os.path.exists(path + _IMAGE_DUE)


def forget_image(path: str) -> None:
    """Note that it was."""
    atomic_file.remove(path + _IMAGE_DUE)
