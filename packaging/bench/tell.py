# SPDX-License-Identifier: Apache-2.0
"""What the benchmark says while it works."""

from __future__ import annotations


def say(text: str) -> None:
    """One line, at once."""
    print(f"bench: {text}", flush=True)
