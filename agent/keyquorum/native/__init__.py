# SPDX-License-Identifier: Apache-2.0
"""Thin ctypes bindings to the C libraries that the boot path uses; addresses in, addresses out."""
