# SPDX-License-Identifier: Apache-2.0
"""The Debian package: how it is made, what is in it, and what installing and removing it does."""
