# SPDX-License-Identifier: Apache-2.0
"""A root from the TPM and an enclave under test roots: only from one that runs what it should, here and now."""

import re
from pathlib import Path

import pytest

from boots.aftermath import TAMPERED, VALID, ask_everyone, nothing_left, opened_by_passphrase, opened_late
from boots.custodians import CONNECT, TEE, Site, site
from boots.host_custodian import Custodian
from keyquorum.holders.enclave_where import LOUD

CHECKS = {"measurement": "snp.measurement", "debug": "snp.policy.debug", "nonce": "snp.report-data"}


@pytest.fixture
def place(tmp_path: Path) -> Site:
    return site(str(tmp_path))


def releases(custodian: Custodian) -> int:
    found = custodian.operator("status")["releases"]
    assert isinstance(found, int)
    return found


def test_the_root_opens_from_the_tpm_and_an_enclave(place: Site) -> None:
    before = releases(place.enclave)
    with place.enclave.serving(), place.machine() as vm:
        told = opened_late(vm)
        assert (told["tpm"].verdict, told[TEE].verdict) == (VALID, VALID)
        assert LOUD in told[TEE].reason
        assert LOUD in vm.run("dmesg").text, "test roots are told on the console of each boot"
        nothing_left(vm)
    assert releases(place.enclave) == before + 1


def test_an_enclave_that_is_not_what_it_should_be(place: Site) -> None:
    """At boot, and when it is asked again by hand: the check is named, and the enclave is not asked for a release."""
    before = releases(place.enclave)
    with place.machine() as vm:
        with place.enclave.serving("measurement"):
            opened_by_passphrase(vm, place.scene.luks, place.enclave.wait_until_judged)
        told = rf"{TEE} \(enclave\): tampered[^\n]*{re.escape(CHECKS['measurement'])}"
        assert re.search(told, vm.run("dmesg").text)
        vm.run(CONNECT)
        for fault, check in CHECKS.items():
            with place.enclave.serving(fault):
                asked = ask_everyone(vm, place.scene.luks, quorum=False, reach=(TEE,))[TEE]
            assert asked.verdict == TAMPERED, asked
            assert check in asked.reason
        with place.enclave.serving():
            assert ask_everyone(vm, place.scene.luks, reach=(TEE,))[TEE].verdict == VALID
    assert releases(place.enclave) == before + 1, "the last question alone"
