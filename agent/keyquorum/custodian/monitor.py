# SPDX-License-Identifier: Apache-2.0
"""Health and numbers for whoever watches the service: plain HTTP, on the loopback unless told otherwise (docs §12).

One client at a time, each for two seconds at most. No name of a machine or volume is shown.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from keyquorum.custodian import http_head
from keyquorum.custodian.counters import NAMES, STATUSES
from keyquorum.custodian.http_head import END, TEXT, Answer, RequestError
from keyquorum.custodian.store_listing import counts
from keyquorum.errors import KeyquorumError

if TYPE_CHECKING:
    import socket

    from keyquorum.custodian.counters import Counters
    from keyquorum.custodian.site import Site

_SECONDS = 2.0
_MAX_HEAD = 2048
_GAUGES = ("ready", "connections_open")
_STORE_TOTALS = ("log_entries", "releases")


def start(listener: socket.socket, site: Site, counters: Counters) -> None:
    """Answer in a thread of its own, as long as the process lives."""
    threading.Thread(target=_serve, args=(listener, site, counters), daemon=True, name="monitor").start()


def _serve(listener: socket.socket, site: Site, counters: Counters) -> None:
    while True:
        try:
            accepted, _ = listener.accept()
        except OSError:
            return
        with accepted:
            try:
                _attend(accepted, site, counters)
            except OSError:  # too slow, or gone
                continue


def _attend(accepted: socket.socket, site: Site, counters: Counters) -> None:
    deadline, data = time.monotonic() + _SECONDS, b""
    while END not in data and len(data) < _MAX_HEAD:
        accepted.settimeout(max(0.001, deadline - time.monotonic()))
        piece = accepted.recv(_MAX_HEAD)
        if not piece:
            return
        data += piece
    try:
        answer = respond(http_head.parse(data).path, site, counters)
    except RequestError as problem:
        answer = Answer(status=problem.status, body=problem.message.encode() + b"\n", kind=TEXT)
    accepted.settimeout(max(0.001, deadline - time.monotonic()))
    accepted.sendall(http_head.serialise(answer, keep=False))


def respond(path: str, site: Site, counters: Counters) -> Answer:
    """Answer one question; raises `RequestError` for another path."""
    if path not in {"/health", "/metrics"}:
        raise RequestError(404, "there are /health and /metrics")
    problem, numbers = "", {}
    try:
        settings = site.settings()
        store = site.open_store(settings)
        try:
            numbers = counts(store)
            problem = "" if store.current else "the store was not yet compared with what witnesses have"
        finally:
            store.close()
    except KeyquorumError as error:
        problem = error.message
    if not counters.total("ready"):
        problem = problem or "no worker is ready"
    if path == "/health":
        return Answer(status=503 if problem else 200, body=f"{problem or 'serving'}\n".encode(), kind=TEXT)
    return Answer(status=200, body=metrics(counters, numbers, healthy=not problem), kind=f"{TEXT}; version=0.0.4")


def metrics(counters: Counters, store: dict[str, int], *, healthy: bool) -> bytes:
    """Write Prometheus' text format."""
    rows = [("keyquorum_custodian_up", "gauge", "", int(healthy))]
    for name in NAMES:
        if not name.startswith("answers_"):
            shown = "workers_ready" if name == "ready" else name
            kind = "gauge" if name in _GAUGES else "counter"
            rows.append((f"keyquorum_custodian_{shown}", kind, "", counters.total(name)))
    for status in STATUSES:
        label = f'{{status="{status}"}}'
        rows.append(("keyquorum_custodian_answers_total", "counter", label, counters.total(f"answers_{status}")))
    for name, value in store.items():
        kind = "counter" if name in _STORE_TOTALS else "gauge"
        rows.append((f"keyquorum_custodian_{name}", kind, "", value))
    lines, seen = [], set()
    for name, kind, label, value in rows:
        if name not in seen:
            seen.add(name)
            lines.append(f"# TYPE {name} {kind}")
        lines.append(f"{name}{label} {value}")
    return ("\n".join(lines) + "\n").encode()
