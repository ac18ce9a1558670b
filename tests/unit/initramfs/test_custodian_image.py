# SPDX-License-Identifier: Apache-2.0
"""What an image carries for custodians, and the scripts that bring their network up and down again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from keyquorum import settings
from keyquorum.holders.custodian_where import Where
from keyquorum.initramfs import main
from keyquorum.initramfs.wanted import BootVolume
from keyquorum.model.network_address import IPV4, Endpoint
from unit.model.objects import VOLUME_SET
from unit.model.test_machine_identity import IDENTITY

REPOSITORY = Path(__file__).resolve().parents[3]
NETWORK_UP = REPOSITORY / "hooks/initramfs-tools/network/network-up"
LOCAL_BOTTOM = REPOSITORY / "hooks/initramfs-tools/scripts/local-bottom/keyquorum"


def volume(custodian: str) -> BootVolume:
    where = Where(
        custodian=custodian,
        key=bytes(32),
        authority=b"x",
        addresses=(Endpoint(host="192.0.2.7", port=1, kind=IPV4),),
        bank="sha256",
        pcrs=(7,),
    )
    placement = VOLUME_SET.placements[0].with_(name="eu", kind="custodian", where=where.to_json())
    changed = VOLUME_SET.with_(placements=(placement, *VOLUME_SET.placements[1:]))
    return BootVolume(name="root", uuid=changed.volume, anchor="/a", volume_set=changed)


def lines(capsys: pytest.CaptureFixture[str], machine: Path, custodian: str) -> list[str]:
    image = machine.parent / "image"
    main._custodians([volume(custodian)], settings.parse(f"machine = {machine}"), str(image))
    assert (image / "etc/keyquorum/custodians").is_file()
    return capsys.readouterr().out.splitlines()


def test_what_is_put_in(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_bytes(IDENTITY.to_json())
    found = lines(capsys, file, "eu-1.example")
    assert f"file {file} {file}" in found
    assert "file /usr/lib/keyquorum/initramfs/network-up /usr/lib/keyquorum/network-up" in found
    assert "module af_packet" in found
    assert "module vsock" in found
    assert next(line for line in found if line.startswith("exec ")).endswith("/libssl.so.3")
    assert not [line for line in found if line.startswith("note ")]


def test_what_would_fail_at_the_next_boot_is_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_bytes(IDENTITY.to_json())
    assert "note eu of root: this machine is not enrolled at eu-2.example" in lines(capsys, file, "eu-2.example")
    file.write_text("{")
    assert any(line.startswith("note no custodian will be asked") for line in lines(capsys, file, "eu-1.example"))
    file.unlink()
    assert any("enrolled at no custodian" in line for line in lines(capsys, file, "eu-1.example"))


def test_drivers_of_the_interfaces_that_are_there(tmp_path: Path) -> None:
    for interface, driver in (("eth0", "virtio_net"), ("eth1", "virtio_net"), ("wlan0", "iwlwifi")):
        module = tmp_path / "modules" / driver
        module.mkdir(parents=True, exist_ok=True)
        device = tmp_path / "net" / interface / "device/driver"
        device.mkdir(parents=True)
        (device / "module").symlink_to(module)
    (tmp_path / "net/lo").mkdir()
    assert main._network_drivers(str(tmp_path / "net")) == ["virtio_net", "iwlwifi"]


class Image:
    """An initramfs in a directory: its scripts with their paths in it, and programs that write down their calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("run/keyquorum", "scripts", "etc", "bin", "sys/class/net/eth0/device", "sys/class/net/lo"):
            (root / name).mkdir(parents=True)
        self.program("ip", f'echo "ip $*" >>{root}/calls')
        self.functions(": >calls.network")

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def functions(self, text: str) -> None:
        """Be initramfs-tools', which end a script that does not say how quiet it is."""
        body = f"configure_networking() {{\n: ${{quiet?}}\ncd {self.root}\n{text}\n}}\n"
        (self.root / "scripts/functions").write_text(body)

    def run(self, script: Path, **environment: str) -> None:
        text = script.read_text()
        for path in ("/run/", "/scripts/", "/sys/", "/etc/"):
            text = text.replace(path, f"{self.root}{path}")
        made = self.root / "script"
        made.write_text(text)
        done = subprocess.run(
            ["/bin/sh", "-u", str(made)],
            env={"PATH": f"{self.root}/bin:{os.environ['PATH']}", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")

    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def there(self, name: str) -> bool:
        return (self.root / name).exists()


DHCP = "printf 'DEVICE=eth0\\nIPV4DNS0=192.0.2.53\\nIPV4DNS1=0.0.0.0\\n' >run/net-eth0.conf"


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


def test_up_and_down_again(image: Image) -> None:
    image.functions(DHCP)
    image.run(NETWORK_UP)
    assert (image.root / "etc/resolv.conf").read_text() == "nameserver 192.0.2.53\n"
    assert image.calls() == ["ip link set dev eth0 up"]
    assert not image.there("run/keyquorum/network-up")
    image.run(LOCAL_BOTTOM)
    assert image.calls()[1:] == ["ip addr flush dev eth0", "ip link set dev eth0 down"]
    assert not image.there("run/net-eth0.conf")


def test_a_resolver_that_is_set_up_already_is_kept(image: Image) -> None:
    image.functions(f"{DHCP}\necho nameserver 192.0.2.1 >etc/resolv.conf")
    image.run(NETWORK_UP)
    assert (image.root / "etc/resolv.conf").read_text() == "nameserver 192.0.2.1\n"


def test_a_network_that_somebody_wanted_stays_up(image: Image) -> None:
    image.functions(DHCP)
    image.run(NETWORK_UP, IP="dhcp")
    before = image.calls()
    image.run(LOCAL_BOTTOM)
    assert image.calls() == before
    assert image.there("run/net-eth0.conf")


def test_a_root_on_the_network_keeps_it(image: Image) -> None:
    image.functions(DHCP)
    image.run(NETWORK_UP)
    before = image.calls()
    image.run(LOCAL_BOTTOM, BOOT="nfs")
    assert image.calls() == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sys/class/iscsi_session/session1", ""),
        ("sys/block/nbd0/pid", "77"),
        ("sys/block/etherd!e1.1/size", "8"),
        ("sys/class/nvme/nvme1/transport", "tcp"),
        ("run/initramfs/open-iscsi.interface", "eth0"),
    ],
)
def test_a_disk_on_the_network_keeps_it(image: Image, name: str, text: str) -> None:
    """Its own script may have configured the network after we found it down, and needs no ip=."""
    image.functions(DHCP)
    image.run(NETWORK_UP)
    before = image.calls()
    path = image.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    image.run(LOCAL_BOTTOM)
    assert image.calls() == before
    assert image.there("run/net-eth0.conf")


