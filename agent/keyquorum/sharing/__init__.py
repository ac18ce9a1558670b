# SPDX-License-Identifier: Apache-2.0
"""Pure mathematics of sharing a secret: no I/O, no clock, no randomness of its own (docs/sharing.md)."""
