# SPDX-License-Identifier: Apache-2.0
"""A machine whose root opens from its TPM, two custodians and an enclave, any two; the latter run on the host.

One custodian gives its fragment to whom it trusts, the other also wants a person's approval, and the enclave proves what
it runs. The guest reaches nothing else (QEMU's isolated user network). The machine and who holds its fragments are made
once and kept; a `Site` has throw-away copies.
"""

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from boots import host_custodian, software_enclave
from boots.enrolled import (
    Enrolled,
    Recipe,
    Scene,
    before_enrolment,
    enrol_root,
    identity_of,
    lay_disks,
    make_boot_image,
    product_tree,
)
from boots.host_custodian import Custodian
from guests.cache import cached, file_digest
from guests.hardware import Network
from guests.machine import Machine

EU, NO, TEE = "eu", "no", "tee"
_SEEN_AT = {EU: "10.0.2.101", NO: "10.0.2.102", TEE: "10.0.2.103"}
_PORT = 8443

_KEPT = "/etc/keyquorum"
_PROVEN = f"""\
appraisal = ["{_KEPT}/appraisal.signed"]
test_roots = "{_KEPT}/roots.pem"
"""
_POLICY = f"""\
version = 1
threshold = 2
of = {json.dumps(["tpm", *_SEEN_AT])}
[holder.tpm]
kind = "tpm"
pcrs = [7]
{host_custodian.holder(EU)}{host_custodian.holder(NO)}{host_custodian.holder(TEE, "enclave")}{_PROVEN}"""
_RECIPE = Recipe("custodians", _POLICY)
# A guest under emulation is slow, not silent.
_BE_PATIENT = "echo custodian_timeout = 120 >>/etc/keyquorum/keyquorum.conf"
CONNECT = """
nic=$(ls /sys/class/net | grep -v lo)
ip address add 10.0.2.15/24 dev $nic
ip link set $nic up
"""


@dataclass(frozen=True)
class Site:
    """The machine, and who holds its fragments on the network. None of them serves yet."""

    scene: Scene
    eu: Custodian
    no: Custodian
    enclave: Custodian

    @property
    def custodians(self) -> tuple[Custodian, Custodian]:
        """Those that prove nothing."""
        return self.eu, self.no

    def machine(self, **changes: object) -> Machine:
        """The machine as it stands; `changes` go to `Machine`."""
        return self.scene.machine(network=_network((*self.custodians, self.enclave)), **changes)


def site(directory: str) -> Site:
    """Throw-away copies of all."""
    enrolled = _enrolled()
    for name in _SEEN_AT:
        shutil.copytree(enrolled.path(name), os.path.join(directory, name))
    return Site(Scene(enrolled, directory), *_holders(directory))


def _enrolled() -> Enrolled:
    tree = product_tree()
    described = "\n".join([identity_of(tree, _RECIPE), *map(file_digest, (__file__, host_custodian.__file__))])

    def make(entry: str) -> None:
        lay_disks(entry, tree, _RECIPE)
        holders = _holders(entry)
        with ExitStack() as stack:
            for holder in holders:
                holder.found()
                stack.enter_context(holder.serving())
            vm = stack.enter_context(before_enrolment(entry, _RECIPE, network=_network(holders)))
            vm.run(f"{_BE_PATIENT}{CONNECT}")
            for holder in holders:
                host_custodian.enrol_machine(vm, holder, f"{_SEEN_AT[holder.name]}:{_PORT}")
                by = host_custodian.BY_ANNA if holder.name == NO else host_custodian.BY_NOBODY
                host_custodian.write_release(vm, holder.name, (_RECIPE.luks.uuid,), by)
                if holder.proven:
                    _write_proof(vm, holder)
            host_custodian.write_reference(vm)
            enrol_root(vm, entry, _RECIPE)
            vm.powerdown()
        make_boot_image(entry, tree, _RECIPE)

    return Enrolled(cached("trixie-custodians", described, make), _RECIPE)


def _holders(directory: str) -> list[Custodian]:
    return [host_custodian.new(name, directory, proven=name == TEE) for name in _SEEN_AT]


def _network(holders: Iterable[Custodian]) -> Network:
    services = tuple((_SEEN_AT[holder.name], _PORT, holder.port) for holder in holders)
    return Network(services=services, isolated=True)


def _write_proof(vm: Machine, custodian: Custodian) -> None:
    """What the owner believes of an enclave: its maker's roots, and what it runs."""
    for name in (software_enclave.ROOTS, software_enclave.APPRAISAL):
        with open(os.path.join(custodian.directory, name), "rb") as file:
            vm.put(f"{_KEPT}/{name}", file.read())
    vm.run(f"keyquorum attest policy sign {_KEPT}/{software_enclave.APPRAISAL} --out {_KEPT}/appraisal.signed")
