# SPDX-License-Identifier: Apache-2.0
"""Names to addresses: literals at once, names in a thread that nobody needs to wait for, one for each name."""

from __future__ import annotations

import _socket
import _thread
import errno
import os
import select
import threading
from typing import Any

import pytest

from keyquorum.errors import UnavailableError
from keyquorum.linux.resolve import Resolver, Target, Unresolved
from keyquorum.model.network_address import IPV4, IPV6, NAME, Endpoint

SLOW = Endpoint(host="slow.example", port=443, kind=NAME)
ROW = (_socket.AF_INET, _socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))


class SlowSystem:
    """A resolver of the system that answers when the test says so."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        self.go = threading.Event()
        patch.setattr(_socket, "getaddrinfo", self)

    def __call__(self, *arguments: Any) -> list[Any]:
        self.asked.append(arguments[0])
        assert self.go.wait(30)
        return [ROW]


def wait(resolver: Resolver) -> list[Target | Unresolved]:
    poll = select.poll()
    poll.register(resolver.descriptor, select.POLLIN)
    assert poll.poll(10_000), "nothing came"
    return resolver.take()


def test_literals_are_there_at_once() -> None:
    with Resolver() as resolver:
        resolver.ask(Endpoint(host="192.0.2.7", port=1, kind=IPV4))
        resolver.ask(Endpoint(host="2001:db8::7", port=2, kind=IPV6))
        first, second = resolver.take()
        assert not resolver.waiting
    assert isinstance(first, Target)
    assert isinstance(second, Target)
    assert (first.family, first.address) == (_socket.AF_INET, ("192.0.2.7", 1))
    assert (second.family, second.address) == (_socket.AF_INET6, ("2001:db8::7", 2))


def test_a_name_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    system = SlowSystem(monkeypatch)
    with Resolver() as resolver:
        resolver.ask(SLOW)
        assert resolver.take() == []
        assert resolver.waiting == 1
        system.go.set()
        assert wait(resolver) == [Target(endpoint=SLOW, family=_socket.AF_INET, address=("192.0.2.1", 443))]
        assert not resolver.waiting
    assert system.asked == [b"slow.example"], "as bytes: a codec is not in a boot image"


def test_who_left_gets_nothing_and_who_comes_later_shares_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    system = SlowSystem(monkeypatch)
    for _ in range(5):
        with Resolver() as impatient:
            impatient.ask(SLOW)
    with Resolver() as one, Resolver() as other:
        one.ask(SLOW)
        other.ask(SLOW)
        system.go.set()
        assert wait(one) == wait(other) != []
    assert len(system.asked) == 1


def test_a_fault_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise _socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(_socket, "getaddrinfo", fail)
    with Resolver() as resolver:
        resolver.ask(SLOW)
        assert wait(resolver) == [Unresolved(endpoint=SLOW, problem="Name or service not known")]


def test_no_thread_is_a_result_and_the_next_one_asks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    system, start = SlowSystem(monkeypatch), _thread.start_new_thread

    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with Resolver() as resolver:
        resolver.ask(SLOW)
        (found,) = wait(resolver)
        assert isinstance(found, Unresolved)
        assert "no thread" in found.problem
        assert not resolver.waiting
        monkeypatch.setattr(_thread, "start_new_thread", start)
        system.go.set()
        resolver.ask(SLOW)
        assert isinstance(wait(resolver)[0], Target)


def test_no_descriptor_is_said_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_flags: int) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe2", refuse)
    with pytest.raises(UnavailableError, match="Too many open files"):
        Resolver()
