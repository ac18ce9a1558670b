# SPDX-License-Identifier: Apache-2.0
"""The only code that touches the machine: devices, headers, keyrings, programs, the console and the journal."""
