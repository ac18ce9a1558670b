# SPDX-License-Identifier: Apache-2.0
"""A root from the TPM and a custodian on the network: while the prompt stands, and never in its way (I3, I4)."""

import os
import re
from pathlib import Path

import pytest

from boots.aftermath import (
    REFUSED,
    UNAVAILABLE,
    VALID,
    Told,
    ask_everyone,
    nothing_left,
    opened_by_passphrase,
    opened_late,
)
from boots.custodians import CONNECT, EU, NO, Site, site
from boots.enrolled import PROMPT
from boots.host_custodian import MACHINE
from guests.machine import BOOT_SECONDS, Machine
from guests.swtpm import TpmState


@pytest.fixture
def place(tmp_path: Path) -> Site:
    return site(str(tmp_path))


def test_the_root_opens_from_the_tpm_and_a_custodian_until_the_machine_is_revoked(place: Site) -> None:
    with place.eu.serving(), place.no.serving(), place.machine() as vm:
        told = opened_late(vm)
        assert (told["tpm"].verdict, told[EU].verdict) == (VALID, VALID)
        assert told[NO].verdict != VALID
        nothing_left(vm)
        addresses = vm.run("ip -4 -brief address show scope global").text
        assert not addresses.strip(), "the network of the initramfs is still configured"
        assert [entry["act"] for entry in place.eu.log() if entry["kind"] == "release"] == ["released"] * 2
        for custodian in place.custodians:
            custodian.operator("revoke", MACHINE, "--yes")
        vm.run(CONNECT)
        told = ask_everyone(vm, place.scene.luks, quorum=False, reach=(EU, NO))
        for custodian in place.custodians:
            answer = told[custodian.name]
            assert answer.verdict == REFUSED, answer
            assert "revoked" in answer.reason
            custodian.wait_for_entry(f"{MACHINE} is revoked")
    assert place.eu.operator("status")["releases"] == 2  # the enrolment's proof, and the boot


def test_a_person_elsewhere_lets_the_boot_go_on(place: Site) -> None:
    """One custodian is away; the other waits for anna. The prompt is there all the time, and nobody types."""
    with place.no.serving(), place.machine() as vm:
        vm.wait_console(PROMPT)
        number = vm.wait_console(rf"{NO} \(custodian\): waiting[^\n]* (\d+)\b[^\n]*\n", BOOT_SECONDS, from_start=True)[
            1
        ]
        place.no.approve(int(number))
        told = opened_late(vm)
        assert (told["tpm"].verdict, told[NO].verdict) == (VALID, VALID)
        nothing_left(vm)


def test_a_custodian_that_is_well_again_opens_the_root(place: Site) -> None:
    with place.machine() as vm:
        vm.wait_console(PROMPT)
        place.eu.break_one_connection()
        with place.eu.serving():
            told = opened_late(vm)
        assert (told["tpm"].verdict, told[EU].verdict) == (VALID, VALID)
        assert told[NO].verdict != VALID


def test_a_changed_measured_boot_is_refused_and_both_logs_say_why(place: Site) -> None:
    """The TPM gives its fragment, which is bound to another PCR; neither custodian does."""
    others = ("type=0,version=9.9",)
    with place.eu.serving(), place.no.serving(), place.machine(smbios=others) as vm:
        told = refused_by_all(place, vm, "PCR 1", "PCR 1")
        assert told["tpm"].verdict == VALID


def test_a_stolen_disk_in_another_machine(place: Site) -> None:
    """It has all that is on the disk, boot image included, and not the TPM."""
    place.scene.tpm = TpmState.create(os.path.join(place.scene.directory, "another-tpm"))
    before = [custodian.operator("status")["releases"] for custodian in place.custodians]
    with place.eu.serving(), place.no.serving(), place.machine() as vm:
        opened_by_passphrase(vm, place.scene.luks)
        vm.run(CONNECT)
        told = ask_everyone(vm, place.scene.luks, quorum=False)
        assert told["tpm"].verdict == REFUSED
        for name in (EU, NO):
            assert told[name].verdict in {REFUSED, UNAVAILABLE}, told
            assert "TPM" in told[name].reason
    assert before == [custodian.operator("status")["releases"] for custodian in place.custodians]


def refused_by_all(place: Site, vm: Machine, entry: str, words: str) -> dict[str, Told]:
    """No custodian gives its fragment: its log says why, and so does the machine; the passphrase opens."""

    def wait_for_entries() -> None:
        for custodian in place.custodians:
            custodian.wait_for_entry(entry)
            custodian.wait_until_alone()

    told = opened_by_passphrase(vm, place.scene.luks, wait_for_entries)
    for name in (EU, NO):
        assert re.search(rf"{name} \(custodian\): refused[^\n]*{words}\b", vm.run("dmesg").text)
    return told
