# SPDX-License-Identifier: Apache-2.0
"""keyquorumd: watches volumes that wait at their prompt, and has them tried again (docs/daemon.md §3)."""
