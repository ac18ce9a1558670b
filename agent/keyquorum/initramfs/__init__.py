# SPDX-License-Identifier: Apache-2.0
"""What a boot image must carry: asked by the initramfs hook, answered from the volumes' policies (docs/boot.md §2)."""
