# SPDX-License-Identifier: Apache-2.0
"""The guest in which openings are compared: one Debian 13, one TPM, equal volumes, each enrolled with one tool.

Every volume is 32 MiB of LUKS2, aes-xts-plain64 with 512 bits, PBKDF2 with 1000 iterations for keyslots and digest, so
that no volume pays for a slow derivation. Tang servers, custodians and the TPM emulator run natively on the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from boots import host_custodian
from boots.enrolled import package
from boots.host_custodian import Custodian
from guests import disk_image
from guests.hardware import Disk, Network, kernel_cmdline
from guests.luks_image import TEST_VOLUME, format_luks
from guests.machine import Machine
from guests.nbd_server import NbdServer
from guests.places import run_directory, socket_path
from guests.recipe import PEERS
from guests.root_tree import Tree, guest_tree, variant
from guests.swtpm import TpmState, tpm_on_loopback

from .tang import GUEST_SEES_HOST_AT, tang_server
from .tell import say

_HERE = os.path.dirname(os.path.abspath(__file__))
VOLUME_SIZE = 32 << 20
FRAGMENT_SIZE = 8 << 20
SLOW = 900.0
VOLUMES = (
    *("keyfile", "clevis", "systemd", "kq-three", "kq-token", "kq-tpm", "kq-disks", "kq-absent", "kq-virtual"),
    *("kq-measured", "kq-custodians", "kq-mute"),
)
FRAGMENTS = ("frag-a", "frag-b")
SILENT, ABSENT = "frag-n", "frag-u"
EU, NO, MUTE = "eu", "no", "mute"  # custodians; the last one falls silent after the enrolment
KEY_FILE, PIN_FILE, PIN = "/root/passphrase", "/root/pin", "1234"

_HOLDERS = {
    **{name: f'kind = "disk"\ndevice = "/dev/disk/by-id/virtio-{name}-part1"' for name in (*FRAGMENTS, SILENT, ABSENT)},
    "tpm": 'kind = "tpm"\npcrs = [7]',
    "token": 'kind = "pkcs11"\nuri = "pkcs11:token=bench;object=keyquorum"',
    **{name: host_custodian.holder(name).partition("\n")[2].rstrip() for name in (EU, NO, MUTE)},
}
POLICIES = {
    "kq-three": ("frag-a", "tpm", "frag-b"),
    "kq-token": ("frag-a", "tpm", "token"),
    "kq-disks": ("frag-a", "frag-b", SILENT),
    "kq-absent": ("frag-a", "frag-b", ABSENT),
    "kq-tpm": ("tpm",),
    "kq-virtual": ("frag-a", "tpm", "frag-b"),
    "kq-measured": ("frag-a", "tpm", "frag-b"),
    "kq-custodians": ("tpm", EU, NO),
    "kq-mute": ("tpm", MUTE, NO),
}
# Those whose TPM is virtual_tpm.py, which can fall silent. One asks it as a holder only; the other, as by default, has
# the opening recorded in its PCR 15 too, for which an unlock waits up to five seconds.
_ON_VIRTUAL = ("kq-virtual", "kq-measured")
CONFIG, VIRTUAL_CONFIG = "/etc/keyquorum/keyquorum.conf", "/root/virtual.conf"
# An emulated guest on a busy host is no holder that has fallen silent; one that really is must cost nothing anyway.
_PATIENT = f"sed -i '/^holder_timeout/d' {CONFIG} && printf '%s = 60\\n' holder_timeout custodian_timeout >>{CONFIG}"
_VIRTUAL = f"""
modprobe tpm_vtpm_proxy
systemd-run --quiet --unit=virtual-tpm /usr/bin/python3 -IS /root/virtual_tpm.py {GUEST_SEES_HOST_AT} PORT
udevadm wait --timeout=60 /dev/tpmrm1
cp {CONFIG} {VIRTUAL_CONFIG}
echo tpm_device = /dev/tpmrm1 >>{VIRTUAL_CONFIG}
"""
_TOKEN = f"""
softhsm2-util --init-token --free --label bench --pin {PIN} --so-pin 5678
pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --token-label bench --login --pin {PIN} \
    --keypairgen --key-type rsa:2048 --label keyquorum --id 01
