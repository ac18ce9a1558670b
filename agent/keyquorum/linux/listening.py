# SPDX-License-Identifier: Apache-2.0
"""Sockets that a service listens on: those that its manager opened (sd_listen_fds(3)), or its own."""

from __future__ import annotations

import socket

from systemd import daemon  # type: ignore[attr-defined]  # its package has no types

from keyquorum.errors import KeyquorumError

_BACKLOG = 1024
VSOCK = "vsock:"  # begins a host that is the number of a machine, or "any" (vsock(7))


def activated() -> list[socket.socket]:
    """Return the stream sockets that systemd gave this process; it gives them once."""
    return [socket.socket(fileno=descriptor) for descriptor in daemon.listen_fds(True)]


def bound(host: str, port: int) -> socket.socket:
    """Listen on an address, or on vsock:CID; raises `KeyquorumError`. Port 0 is any that is free."""
    if host.startswith(VSOCK):
        return _bound_vsock(host.removeprefix(VSOCK), port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=host == "::")
    except OSError as error:
        raise KeyquorumError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listener


def _bound_vsock(cid: str, port: int) -> socket.socket:
    number = socket.VMADDR_CID_ANY if cid == "any" else int(cid)
    try:
        listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            listener.bind((number, port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise KeyquorumError(f"cannot listen on vsock {cid} port {port}: {error.strerror}") from None
    return listener


def shown(listener: socket.socket) -> str:
    """Return where a socket listens, for people."""
    host, port = listener.getsockname()[:2]
    if listener.family == socket.AF_VSOCK:
        return f"{VSOCK}{'any' if host == socket.VMADDR_CID_ANY else host}:{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def inherited(descriptor: int) -> socket.socket:
    """Return the listening socket that a parent process passed; raises `KeyquorumError`."""
    try:
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise KeyquorumError(f"descriptor {descriptor} is no socket: {error.strerror}") from None
