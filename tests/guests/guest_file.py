# SPDX-License-Identifier: Apache-2.0
"""A file as it shall be in a guest."""

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """Content and mode; root owns it."""

    content: bytes
    mode: int = 0o644
