# SPDX-License-Identifier: Apache-2.0
"""The Key Reconstruction Proxy: from a device to an open volume, one step a file (docs/boot.md)."""
