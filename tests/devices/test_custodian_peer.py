# SPDX-License-Identifier: Apache-2.0
"""Asking another custodian that does not behave."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devices.custodian_site import a_site
from keyquorum.custodian import peer, server
from keyquorum.custodian.site_settings import Address
from keyquorum.errors import UnavailableError
from unit.linux.tls_authority import Server

if TYPE_CHECKING:
    from pathlib import Path

_LONG = 30.0  # seconds: far more than the answer may take


def drip(connection: Any) -> None:
    """Answer a byte at a time."""
    end = time.monotonic() + _LONG
    connection.recv(4096)
    for byte in itertools.chain(b"HTTP/1.1 200 OK\r\n", itertools.cycle(b"X-More: 1\r\n")):
        if time.monotonic() > end:
            return
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def test_an_answer_that_drips_ends(tmp_path: Path) -> None:
    site = a_site(str(tmp_path / "site"))
    context = server.tls_context(site.path("tls.pem"), site.path("tls.key"), site.path("clients.pem"))
    begun = time.monotonic()
    with Server(context, drip) as dripping:
        other = site.peer(Address(host="127.0.0.1", port=dripping.port), "127.0.0.1", site.path("authority.pem"))
        hasty = replace(other, bounds=replace(peer.BOUNDS, whole=0.5))
        with pytest.raises(UnavailableError, match="does not answer: it takes too long"):
            hasty.ask("/v1/log/checkpoint")
    assert time.monotonic() - begun < _LONG / 2
