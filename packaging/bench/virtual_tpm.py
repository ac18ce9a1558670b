# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: a second TPM, /dev/tpm1, whose answers come from an emulator elsewhere. Stopped, it is silent.

QEMU's own TPM cannot be silent for longer than the kernel's patience: when the kernel cancels a command, all of QEMU
waits for the emulator. This one hangs as a chip does, with the kernel's real driver interface above it
(linux/Documentation/security/tpm/tpm_vtpm_proxy.rst).
"""

import fcntl
import os
import socket
import struct
import sys

_NEW_DEVICE = 0xC014A100  # VTPM_PROXY_IOC_NEW_DEV
_TPM2 = 1
_SET_LOCALITY = 0x20001000  # the driver's own command; 10 bytes of success answer it
_DONE = struct.pack(">HII", 0x8001, 10, 0)
_LARGEST = 4096


def main() -> None:
    """Relay until killed."""
    host, port = sys.argv[1:]
    emulator = socket.create_connection((host, int(port)))
    control = os.open("/dev/vtpmx", os.O_RDWR)
    request = bytearray(struct.pack("5I", _TPM2, 0, 0, 0, 0))
    fcntl.ioctl(control, _NEW_DEVICE, request)
    device = struct.unpack("5I", request)[2]
    while True:
        command = os.read(device, _LARGEST)
        try:
            os.write(device, answer(emulator, command))
        except OSError:  # the kernel has given this command up
            continue


def answer(emulator: socket.socket, command: bytes) -> bytes:
    """What the emulator says to a command."""
    if struct.unpack(">I", command[6:10])[0] == _SET_LOCALITY:
        return _DONE
    emulator.sendall(command)
    reply = b""
    while len(reply) < 10 or len(reply) < struct.unpack(">I", reply[2:6])[0]:
        part = emulator.recv(_LARGEST)
        if not part:
            raise SystemExit("the emulator is gone")
        reply += part
    return reply


if __name__ == "__main__":
    main()