def test_a_disk_on_the_bus_does_not(image: Image) -> None:
    image.functions(DHCP)
    image.run(NETWORK_UP)
    path = image.root / "sys/class/nvme/nvme0/transport"
    path.parent.mkdir(parents=True)
    path.write_text("pcie")
    image.run(LOCAL_BOTTOM)
    assert image.calls()[1:] == ["ip addr flush dev eth0", "ip link set dev eth0 down"]


@pytest.mark.parametrize("word", ["none", "off"])
def test_no_network_is_respected(image: Image, word: str) -> None:
    image.run(NETWORK_UP, IP=word)
    assert not image.there("calls.network")
    assert image.calls() == []


def test_one_at_a_time(image: Image) -> None:
    (image.root / "run/keyquorum/network-up").write_text(f"{os.getpid()}\n")
    image.run(NETWORK_UP)
    assert not image.there("calls.network")
    (image.root / "run/keyquorum/network-up").write_text("4194305\n")  # beyond the largest process number
    image.run(NETWORK_UP)
    assert image.there("calls.network")


def test_what_still_runs_is_ended_with_its_children(image: Image) -> None:
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 300 & wait"], start_new_session=True)
    (image.root / "run/keyquorum/network-up").write_text(f"{child.pid}\n")
    image.run(LOCAL_BOTTOM)
    assert child.wait(20) == -15
    assert not image.there("run/keyquorum/network-up")


def test_a_volume_may_be_called_network(image: Image) -> None:
    (image.root / "run/keyquorum/network.pid").write_text(f"{os.getpid()}\n")
    image.run(NETWORK_UP)
    assert image.there("calls.network")
    assert image.there("run/keyquorum/network.pid")
