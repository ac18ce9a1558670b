# SPDX-License-Identifier: Apache-2.0
"""Runs on the host, one for each connection that QEMU's user network hands out: standard input to a port, and back."""

import os
import select
import socket
import sys

_MOST = 65536


def main() -> None:
    """Relay until either end closes."""
    try:
        service = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    except OSError:  # nobody listens: the guest's connection ends
        return
    with service:
        poll = select.poll()
        for descriptor in (0, service.fileno()):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if service.fileno() in ready:
                data = service.recv(_MOST)
                if not data:
                    return
                _write(data)
            if 0 in ready:
                data = os.read(0, _MOST)
                if not data:
                    return
                service.sendall(data)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main()
