# SPDX-License-Identifier: Apache-2.0
"""Speed and size against the peers, as ratios measured in one run: `make bench`. Start at main.py and table.py."""
