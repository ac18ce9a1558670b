# SPDX-License-Identifier: Apache-2.0
"""Tang servers of Debian 13 on this host's loopback: they run natively, as swtpm does, and cost the guest nothing."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Iterator

from guests.places import run_directory
from guests.recipe import PEERS
from guests.root_tree import Tree, root_tree
from guests.tools import companion, run

GUEST_SEES_HOST_AT = "10.0.2.2"
_READY_SECONDS = 20.0
# In a mount namespace of its own the keys lie in the tree's empty /mnt; the tree itself is not changed.
_ENTER = 'mount --bind "$1" "$2/mnt" && root=$2 && shift 2 && exec chroot "$root" "$@"'


def _inside(tree: Tree, keys: str, *argv: str) -> list[str]:
    return ["unshare", "--mount", "sh", "-c", _ENTER, "enter", keys, tree.path, *argv]


def prepare() -> Tree:
    """A Debian 13 that has tang."""
    return root_tree(extra=PEERS)


@contextlib.contextmanager
def tang_server(tree: Tree) -> Iterator[str]:
    """A server with keys of its own for the length of the block; gives its URL as the guest sees it."""
    with run_directory() as directory:
        keys = os.path.join(directory, "keys")
        os.mkdir(keys)
        run(_inside(tree, keys, "/usr/libexec/tangd-keygen", "/mnt"))
        port = _free_port()
        argv = _inside(tree, keys, "/usr/libexec/tangd", "-l", "-p", str(port), "/mnt")
        with companion(argv, log=os.path.join(directory, "log")) as server:
            end = time.monotonic() + _READY_SECONDS
            while not _answers(port):
                if server.exit_code is not None or time.monotonic() > end:
                    raise RuntimeError(f"tangd does not answer\n{server.said()}")
                time.sleep(0.1)
            yield f"http://{GUEST_SEES_HOST_AT}:{port}"


@contextlib.contextmanager
def activated_tang(tree: Tree) -> Iterator[int]:
    """A server as its unit runs it, one program for each connection; gives its port on the loopback."""
    with run_directory() as directory:
        keys = os.path.join(directory, "keys")
        os.mkdir(keys)
        run(_inside(tree, keys, "/usr/libexec/tangd-keygen", "/mnt"))
        port = _free_port()
        parent = ("/usr/bin/systemd-socket-activate", "--listen", f"127.0.0.1:{port}", "--accept", "--inetd")
        with companion(_inside(tree, keys, *parent, "/usr/libexec/tangd", "/mnt"), log=os.path.join(directory, "log")):
            end = time.monotonic() + _READY_SECONDS
            while not _answers(port):
                if time.monotonic() > end:
                    raise RuntimeError("tangd does not answer")
                time.sleep(0.1)
            yield port


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/adv")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
