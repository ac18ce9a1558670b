# SPDX-License-Identifier: Apache-2.0
"""Reports of SEV-SNP from /dev/sev-guest, for kernels without configfs-tsm (docs/attestation-collect.md §4).

include/uapi/linux/sev-guest.h. Encoding and decoding are pure; `ioctl` is an argument.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from keyquorum.errors import UnavailableError
from keyquorum.evidence import snp_report
from keyquorum.evidence.bundle import Bundle
from keyquorum.linux.configfs_tsm import SIZE, certificates
from keyquorum.linux.guest_device import opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.linux.guest_device import Ioctl

DEVICE = "/dev/sev-guest"
GET_REPORT, GET_EXT_REPORT = 0xC0205300, 0xC0205302  # _IOWR('S', n, struct snp_guest_request_ioctl)
TABLE_SIZE = 0x4000  # SEV_FW_BLOB_MAX_SIZE
REQUEST = struct.Struct("<64sI28x")  # user data, privilege level
EXTENDED = struct.Struct("<96sQI4x")  # request, address and size of the room for the table
CALL = struct.Struct("<B7xQQQ")  # message version, addresses of request and answer, what host and firmware say
RESPONSE_SIZE = 4000
_RESPONSE = struct.Struct("<II24x")  # status, size of the report
_MESSAGE_VERSION, _MOST_PRIVILEGED = 1, 0


def decode(response: bytes) -> bytes:
    """Return the report of an answer (MSG_REPORT_RSP); raises `UnavailableError` for one that says no."""
    status, size = _RESPONSE.unpack_from(response)
    if status or size != snp_report.SIZE:
        raise UnavailableError(f"the firmware gives no report: status {status}, {size} bytes")
    return bytes(response[_RESPONSE.size : _RESPONSE.size + size])


class SevGuest:
    """The device. `ioctl` is `fcntl.ioctl`, or what stands in for it."""

    def __init__(self, device: str = DEVICE, ioctl: Ioctl = fcntl.ioctl) -> None:
        self._device, self._ioctl = device, ioctl

    def present(self) -> bool:
        """Say whether this is a guest with the driver."""
        return os.path.exists(self._device)

    def collect(self, nonce: bytes) -> Bundle:
        """Return a report with these 64 bytes, and the host's certificates; raises `UnavailableError`."""
        if len(nonce) != SIZE:
            raise UnavailableError(f"reports carry {SIZE} bytes, and not {len(nonce)}")
        with opened(self._device, "report") as descriptor:
            return self._talk(descriptor, REQUEST.pack(nonce, _MOST_PRIVILEGED))

    def _talk(self, descriptor: int, request: bytes) -> Bundle:
        """Ask with room for certificates, and without if the host has none to give."""
        table = ctypes.create_string_buffer(TABLE_SIZE)
        extended = EXTENDED.pack(request, ctypes.addressof(table), TABLE_SIZE)
        try:
            report = self._call(descriptor, GET_EXT_REPORT, extended)
        except OSError as error:
            if error.errno not in {errno.EIO, errno.EINVAL, errno.ENOTTY, errno.ENOSPC}:
                raise
            return Bundle(technology="snp", parts={"report": self._call(descriptor, GET_REPORT, request)})
        return Bundle(technology="snp", parts={"report": report, **certificates(table.raw)})

    def _call(self, descriptor: int, number: int, request: bytes) -> bytes:
        given = ctypes.create_string_buffer(request, len(request))
        answer = ctypes.create_string_buffer(RESPONSE_SIZE)
        call = CALL.pack(_MESSAGE_VERSION, ctypes.addressof(given), ctypes.addressof(answer), 0)
        self._ioctl(descriptor, number, bytearray(call))
        return decode(answer.raw)
