# SPDX-License-Identifier: Apache-2.0
"""Signing (DSSE), sealing (HPKE) and wrapping; everything that leaves a process passes here."""
