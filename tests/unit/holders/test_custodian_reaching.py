# SPDX-License-Identifier: Apache-2.0
"""Whether a custodian's addresses wait for the network of an initramfs (docs/boot.md §12)."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, Self

import pytest

from keyquorum.errors import UnavailableError
from keyquorum.holders import custodian_exchange
from keyquorum.linux import boot_network
from keyquorum.linux.tls_connection import Patience
from keyquorum.model import network_address

NEAR, FAR = "vsock:2:8443", "eu-1.example:8443"


class Key:
    """Stands for the TLS key and for what is made of it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Boot:
    """An initramfs whose network is down and does not come up before the deadline."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done, self.tried = list[str](), list[str]()

        def ensure(_patience: Patience) -> None:
            self.done.append("waited")
            raise UnavailableError("the network is not up yet")

        def connect(endpoints: tuple[Any, ...], *_: Any) -> str:
            self.tried = [str(one) for one in endpoints]
            return "connected"

        holder = SimpleNamespace(open=lambda _task: SimpleNamespace(identity=Key()))
        patch.setattr(boot_network, "ensure", ensure)
        patch.setattr(boot_network, "begin", lambda: self.done.append("begun"))
        patch.setattr(custodian_exchange, "tpm", SimpleNamespace(HOLDER=holder))
        patch.setattr(custodian_exchange, "Context", Key)
        patch.setattr(custodian_exchange, "tls_connection", SimpleNamespace(connect=connect))

    def reach(self, *addresses: str) -> None:
        endpoints = tuple(network_address.parse(address) for address in addresses)
        where: Any = SimpleNamespace(addresses=endpoints, custodian="eu-1.example", authority=b"")
        task: Any = SimpleNamespace(with_=lambda **_: None)
        machine: Any = SimpleNamespace(custodian=lambda _name: SimpleNamespace(chain=()), key={})
        custodian_exchange.connect(where, task, machine, Patience(deadline=time.monotonic() + 20))


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Boot:
    return Boot(monkeypatch)


def test_vsock_alone_has_nothing_to_do_with_it(boot: Boot) -> None:
    boot.reach(NEAR)
    assert (boot.done, boot.tried) == ([], [NEAR])


def test_a_name_alone_waits_for_it(boot: Boot) -> None:
    with pytest.raises(UnavailableError, match="not up yet"):
        boot.reach(FAR)
    assert (boot.done, boot.tried) == (["waited"], [])


def test_with_vsock_beside_a_name_it_is_only_begun_and_vsock_comes_first(boot: Boot) -> None:
    boot.reach(FAR, NEAR)
    assert (boot.done, boot.tried) == (["begun"], [NEAR, FAR])
