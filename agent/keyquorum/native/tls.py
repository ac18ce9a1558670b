# SPDX-License-Identifier: Apache-2.0
"""A TLS 1.3 client without a socket: bytes from the wire go in, bytes for the wire come out (docs/custodian.md §3).

Both sides show certificates. The server's must lead to the pinned authority and to nothing else, and name the server;
the client's key is an Ed25519 seed in protected memory, of which OpenSSL makes a copy that it wipes when the context
is closed and the handshakes are over. No file is read, so what the system trusts plays no part.
"""

from __future__ import annotations

import ctypes

from keyquorum.errors import KeyquorumError, UnavailableError
from keyquorum.native import tls_library as lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from keyquorum.secret import Secret

MAX_CERTIFICATE = 8192  # bytes in DER
_PIECE = 16 * 1024 + 512  # a TLS record
_RENEW = "enrol this machine anew at the custodian"
_BY_TIME = "the clock of this machine may be wrong, or the operator there must renew it: keyquorum custodian renew"
_OVER = "this machine's certificate there is over; open the volume otherwise, then: keyquorum machine renew"


class Context:
    """What all connections to one custodian share. Use it as a context manager."""

    def __init__(self, authority: bytes, chain: tuple[bytes, ...] = (), key: Secret | None = None) -> None:
        """Take certificates in DER (the client's own first) and the seed of the client's Ed25519 key.

        Without a key the client shows no certificate: a machine that is being enrolled has none yet.

        Raises `KeyquorumError` for a certificate that OpenSSL does not read or that is not of this key.
        """
        self.address = int(lib.context_new(lib.client_method()) or 0)
        if not self.address:
            raise KeyquorumError("OpenSSL has no TLS client")
        try:
            self._restrict(authority)
            if key is not None:
                self._show(chain, key)
        except KeyquorumError:
            self.close()
            raise

    def _restrict(self, authority: bytes) -> None:
        for bound in (lib.CTRL_MIN_VERSION, lib.CTRL_MAX_VERSION):
            if lib.context_control(self.address, bound, lib.TLS1_3, None) != 1:
                raise KeyquorumError("this OpenSSL has no TLS 1.3")
        lib.context_options(self.address, lib.NO_TICKET)
        lib.context_verify(self.address, lib.VERIFY_PEER, None)
        with _Certificate(authority, "the custodian's authority") as trusted:
            if lib.store_add(lib.context_store(self.address), trusted.address) != 1:
                raise KeyquorumError("OpenSSL does not take the custodian's authority")

    def _show(self, chain: tuple[bytes, ...], key: Secret) -> None:
        for number, data in enumerate(chain):
            with _Certificate(data, "this machine's certificate") as own:
                done = (
                    lib.context_control(self.address, lib.CTRL_CHAIN_CERT, 1, own.address)
                    if number
                    else lib.context_certificate(self.address, own.address)
                )
                if done != 1:
                    raise KeyquorumError(f"OpenSSL does not take this machine's certificate: {_reason()}", _RENEW)
        private = lib.raw_private_key(lib.ED25519, None, key.address, key.size)
        if not private:
            raise KeyquorumError("OpenSSL does not take this machine's TLS key", _RENEW)
        fits = lib.context_key(self.address, private)  # which also compares it with the certificate
        lib.key_free(private)
        if fits != 1:
            raise KeyquorumError("this machine's certificate is not of its TLS key", _RENEW)

    def close(self) -> None:
        """Forget the key and the certificates."""
        lib.context_free(self.address)
        self.address = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Certificate:
    def __init__(self, data: bytes, what: str) -> None:
        held = ctypes.create_string_buffer(data, len(data))
        at = ctypes.c_void_p(ctypes.addressof(held))
        self.address = lib.certificate_read(None, ctypes.byref(at), len(data)) if len(data) <= MAX_CERTIFICATE else 0
        if not self.address or at.value != ctypes.addressof(held) + len(data):
            if self.address:
                lib.certificate_free(self.address)
            raise KeyquorumError(f"{what} is no certificate")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        lib.certificate_free(self.address)


