# SPDX-License-Identifier: Apache-2.0
"""Instants, as people read them: in UTC, since whoever judges evidence may sit anywhere."""

from __future__ import annotations

import datetime as dt


def shown(seconds: int) -> str:
    """Return seconds since 1970 as a date and a time, "for ever" for one that no calendar has."""
    try:
        return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "for ever"
