# SPDX-License-Identifier: Apache-2.0
"""What every message between a machine and a custodian begins with (docs/custodian.md §3): its size and its version."""

from __future__ import annotations

from keyquorum.errors import TamperingError
from keyquorum.model.fields import Fields

VERSION = 1
MAX_BODY = 64 * 1024  # bytes of one message, either way


def read(data: bytes, what: str) -> Fields:
    """Return the fields of a message but for its version; raises `TamperingError`."""
    fields = Fields.read(data, what, MAX_BODY, TamperingError)
    fields.version(VERSION)
    return fields