class Session:
    """One connection's TLS. Whatever goes wrong in it is an `UnavailableError`: whoever is there is not the custodian.

    `close` it. It may go on after its context was closed, and has forgotten the key once the handshake is complete.
    """

    def __init__(self, context: Context, server: str) -> None:
        """Begin a session with the server whose certificate must have the DNS name `server`."""
        name, self._server = server.encode("ascii"), server
        self._address = int(lib.session_new(context.address) or 0)
        self._incoming, self._outgoing = lib.buffer_new(lib.memory_kind()), lib.buffer_new(lib.memory_kind())
        lib.session_buffers(self._address, self._incoming, self._outgoing)  # the session owns them now
        lib.session_is_client(self._address)
        lib.session_host_flags(self._address, lib.NO_PARTIAL_WILDCARDS | lib.NEVER_THE_SUBJECT)
        if (
            lib.session_host(self._address, name) != 1
            or lib.session_control(self._address, lib.CTRL_HOST_NAME, 0, name) != 1
        ):
            self.close()
            raise UnavailableError(f"{server} cannot be the name of a server")

    def close(self) -> None:
        """Free the session. May be called twice."""
        if self._address:
            lib.session_free(self._address)
            self._address = 0

    def receive(self, data: bytes) -> None:
        """Take bytes that came from the wire."""
        lib.buffer_write(self._incoming, data, len(data))

    def to_send(self) -> bytes:
        """Return the bytes that the wire is to have, perhaps none."""
        found, piece = b"", ctypes.create_string_buffer(_PIECE)
        while (size := lib.buffer_read(self._outgoing, piece, _PIECE)) > 0:
            found += piece.raw[:size]
        return found

    def handshake(self) -> bool:
        """Go on with the handshake; say whether it is complete."""
        lib.errors_clear()
        done = self._result(lib.session_handshake(self._address))
        if done == 0:  # a goodbye, which needs no key and proves nothing
            raise UnavailableError(f"{self._server} ended the handshake")
        if done is not None:
            lib.session_forget_key(self._address)
        return done is not None

    def peer_key(self) -> bytes:
        """Return the key of the certificate that the server showed, SubjectPublicKeyInfo in DER.

        Raises `UnavailableError` before the handshake is complete.
        """
        shown = lib.session_certificate(self._address)
        if not shown:
            raise UnavailableError(f"{self._server} has shown no certificate")
        try:
            key = lib.certificate_key(shown)
            room = ctypes.create_string_buffer(max(0, lib.key_write(key, None)))
            at = ctypes.c_void_p(ctypes.addressof(room))
            lib.key_write(key, ctypes.byref(at))
            return room.raw
        finally:
            lib.certificate_free(shown)

    def write(self, data: bytes) -> None:
        """Encrypt data, once the handshake is complete."""
        lib.errors_clear()
        if self._result(lib.session_write(self._address, data, len(data))) != len(data):
            raise UnavailableError(f"the connection to {self._server} takes no data")

    def read(self) -> bytes | None:
        """Return what was received; None when more bytes are needed, b"" when the other end has ended."""
        lib.errors_clear()
        piece = ctypes.create_string_buffer(_PIECE)
        size = self._result(lib.session_read(self._address, piece, _PIECE))
        return None if size is None else piece.raw[:size]

    def finish(self) -> None:
        """Tell the other end that nothing more comes."""
        lib.errors_clear()
        lib.session_shutdown(self._address)

    def _result(self, done: int) -> int | None:
        """Return what a call gave, or None when it needs more bytes from the wire; raises `UnavailableError`."""
        if done > 0:
            return done
        kind = lib.session_error(self._address, done)
        if kind in {lib.WANT_READ, lib.WANT_WRITE}:
            return None
        if kind == lib.END:
            return 0
        verdict = lib.session_verdict(self._address)
        if verdict:
            words = (lib.verdict_text(verdict) or b"").decode("ascii", "replace")
            raise UnavailableError(
                f"who answers is not {self._server}: its certificate fails: {words}",
                _BY_TIME if "valid" in words or "expired" in words else "",
            )
        reason = _reason()
        raise UnavailableError(
            f"{self._server} ends the TLS connection: {reason}",
            _OVER if "alert certificate expired" in reason else "",
        )


def _reason() -> str:
    """Return OpenSSL's words for the last error of this thread."""
    return (lib.error_reason(lib.error_last()) or b"no reason given").decode("ascii", "replace")
