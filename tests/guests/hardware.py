# SPDX-License-Identifier: Apache-2.0
"""What a machine is made of, and the words QEMU wants for it."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

OVMF_CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
_RELAY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "relay.py")
OVMF_VARS = "/usr/share/OVMF/OVMF_VARS_4M.fd"
LONGEST_SERIAL = 20  # virtio-blk's field
HOTPLUG_SLOTS = 4

# Five-level page tables cost a third of the CPU time under TCG. Do not turn svm off with them on: QEMU 7.2 then makes
# mounts fail at random. Instructions for AES, for whole strings and on 256 bits are slower there than the plain ones
# that kernel and libc have in their place: without them the system on an encrypted root is up in two thirds of the time.
CPU = "max,la57=off,aes=off,erms=off,avx2=off"

# Each machine has one processor. With a thread for each of two, QEMU 7.2 now and then runs an int3 that the guest's kernel
# has just patched away, and the kernel panics; with one thread for both, whoever waits for the other one spins for the
# rest of its turn, which costs a boot a tenth of its time. Tests run side by side anyway.
EMULATION = "tcg,thread=single,tb-size=512"

# As Debian's kernel has it, without "bpf" at the end: systemd needs 2 s under TCG to load its one program there.
_LSM = "lsm=landlock,lockdown,yama,loadpin,safesetid,integrity,apparmor"

# Libraries and programs at the same addresses in every process: what QEMU translated for one then serves the others,
# and the system is up in three quarters of the time.
_ONE_LAYOUT = "norandmaps"


def kernel_cmdline(root: str, *more: str) -> str:
    """A kernel command line for a root device, with the console that Machine reads."""
    return " ".join([f"root={root} rw console=ttyS0", _LSM, _ONE_LAYOUT, *more])


@dataclass(frozen=True)
class Disk:
    """A disk by its serial number, which names it in the guest whatever the order of probing.

    `path` is an image, or the unix socket of an NBD server with format "nbd". With cache "writethrough" each write is
    on the host's file when the guest hears of it, and on the host's disk; "unsafe" never waits for the host's disk, which
    is right wherever only QEMU is killed, unless the format is qcow2, whose tables QEMU then keeps to itself.
    """

    path: str
    serial: str
    format: Literal["raw", "qcow2", "nbd"] = "raw"
    cache: Literal["writethrough", "writeback", "none", "unsafe"] = "unsafe"
    bus: Literal["virtio", "scsi"] = "virtio"
    read_only: bool = False

    def __post_init__(self) -> None:
        if not self.serial.isascii() or not 0 < len(self.serial) <= LONGEST_SERIAL:
            raise ValueError(f"a serial number has 1 to {LONGEST_SERIAL} characters: {self.serial!r}")

    @property
    def device(self) -> str:
        """Its name in the guest, once udev has seen it."""
        kind = "virtio-" if self.bus == "virtio" else "scsi-0QEMU_QEMU_HARDDISK_"
        return f"/dev/disk/by-id/{kind}{self.serial}"

    @property
    def node(self) -> str:
        """The name of its image inside QEMU."""
        return f"node-{self.serial}"

    @property
    def name(self) -> str:
        """The name of its device inside QEMU."""
        return f"disk-{self.serial}"

    def blockdev(self) -> dict[str, Any]:
        """QEMU's description of the image."""
        common = {"node-name": self.node, "read-only": self.read_only}
        cache = {"direct": self.cache == "none", "no-flush": self.cache == "unsafe"}
        if self.format == "nbd":
            return {"driver": "nbd", "server": {"type": "unix", "path": self.path}, "cache": cache, **common}
        file = {"driver": "file", "filename": os.path.abspath(self.path), "cache": cache, "read-only": self.read_only}
        return {"driver": self.format, "file": file, "cache": cache, **common}

    def attachment(self, slot: str | None = None) -> dict[str, Any]:
        """QEMU's description of the device, in a hot-plug slot or where there is room."""
        write_cache = "off" if self.cache == "writethrough" else "on"
        device = {"drive": self.node, "id": self.name, "serial": self.serial, "write-cache": write_cache}
        if self.bus == "scsi":
            return {"driver": "scsi-hd", "bus": "scsi.0", **device}
        return {"driver": "virtio-blk-pci", **device, **({"bus": slot} if slot else {})}


@dataclass(frozen=True)
class Network:
    """QEMU's user network: the guest sees the host's loopback as 10.0.2.2.

    `forwards` maps ports of the host's loopback to ports of the guest (DHCP gives the guest 10.0.2.15). With
    `isolated`, the guest reaches nothing but the `services`: (guest-side address, port) to a port on the host's
    loopback, by a relay of its own for each connection, so that who listens there may come late and go.
    """

    forwards: tuple[tuple[int, int], ...] = ()
    services: tuple[tuple[str, int, int], ...] = ()
    isolated: bool = False

    def arguments(self) -> list[str]:
        """QEMU's options."""
        parts = ["user,id=net", f"restrict={'on' if self.isolated else 'off'}"]
        parts += [f"hostfwd=tcp:127.0.0.1:{host}-:{guest}" for host, guest in self.forwards]
        relay = f"{sys.executable} -IS {_RELAY}"
        parts += [f"guestfwd=tcp:{address}:{port}-cmd:{relay} {host}" for address, port, host in self.services]
        return ["-netdev", ",".join(parts), "-device", "virtio-net-pci,netdev=net,romfile="]


def channels(descriptors: Mapping[str, int]) -> list[str]:
    """Console, QMP and agent on inherited sockets: no paths, and no byte is lost before somebody listens."""
    options: list[str] = []
    for name, descriptor in descriptors.items():
        options += ["-chardev", f"socket,id={name},fd={descriptor}"]
    options += ["-serial", "chardev:console", "-mon", "chardev=qmp,mode=control"]
    port = "virtserialport,chardev=agent,name=org.keyquorum.guests.agent"
    return [*options, "-device", "virtio-serial-pci", "-device", port]


def disks_and_slots(disks: tuple[Disk, ...]) -> list[str]:
    """The disks in order, and room to plug in more."""
    options: list[str] = []
    for number in range(HOTPLUG_SLOTS):
        options += ["-device", f"pcie-root-port,id=slot{number},chassis={number + 1},slot={number + 1}"]
    options += ["-device", "virtio-scsi-pci,id=scsi"]
    for disk in disks:
        options += ["-blockdev", json.dumps(disk.blockdev()), "-device", json.dumps(disk.attachment())]
    return options


def firmware(variables: str | None) -> list[str]:
    """OVMF with this variable store; without one, SeaBIOS, which is quick and measures nothing worth binding to."""
    if variables is None:
        return []
    code = {"driver": "file", "filename": OVMF_CODE, "node-name": "ovmf-code", "read-only": True}
    store = {"driver": "file", "filename": os.path.abspath(variables), "node-name": "ovmf-vars"}
    blocks = ["-blockdev", json.dumps(code), "-blockdev", json.dumps(store)]
    return [*blocks, "-machine", "pflash0=ovmf-code,pflash1=ovmf-vars"]
