# SPDX-License-Identifier: Apache-2.0
"""keyquorum-key@.service: one connection of systemd-cryptsetup, answered with a passphrase (docs/daemon.md §5).

Whatever fails, the connection is closed without an answer, and systemd-cryptsetup asks its prompt.
"""

from __future__ import annotations

import os
import struct
import sys
from _socket import AF_UNIX, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, socket

from keyquorum import process
from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.linux import crypttab
from keyquorum.record import Record
from keyquorum.settings import load
from keyquorum.unlock import telling
from keyquorum.unlock.arguments import Arguments
from keyquorum.unlock.main import make_proxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyquorum.secret import Secret

_FIRST_PASSED = 3  # SD_LISTEN_FDS_START
_CREDENTIALS = struct.Struct("iII")  # struct ucred
_PURPOSE = "cryptsetup"
_SEND_SECONDS = 5


class Client(Record):
    """Who is connected: its user, and the abstract address it bound, without the zero byte in front."""

    user: int
    address: str


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the connection that systemd passed as descriptor 3."""
    del argv
    return process.run(_serve)


def _serve() -> int:
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        raise UsageError("keyquorum-key is started by keyquorum-key.socket")
    process.warn_of_unlocked_memory()
    connection = socket(fileno=_FIRST_PASSED)
    try:
        return answer(connection, crypttab.PATH)
    finally:
        connection.close()


def answer(connection: socket, crypttab_path: str) -> int:
    """Gather for the volume that the client names, and write the passphrase; return the exit code."""
    name = wanted_name(_client(connection))
    entry = crypttab.find(name, crypttab_path)
    arguments = Arguments(device=entry.source, name=name, header=entry.option("header"))
    listener = telling.choose(boot=False)
    proxy = make_proxy(arguments, load(), listener)
    report = proxy.hand_out(lambda passphrase: _send(connection, passphrase))
    listener.outcome(report)
    return report.exit_code


def wanted_name(client: Client) -> str:
    """Return the mapping's name from the client's address, RANDOM/cryptsetup/NAME; raises `UsageError`."""
    if client.user != 0:
        raise UsageError(f"user {client.user} may not ask for a passphrase")
    parts = client.address.split("/")
    if len(parts) != 3 or parts[1] != _PURPOSE or not parts[0] or not parts[2] or not client.address.isprintable():
        raise UsageError("the client does not say which volume it is about, as systemd-cryptsetup does")
    return parts[2]


def _client(connection: socket) -> Client:
    try:
        if connection.family != AF_UNIX or connection.type & 0xF != SOCK_STREAM:
            raise UsageError("the connection is not a stream of AF_UNIX")
        raw = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS.size)
        address = connection.getpeername()
    except OSError as error:
        raise KeyquorumError(f"the client cannot be identified: {error.strerror}") from None
    text = address.decode("utf-8", "replace") if isinstance(address, bytes) else ""
    return Client(user=_CREDENTIALS.unpack(raw)[1], address=text.removeprefix("\0"))


def _send(connection: socket, passphrase: Secret) -> None:
    """Write the passphrase from locked memory."""
    connection.settimeout(_SEND_SECONDS)
    try:
        connection.sendall(passphrase.view)
    except OSError as error:
        raise KeyquorumError(f"the client does not take its passphrase: {error.strerror or 'no time left'}") from None


if __name__ == "__main__":
    sys.exit(main())
