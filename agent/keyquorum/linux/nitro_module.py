# SPDX-License-Identifier: Apache-2.0
"""Documents of a Nitro enclave from its security module, /dev/nsm (docs/attestation-collect.md §5)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from keyquorum.errors import UnavailableError
from keyquorum.evidence import nsm_messages
from keyquorum.evidence.bundle import Bundle
from keyquorum.linux.guest_device import opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.linux.guest_device import Ioctl

DEVICE = "/dev/nsm"
RAW = 0xC0200A00  # _IOWR(0x0A, 0, struct nsm_raw)
MESSAGE = struct.Struct("<QQQQ")  # address and size of the request, address and size of the room for the answer


class NitroModule:
    """The device. `ioctl` is `fcntl.ioctl`, or what stands in for it."""

    def __init__(self, device: str = DEVICE, ioctl: Ioctl = fcntl.ioctl) -> None:
        self._device, self._ioctl = device, ioctl

    def present(self) -> bool:
        """Say whether this is an enclave with the driver."""
        return os.path.exists(self._device)

    def collect(self, nonce: bytes) -> Bundle:
        """Return a document that carries the nonce; raises `UnavailableError`, `TamperingError` for rubbish."""
        request = nsm_messages.attestation(nonce)
        with opened(self._device, "document") as descriptor:
            answer = self._call(descriptor, request)
        return Bundle(technology="nitro", parts={"document": nsm_messages.document(answer)})

    def _call(self, descriptor: int, request: bytes) -> bytes:
        given = ctypes.create_string_buffer(request, len(request))
        room = ctypes.create_string_buffer(nsm_messages.MAX_ANSWER)
        message = bytearray(MESSAGE.pack(ctypes.addressof(given), len(request), ctypes.addressof(room), len(room)))
        self._ioctl(descriptor, RAW, message)
        size = MESSAGE.unpack(message)[3]  # the driver writes what the answer has
        if not 0 < size <= len(room):
            raise UnavailableError(f"{self._device} answers with {size} bytes")
        return room.raw[:size]
