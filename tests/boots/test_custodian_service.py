# SPDX-License-Identifier: Apache-2.0
"""A custodian on the machine that it serves: as a newcomer tries it by the README, and as systemd runs it.

One running machine, thawed, with a real device mapper. The tests build on each other in the order of this file.
"""

import json
import os
from collections.abc import Iterator

import pytest

from boots import host_custodian
from boots.data_volume import CONTENT, Volume, data_tree, volume_image
from boots.enrolled import package
from boots.host_custodian import MACHINE
from boots.person import fenced_commands
from guests.hardware import Disk
from guests.machine import Machine
from guests.places import REPOSITORY
from guests.warm import warm_machine

TRIED, SERVED = Volume("tried", ""), Volume("served", "")
SECONDS = 300.0  # a quote, a handshake and a stretched passphrase, all under emulation
STATE = "/var/lib/keyquorum-custodian"
UNITS = "keyquorum-custodian.socket keyquorum-custodian.service"
POLICY = f"""\
version = 1
threshold = 2
of = ["tpm", "eu"]
[holder.tpm]
kind = "tpm"
{host_custodian.holder("eu")}"""


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    directory = str(tmp_path_factory.mktemp("custodian-service"))
    with warm_machine(data_tree(), directory, prepare="modprobe dm-crypt") as vm:
        vm.run("echo custodian_timeout = 120 >>/etc/keyquorum/keyquorum.conf")  # slow here, not silent
        for volume in (TRIED, SERVED):
            vm.plug(Disk(volume_image(os.path.join(directory, volume.name), volume.luks, volume.name), volume.name))
            vm.run(f"udevadm wait --timeout=40 /dev/disk/by-uuid/{volume.luks.uuid}")
            vm.put(f"/root/{volume.name}.passphrase", volume.luks.passphrase, mode=0o600)
        yield vm


def opens(vm: Machine, volume: Volume) -> None:
    """The volume opens from its fragments, holds what it held, and is closed again."""
    name = volume.name
    vm.run(f"keyquorum unlock UUID={volume.luks.uuid} --name {name} --no-prompt", timeout=SECONDS)
    assert vm.run(f"mount -o ro /dev/mapper/{name} /mnt && cat /mnt/content && umount /mnt").output == (
        CONTENT.format(name).encode()
    )
    vm.run(f"cryptsetup close {name}")


def stays_closed(vm: Machine, volume: Volume) -> None:
    """The quorum is not reached without the custodian."""
    words = f"keyquorum unlock UUID={volume.luks.uuid} --name {volume.name} --no-prompt --timeout 60"
    assert vm.run(words, timeout=SECONDS, check=False).code == 3


def shown(vm: Machine, unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit."""
    said = vm.run(["systemctl", "show", f"--property={','.join(names)}", unit]).text
    return dict(line.split("=", 1) for line in said.splitlines())


def test_following_only_the_readme(vm: Machine) -> None:
    with open(os.path.join(REPOSITORY, "README.md"), encoding="utf-8") as file:
        blocks = fenced_commands(file.read(), "A custodian, tried on one machine")
    for line in "\n".join(blocks).splitlines():
        words = line.removesuffix(" &").replace("/dev/vdb", f"/dev/disk/by-uuid/{TRIED.luks.uuid}")
        if line.endswith(" &"):
            serve = f"systemd-run --quiet --unit=trial --working-directory=/root {words}"
            vm.run(f"{serve}\nuntil journalctl -u trial | grep -q ' serves, by '; do sleep 0.2; done", timeout=SECONDS)
        else:
            more = "--yes --key-file tried.passphrase" if " enroll " in words else ""
            done = vm.run(f"cd /root && {words} {more}", timeout=SECONDS)
            if " check " in words:
                assert b"would open: 2 of 2 fragments are valid" in done.output + done.errors
    opens(vm, TRIED)
    vm.run("systemctl stop trial")
    stays_closed(vm, TRIED)


def test_the_units_serve_and_an_operator_works_beside_them(vm: Machine) -> None:
    vm.run("keyquorum custodian init --origin eu.custodian.example --monitor none --unsafe-without-witnesses")
    vm.run(f"systemctl enable --now {UNITS}", timeout=SECONDS)
    assert shown(vm, "keyquorum-custodian", "ActiveState") == {"ActiveState": "active"}
    assert vm.run("ps -o user= -C keyquorum | sort -u; true").text != "root"

    # Root writes into the store that the service's own user has open, and neither is in the other's way.
    key = json.loads(vm.run("keyquorum machine show --json").output)["endorsement_key"]
    vm.run(f"cd /root && keyquorum custodian enroll-machine {MACHINE} --ek {key} --json >invitation", timeout=SECONDS)
    vm.run("cd /root && keyquorum machine enroll --invitation invitation --address localhost:8443", timeout=SECONDS)
    host_custodian.write_reference(vm)
    host_custodian.write_release(vm, "eu", (SERVED.luks.uuid,))
    vm.put("/root/policy.toml", POLICY.encode())
    words = "--policy /root/policy.toml --key-file /root/served.passphrase --yes --no-boot-image"
    vm.run(f"keyquorum enroll UUID={SERVED.luks.uuid} {words}", timeout=SECONDS)
    opens(vm, SERVED)
    owners = set(vm.run(f"find {STATE}/ -printf '%U %m\\n'").text.splitlines())
    assert len({line.split()[0] for line in owners}) == 1, owners
    assert not [line for line in owners if line.split()[1][-2:] != "00"], "others may read what a custodian keeps"


def test_it_goes_on_after_a_reload_and_a_restart_and_certificates_are_renewed_by_a_timer(vm: Machine) -> None:
    before = shown(vm, "keyquorum-custodian", "MainPID")
    vm.run("systemctl reload keyquorum-custodian", timeout=SECONDS)
    assert shown(vm, "keyquorum-custodian", "MainPID") == before
    opens(vm, SERVED)
    vm.run("systemctl restart keyquorum-custodian", timeout=SECONDS)
    opens(vm, SERVED)
    vm.run("systemctl start keyquorum-renew.service", timeout=SECONDS)
    assert shown(vm, "keyquorum-renew.service", "Result") == {"Result": "success"}
    vm.run(f"systemctl stop {UNITS}", timeout=SECONDS)
    stays_closed(vm, SERVED)


def test_a_new_version_and_a_removal_leave_it_to_its_administrator(vm: Machine) -> None:
    """It goes on with what was installed, ends with the package and is back with it: it was enabled all the time."""
    with open(package(), "rb") as file:
        vm.put("/root/keyquorum.deb", file.read())
    vm.run("echo update_initramfs=no >/etc/initramfs-tools/update-initramfs.conf")  # minutes here, and no boot follows
    vm.run(f"systemctl start {UNITS}", timeout=SECONDS)
    before = shown(vm, "keyquorum-custodian", "MainPID")
    vm.run("dpkg --install /root/keyquorum.deb", timeout=SECONDS)
    assert shown(vm, "keyquorum-custodian", "ActiveState") == {"ActiveState": "active"}
    assert shown(vm, "keyquorum-custodian", "MainPID") != before
    opens(vm, SERVED)
    vm.run("dpkg --remove keyquorum", timeout=SECONDS)
    assert not vm.run("ps -e -o args= | grep [k]eyquorum", check=False).text
    assert vm.run(f"ls {STATE}/custodian.toml").text
    vm.run("dpkg --install /root/keyquorum.deb", timeout=SECONDS)
    assert shown(vm, "keyquorum-custodian", "ActiveState") == {"ActiveState": "active"}
    opens(vm, SERVED)
