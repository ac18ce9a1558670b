# SPDX-License-Identifier: Apache-2.0
"""Machines that ask a custodian for their fragments, as fast as it answers, with as little work of their own as may be.

Each question has a quote of its own, because the nonce in it is the custodian's. What is left to a machine is one
signature with P-256, one hash and one exchange over TLS; it does not verify or open what it gets (`proved` does, once
for each machine, before anything is timed).
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from devices.custodian_site import ORIGIN
from keyquorum.model import release_messages
from keyquorum.model.release_messages import ReleaseRequest, TpmEvidence
from unit.evidence import tpm_maker

from .fleet import Member

_HEAD = "POST {} HTTP/1.1\r\nHost: c\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n"
_P256 = ec.ECDSA(hashes.SHA256())


class Asker:
    """One machine's prepared questions."""

    def __init__(self, member: Member, port: int) -> None:
        self._member, self._port = member, port
        self._challenge = release_messages.challenge_request(member.fragment)
        private = tpm_maker.private("p256", member.machine.key.number)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        self._private = private
        nonce = bytes(32)
        quote = member.machine.quote(tpm_maker.NONCE)
        self._attest = quote.attest.split(tpm_maker.NONCE)
        request = ReleaseRequest(
            nonce=nonce,
            fragment=member.fragment,
            kem="x-wing",
            key=member.one_time_key,
            evidence=TpmEvidence(attest=b"attest", signature=b"signature", pcrs=quote.pcrs, log=quote.log),
        )
        self._bound = _bound_parts(member)
        text = release_messages.release_request(request)
        first, rest = text.split(b'"' + base64.b64encode(b"attest") + b'"')
        second, rest = rest.split(b'"' + base64.b64encode(b"signature") + b'"')
        third, fourth = rest.split(b'"' + nonce.hex().encode() + b'"')
        self._pieces = first, second, third, fourth

    def connect(self) -> ssl.SSLSocket:
        """A new connection, with a whole handshake. It blocks: a time-out would be a `poll` for each piece."""
        plain = socket.socket(socket.AF_INET)
        plain.connect(("127.0.0.1", self._port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._member.context.wrap_socket(plain, server_hostname=ORIGIN)

    def release(self, over: ssl.SSLSocket, *, last: bool) -> None:
        """Ask once; AssertionError for anything but a release."""
        status, body = _exchange(over, "/v1/challenge", self._challenge, "keep-alive")
        assert status == 200, body
        payload = json.loads(base64.b64decode(json.loads(body)["envelope"]["payload"]))
        status, body = _exchange(over, "/v1/release", self._answer(payload["nonce"]), "close" if last else "keep-alive")
        assert status == 200, body

    def _answer(self, nonce: str) -> bytes:
        before, after = self._bound
        question = hashlib.sha256(hashlib.sha512(before + bytes.fromhex(nonce) + after).digest()).digest()
        attest = question.join(self._attest)
        r, s = decode_dss_signature(self._private.sign(attest, _P256))
        signature = b"\x00\x18\x00\x0b\x00\x20" + r.to_bytes(32, "big") + b"\x00\x20" + s.to_bytes(32, "big")
        filled = (base64.b64encode(attest), base64.b64encode(signature), nonce.encode())
        first, second, third, fourth = self._pieces
        return b'"'.join((first, filled[0], second, filled[1], third, filled[2], fourth))


def _bound_parts(member: Member) -> tuple[bytes, bytes]:
    """What is hashed before and after the nonce (docs/attestation.md §4); `fleet.proved` asks `keyquorum` itself."""
    name = member.fragment
    parts = (
        ORIGIN.encode(),
        name.volume.encode(),
        name.set_id + bytes((name.index,)),
        name.epoch.to_bytes(4, "big"),
        member.one_time_key,
        b"",
    )
    domain = b"keyquorum/v1/report-data"
    before = len(domain).to_bytes(4, "big") + domain + (32).to_bytes(4, "big")
    return before, b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _exchange(over: ssl.SSLSocket, path: str, body: bytes, connection: str) -> tuple[int, bytes]:
    over.sendall(_HEAD.format(path, len(body), connection).encode() + body)
    held = over.recv(65536)
    while (end := held.find(b"\r\n\r\n")) < 0:
        held += _more(over)
    head = held[:end].lower()
    at = head.index(b"content-length: ") + 16
    size = int(head[at:].partition(b"\r\n")[0])
    while len(held) < end + 4 + size:
        held += _more(over)
    return int(held[9:12]), held[end + 4 :]


def _more(over: ssl.SSLSocket) -> bytes:
    piece = over.recv(65536)
    assert piece, "the custodian ended the connection"
    return piece
