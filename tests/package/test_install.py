# SPDX-License-Identifier: Apache-2.0
"""What installing, upgrading, removing and purging do to a real Debian, with its own dpkg and update-initramfs."""

import os
import shutil
from pathlib import Path

import pytest

from guests.chroot import Chroot
from guests.errors import ToolError
from guests.guest_file import File
from guests.root_tree import copy_tree, root_tree

ANCHOR = "/etc/keyquorum/volumes/81822354-27dd-4cc9-9230-bfcb55bdb4f2.json"
SCENARIO = r"""
set -e
mkdir /root/play; cd /root/play
for disk in a b c; do truncate -s 2M disk-$disk; keyquorum holder init-disk --yes --json disk-$disk; done
truncate -s 64M volume
printf 'correct horse' >key
cat >policy.toml <<END
version = 1
threshold = 2
of = ["a", "b", "c", "paper"]
[holder.a]
kind = "disk"
device = "/root/play/disk-a"
[holder.b]
kind = "disk"
device = "/root/play/disk-b"
[holder.c]
kind = "disk"
device = "/root/play/disk-c"
[holder.paper]
kind = "sheet"
END
keyquorum policy check policy.toml
keyquorum create volume --policy policy.toml --key-file key --yes --no-boot-image --sheet-dir .
keyquorum check volume --no-prompt --json
cryptsetup luksDump volume | grep keyquorum
keyquorum unenroll volume --yes --no-boot-image
rm -r /root/play /etc/keyquorum/owner.key
"""


@pytest.fixture(scope="module", params=["trixie", "bookworm"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chroot:
    """A Debian of one's own, with what the package depends on."""
    root = str(tmp_path_factory.mktemp(request.param) / "root")
    copy_tree(root_tree(request.param), root)
    chroot = Chroot(root)
    chroot.write("/etc/initramfs-tools/conf.d/fast", File(b"COMPRESSLEVEL=1\n"))
    return chroot


def images(system: Chroot) -> dict[str, tuple[int, int]]:
    """The boot images, and what changes when one is made anew."""
    boot = Path(system.host_path("/boot"))
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in boot.glob("initrd.img-*")}


def left(system: Chroot) -> list[str]:
    """Everything on the system that bears our name."""
    root = Path(system.path)
    kept = [root / name for name in ("usr", "etc", "var/lib", "lib", "run")]
    found = [path for folder in kept for path in folder.rglob("*keyquorum*")]
    return sorted(str(path.relative_to(root)) for path in found if "dpkg" not in path.parts)


def installed(system: Chroot) -> bool:
    """Whether dpkg says so."""
    try:
        return system.run(["dpkg-query", "-W", "-f", "${Status}", "keyquorum"]) == b"install ok installed"
    except ToolError:
        return False


def test_the_life_of_a_package(system: Chroot, package: Path) -> None:
    """One test, because each step starts from what the one before left."""
    stock = images(system)
    assert stock
    system.install([str(package)])
    assert installed(system)
    assert images(system) == stock, "nothing is enrolled, so no image had to be made"
    assert system.run(["keyquorum", "--version"]).startswith(b"keyquorum ")
    system.run(["sh", "-c", SCENARIO])
    assert images(system) == stock
    caches = list(Path(system.host_path("/usr/lib/keyquorum")).rglob("__pycache__"))
    assert any("unlock" in path.parts for path in caches)

    system.write("/etc/keyquorum/keyquorum.conf", File(b"holder_timeout = 7\n"))
    system.write(ANCHOR, File(b"{}"))
    system.install([str(package)])
    upgraded = images(system)
    assert upgraded != stock, "an upgrade reaches the images that open volumes"
    assert system.read("/etc/keyquorum/keyquorum.conf") == b"holder_timeout = 7\n"

    system.run(["dpkg", "--remove", "keyquorum"])
    removed = images(system)
    assert removed != upgraded, "no image may open volumes when the package is gone"
    enabled = [path for path in left(system) if "keyquorumd.service" in path]  # systemd's memory, until the purge
    assert set(left(system)) - set(enabled) == {"etc/keyquorum", "etc/keyquorum/keyquorum.conf"}

    system.run(["dpkg", "--purge", "keyquorum"])
    assert images(system) == removed
    assert system.read(ANCHOR) == b"{}", "a volume is enrolled: what it needs is kept"
    assert left(system) == ["etc/keyquorum"]


def test_purging_leaves_nothing_when_nothing_is_enrolled(system: Chroot, package: Path) -> None:
    if os.path.exists(system.host_path(ANCHOR)):
        os.unlink(system.host_path(ANCHOR))
    before = images(system)
    system.install([str(package)])
    system.write("/etc/keyquorum/owner.key", File(b"x", 0o600))
    system.write("/var/lib/keyquorum/collateral/ask.pem", File(b"x"))
    system.write("/var/lib/systemd/timers/stamp-keyquorum-renew.timer", File(b""))
    system.run(["systemctl", "enable", "keyquorum-custodian.service"])
    system.run(["dpkg", "--purge", "keyquorum"])
    assert left(system) == []
    assert images(system) == before


@pytest.mark.parametrize("way", ["by the settings", "by a link"])
def test_anchors_elsewhere_count_as_well(system: Chroot, package: Path, way: str) -> None:
    """dpkg takes the settings away before a purge; what the owner needs is kept all the same."""
    shutil.rmtree(system.host_path("/etc/keyquorum"), ignore_errors=True)
    system.install([str(package)])
    system.write("/etc/keyquorum/owner.key", File(b"x", 0o600))
    if way == "by the settings":
        system.write("/etc/keyquorum/keyquorum.conf", File(b"  volumes = /srv/anchors  # on another disk\n"))
    else:
        os.symlink("../../srv/anchors", system.host_path("/etc/keyquorum/volumes"))
    system.write(f"/srv/anchors/{os.path.basename(ANCHOR)}", File(b"{}"))
    system.run(["dpkg", "--remove", "keyquorum"])
    system.run(["dpkg", "--purge", "keyquorum"])
    assert system.read("/etc/keyquorum/owner.key") == b"x"
    shutil.rmtree(system.host_path("/srv/anchors"))
    system.install([str(package)])
    system.run(["dpkg", "--purge", "keyquorum"])
    assert left(system) == [], "once nothing is enrolled, nothing is kept"


def test_what_a_custodian_holds_for_others_is_not_purged(system: Chroot, package: Path) -> None:
    held = "/var/lib/keyquorum-custodian/custodian.toml"
    system.install([str(package)])
    system.write(held, File(b"version = 1\n", 0o600))
    system.run(["dpkg", "--purge", "keyquorum"])
    assert system.read(held) == b"version = 1\n"
    shutil.rmtree(system.host_path(os.path.dirname(held)))
