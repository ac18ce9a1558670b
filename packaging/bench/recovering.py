# SPDX-License-Identifier: Apache-2.0
"""A recovery as clevis asks a tang server for it: POST /rec/KID with a point of the server's curve, and its answer."""

from __future__ import annotations

import base64
import hashlib
import json
import socket

from cryptography.hazmat.primitives.asymmetric import ec

_CURVES = {"P-521": (ec.SECP521R1(), 66), "P-256": (ec.SECP256R1(), 32)}


class Recovery:
    """The prepared request for one server; the point is any, as the blinded one of a client is."""

    def __init__(self, port: int) -> None:
        self._port = port
        signed = json.loads(_exchange(port, b"GET /adv HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"))
        keys = json.loads(base64.urlsafe_b64decode(signed["payload"] + "=="))["keys"]
        key = next(key for key in keys if "deriveKey" in key["key_ops"])
        required = json.dumps({name: key[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
        name = _base64(hashlib.sha256(required.encode()).digest())  # RFC 7638
        curve, size = _CURVES[key["crv"]]
        point = ec.generate_private_key(curve).public_key().public_numbers()
        x, y = (_base64(number.to_bytes(size, "big")) for number in (point.x, point.y))
        body = json.dumps({"alg": "ECMR", "crv": key["crv"], "kty": "EC", "x": x, "y": y})
        head = f"POST /rec/{name} HTTP/1.1\r\nHost: t\r\nContent-Type: application/jwk+json\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        assert json.loads(_exchange(port, self._request))["crv"] == key["crv"]

    def recover(self) -> None:
        """Ask once; AssertionError for anything but an answer."""
        _exchange(self._port, self._request)


def _exchange(port: int, request: bytes) -> bytes:
    with socket.socket(socket.AF_INET) as connection:
        connection.connect(("127.0.0.1", port))
        connection.sendall(request)
        held = b""
        while True:
            head, gap, body = held.partition(b"\r\n\r\n")
            if gap and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
                break
            piece = connection.recv(65536)
            assert piece, "the server ended the connection"
            held += piece
    assert head.startswith(b"HTTP/1.1 200 "), head
    return body


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
