# SPDX-License-Identifier: Apache-2.0
"""keyquorum: a LUKS2 volume opens from any k of n fragments, and no single place holds its key."""

__version__ = "0.1.0"
