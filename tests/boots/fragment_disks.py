# SPDX-License-Identifier: Apache-2.0
"""The fragment disks of a machine that runs."""

from collections.abc import Iterable

from guests.machine import Machine


def init_fragment_disks(vm: Machine, names: Iterable[str]) -> None:
    """Make the machine's disks of these serial numbers fragment disks, and wait until udev has seen them."""
    for name in names:
        vm.run(f"keyquorum holder init-disk /dev/disk/by-id/virtio-{name} --yes")
        vm.run(f"udevadm wait --timeout=40 /dev/disk/by-id/virtio-{name}-part1")
