# SPDX-License-Identifier: Apache-2.0
"""Real machines for tests: Debian roots, disks, TPMs, power cuts and silent devices under QEMU. Start at README.md."""