"""


@dataclass(frozen=True)
class Scenery:
    """The running guest and what around it can be made to fail."""

    vm: Machine
    silent: NbdServer
    tang_urls: tuple[str, str]
    custodians: Mapping[str, Custodian]


def device(name: str) -> str:
    """Where the guest has a volume."""
    return f"/dev/disk/by-id/virtio-{name}"


def _uuid(volume: str) -> str:
    return f"6b657971-756f-4d75-ad74-62656e6368{VOLUMES.index(volume):02x}"


def policy(name: str) -> str:
    """The policy of a volume, as its administrator would write it."""
    holders = POLICIES[name]
    lines = ["version = 1", f"threshold = {min(2, len(holders))}", f"of = {json.dumps(holders)}"]
    lines += [f"[holder.{holder}]\n{_HOLDERS[holder]}" for holder in holders]
    if len(holders) == 1:
        lines += ["[volume]", "allow_single_holder = true"]
    if name == "kq-virtual":
        lines += ["[volume]", "measure_pcr = -1"]
    return "\n".join(lines) + "\n"


def tree() -> Tree:
    """Debian 13 with clevis, tang, systemd-cryptsetup and our package."""
    return variant(guest_tree(extra=PEERS), "bench-guest", debs=[package()], initramfs=False)


@contextlib.contextmanager
def scenery(directory: str) -> Iterator[Scenery]:
    """The guest, up and with its network, nothing enrolled yet."""
    root = disk_image.overlay(disk_image.root_image(tree()), os.path.join(directory, "root.qcow2"))
    disks = [Disk(root, "root", format="qcow2")]
    for name in VOLUMES:
        image = disk_image.empty_image(os.path.join(directory, f"{name}.img"), VOLUME_SIZE)
        format_luks(image, replace(TEST_VOLUME, uuid=_uuid(name)))
        disks.append(Disk(image, name))
    for name in (*FRAGMENTS, SILENT, ABSENT):
        disk_image.empty_image(os.path.join(directory, f"{name}.img"), FRAGMENT_SIZE)
    disks += [Disk(os.path.join(directory, f"{name}.img"), name) for name in FRAGMENTS]
    with contextlib.ExitStack() as stack:
        urls = (stack.enter_context(tang_server(tree())), stack.enter_context(tang_server(tree())))
        path = socket_path(stack.enter_context(run_directory()), SILENT)
        server = stack.enter_context(NbdServer(os.path.join(directory, f"{SILENT}.img"), path, name=SILENT))
        machine = Machine(
            kernel=tree().kernel,
            initrd=tree().initrd,
            cmdline=kernel_cmdline("/dev/disk/by-id/virtio-root"),
            disks=[*disks, server.disk(SILENT)],
            tpm=TpmState.create(os.path.join(directory, "tpm")),
            network=Network(),
        )
        say("starting the guest")
        vm = stack.enter_context(machine)
        vm.wait_boot(SLOW)
        vm.plug(Disk(os.path.join(directory, f"{ABSENT}.img"), ABSENT))
        vm.run(f"udevadm wait --timeout=60 {device(ABSENT)}", timeout=90)
        vm.run("nic=$(ls /sys/class/net | grep -v lo); ip address add 10.0.2.15/24 dev $nic; ip link set $nic up")
        vm.put(KEY_FILE, TEST_VOLUME.passphrase, mode=0o600)
        vm.put(PIN_FILE, PIN.encode(), mode=0o600)
        vm.run(_PATIENT)
        chip = TpmState.create(os.path.join(directory, "tpm-virtual"))
        _, address = stack.enter_context(tpm_on_loopback(chip))
        with open(os.path.join(_HERE, "virtual_tpm.py"), "rb") as file:
            vm.put("/root/virtual_tpm.py", file.read())
        vm.run(_VIRTUAL.replace("PORT", address.rpartition("=")[2]), timeout=SLOW)
        custodians = {name: host_custodian.new(name, directory) for name in (EU, NO, MUTE)}
        for custodian in custodians.values():
            custodian.found()
        for name in (EU, NO):
            stack.enter_context(custodians[name].serving())
        yield Scenery(vm, server, urls, custodians)


@contextlib.contextmanager
def mute(scene: Scenery) -> Iterator[None]:
    """For the length of the block the third custodian takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", scene.custodians[MUTE].port)):
        yield


def enrol(scene: Scenery) -> dict[str, float]:
    """Enrol every volume with its tool; gives the seconds that each took by the guest's clock."""
    with scene.custodians[MUTE].serving():
        _enrol_machine(scene)
        seconds = _enrol_volumes(scene.vm)
    scene.vm.unplug(ABSENT)
    return seconds | _enrol_by_peers(scene)


def _enrol_machine(scene: Scenery) -> None:
    say("enrolling the machine at its custodians")
    host_custodian.write_reference(scene.vm)
    for name, custodian in scene.custodians.items():
        volumes = tuple(_uuid(volume) for volume, holders in POLICIES.items() if name in holders)
        host_custodian.enrol_machine(scene.vm, custodian, f"{GUEST_SEES_HOST_AT}:{custodian.port}")
        host_custodian.write_release(scene.vm, name, volumes)


def _enrol_volumes(vm: Machine) -> dict[str, float]:
    for name in (*FRAGMENTS, SILENT, ABSENT):
        vm.run(f"keyquorum holder init-disk {device(name)} --yes && udevadm settle", timeout=SLOW)
    vm.run(_TOKEN, timeout=SLOW)
    seconds = {}
    for name in POLICIES:
        say(f"enrolling {name}")
        vm.put(f"/root/{name}.toml", policy(name).encode())
        command = f"keyquorum enroll {device(name)} --policy /root/{name}.toml --key-file {KEY_FILE} --yes"
        pin = f"--pin-fd token=9 9<{PIN_FILE}" if name == "kq-token" else ""
        config = f"KEYQUORUM_CONFIG={VIRTUAL_CONFIG}" if name in _ON_VIRTUAL else ""
        seconds[name] = _timed(vm, f"{config} {command} --no-boot-image {pin}")
    return seconds


def _enrol_by_peers(scene: Scenery) -> dict[str, float]:
    vm, seconds = scene.vm, {}
    tangs = [{"url": url} for url in scene.tang_urls]
    config = json.dumps({"t": 2, "pins": {"tpm2": {"pcr_bank": "sha256", "pcr_ids": "7"}, "tang": tangs}})
    seconds["clevis"] = _timed(vm, f"clevis luks bind -y -k {KEY_FILE} -d {device('clevis')} sss '{config}'")
    vm.run(f"cryptsetup config --priority prefer --key-slot 1 {device('clevis')}")
    options = f"--tpm2-device=/dev/tpmrm0 --tpm2-pcrs=7 --unlock-key-file={KEY_FILE}"
    seconds["systemd"] = _timed(vm, f"systemd-cryptenroll {options} {device('systemd')}")
    return seconds


def _timed(vm: Machine, command: str) -> float:
    clock = "cut -d' ' -f1 /proc/uptime"
    said = vm.run(
        f"{clock}; ({command}) >/root/last.log 2>&1 || {{ cat /root/last.log; exit 1; }}; {clock}", timeout=SLOW
    )
    before, after = said.text.split()
    return float(after) - float(before)
