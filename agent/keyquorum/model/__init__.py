# SPDX-License-Identifier: Apache-2.0
"""The nouns of keyquorum as plain data, with one strict reader for each that is stored or received (I7)."""
