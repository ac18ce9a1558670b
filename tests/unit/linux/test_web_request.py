# SPDX-License-Identifier: Apache-2.0
"""Asking over HTTP on a system that has nothing left to give."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from keyquorum.errors import UnavailableError
from keyquorum.linux.web_request import Bounds, Request, ask


def test_without_a_thread_to_end_it_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = Request(host="127.0.0.1", port=listener.getsockname()[1], name="localhost", path="/")
        before = os.listdir("/proc/self/fd")
        with pytest.raises(UnavailableError, match="no thread left"):
            ask(asked, None, Bounds(step=5.0, whole=5.0, content=100))
        assert os.listdir("/proc/self/fd") == before, "nothing is left open"
