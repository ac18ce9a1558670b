# SPDX-License-Identifier: Apache-2.0
"""The Network Block Device protocol as far as QEMU needs it: fixed newstyle negotiation, simple replies."""

import socket
import struct
from dataclasses import dataclass

READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FUA = 1 << 0
EPERM, EIO, EINVAL, ENOSPC = 1, 5, 22, 28
LARGEST_REQUEST = 32 << 20

_GREETING = struct.pack(">QQH", 0x4E42444D41474943, 0x49484156454F5054, 1 | 2)  # fixed newstyle, no zeroes
_OPTION_MAGIC = 0x49484156454F5054
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST = struct.Struct(">IHHQQI")
_REQUEST_MAGIC = 0x25609513
_REPLY = struct.Struct(">IIQ")
_REPLY_MAGIC = 0x67446698

_EXPORT_NAME, _ABORT, _INFO, _GO = 1, 2, 6, 7
_ACK, _INFO_REPLY, _UNSUPPORTED = 1, 3, (1 << 31) + 1
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3
_HAS_FLAGS, _IS_READ_ONLY, _SENDS_FLUSH, _SENDS_FUA = 1 << 0, 1 << 1, 1 << 2, 1 << 3


class ProtocolError(Exception):
    """The client said something that no NBD client says."""


@dataclass(frozen=True)
class Request:
    """A command of the transmission phase."""

    kind: int
    flags: int
    cookie: int
    offset: int
    size: int
    data: bytes


def negotiate(line: socket.socket, size: int, *, read_only: bool) -> bool:
    """Agree on the export; False if the client only asked and went away."""
    flags = _HAS_FLAGS | _SENDS_FLUSH | _SENDS_FUA | (_IS_READ_ONLY if read_only else 0)
    line.sendall(_GREETING)
    (client_flags,) = struct.unpack(">I", exactly(line, 4))
    while True:
        magic, option, length = struct.unpack(">QII", exactly(line, 16))
        if magic != _OPTION_MAGIC or length > LARGEST_REQUEST:
            raise ProtocolError(f"option with magic {magic:x} and {length} bytes")
        exactly(line, length)
        if option == _EXPORT_NAME:
            line.sendall(struct.pack(">QH", size, flags) + (b"" if client_flags & 2 else bytes(124)))
            return True
        if option in {_INFO, _GO}:
            _option_reply(line, option, _INFO_REPLY, struct.pack(">HQH", _INFO_EXPORT, size, flags))
            _option_reply(line, option, _INFO_REPLY, struct.pack(">HIII", _INFO_BLOCK_SIZE, 512, 4096, LARGEST_REQUEST))
            _option_reply(line, option, _ACK, b"")
            if option == _GO:
                return True
        elif option == _ABORT:
            _option_reply(line, option, _ACK, b"")
            return False
        else:
            _option_reply(line, option, _UNSUPPORTED, b"")


def receive(line: socket.socket) -> Request:
    """The next request."""
    magic, flags, kind, cookie, offset, size = _REQUEST.unpack(exactly(line, _REQUEST.size))
    if magic != _REQUEST_MAGIC or size > LARGEST_REQUEST:
        raise ProtocolError(f"request with magic {magic:x} and {size} bytes")
    return Request(kind, flags, cookie, offset, size, exactly(line, size) if kind == WRITE else b"")


def reply(line: socket.socket, request: Request, *, error: int = 0, data: bytes = b"") -> None:
    """Answer a request."""
    line.sendall(_REPLY.pack(_REPLY_MAGIC, error, request.cookie) + data)


def exactly(line: socket.socket, size: int) -> bytes:
    """So many bytes; EOFError at the end of the connection."""
    parts = bytearray()
    while len(parts) < size:
        part = line.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _option_reply(line: socket.socket, option: int, kind: int, data: bytes) -> None:
    line.sendall(struct.pack(">QIII", _OPTION_REPLY_MAGIC, option, kind, len(data)) + data)
