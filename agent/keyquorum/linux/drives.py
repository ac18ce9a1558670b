# SPDX-License-Identifier: Apache-2.0
"""Which drives a block device is on: what is lost, or taken away, together."""

from __future__ import annotations

import os

from keyquorum.linux import block


def drives_below(device: str) -> frozenset[str]:
    """Return the kernel's names of the drives that a block device is on, none for anything else."""
    directory = block.sysfs_directory(device)
    return below(directory) if directory else frozenset()


def below(directory: str, depth: int = 8) -> frozenset[str]:
    """Go from a partition's directory in sysfs to its disk's, from a mapping's or array's to those of its members."""
    if os.path.exists(f"{directory}/partition"):
        return below(os.path.dirname(directory), depth)
    try:
        members = os.listdir(f"{directory}/slaves")
    except OSError:
        members = []
    if not members or not depth:
        return frozenset({os.path.basename(directory)})
    return frozenset().union(*(below(os.path.realpath(f"{directory}/slaves/{name}"), depth - 1) for name in members))
