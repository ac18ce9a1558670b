# SPDX-License-Identifier: Apache-2.0
"""A custodian: what it decides, what it records and how others check that (docs/custodian.md). No boot imports this."""
