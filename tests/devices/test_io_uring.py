# SPDX-License-Identifier: Apache-2.0
"""A ring of the kernel's holds an open file in our place (docs/decisions/0053-silent-tpm.md)."""

from __future__ import annotations

import os
import select

import pytest

from keyquorum.native import io_uring


def test_what_a_ring_holds_stays_open_until_the_ring_is_closed() -> None:
    inside, outside = os.pipe()
    ring = io_uring.hold(outside)
    os.close(outside)
    hung_up = select.poll()
    hung_up.register(inside)
    assert not hung_up.poll(50), "the ring did not hold it"
    os.close(ring)
    assert hung_up.poll(60_000), "the ring holds it for ever"
    assert os.read(inside, 1) == b"", "not the end of the pipe"
    os.close(inside)


def test_what_cannot_be_held_leaves_no_ring() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Bad file descriptor"):
        io_uring.hold(-1000)
    assert os.listdir("/proc/self/fd") == before
