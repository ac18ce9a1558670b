# SPDX-License-Identifier: Apache-2.0
"""What each check asks, and what for, in words that need no specification (docs/attestation-command.md §5)."""
