# SPDX-License-Identifier: Apache-2.0
"""Speed and size against the peers, as ratios measured in one run: `make bench`. Start at __main__.py and table.py."""
