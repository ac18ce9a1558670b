# SPDX-License-Identifier: Apache-2.0
"""Putting a volume under a quorum, and taking it out again, one step a file (docs/enrolment.md)."""
