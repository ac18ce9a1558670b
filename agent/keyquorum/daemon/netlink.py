# SPDX-License-Identifier: Apache-2.0
"""The part of pyroute2 that reads the kernel's announcements, and nothing else of it.

The package's own module imports all it has: with that, keyquorumd takes six times as long to start, and 20 MB more for
as long as the machine is up. So the package is made known without running it; its parts import each other by name.
"""

from __future__ import annotations

import importlib.util
import sys

_PACKAGE = "pyroute2"

if _PACKAGE not in sys.modules:
    _found = importlib.util.find_spec(_PACKAGE)
    if _found is not None:
        sys.modules[_PACKAGE] = importlib.util.module_from_spec(_found)

from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]  # noqa: E402 # pyroute2 has no types
from pyroute2.netlink.nlsocket import NetlinkSocket  # type: ignore[import-untyped]  # noqa: E402 # as above
from pyroute2.netlink.uevent import UeventSocket  # type: ignore[import-untyped]  # noqa: E402 # as above

__all__ = ["NetlinkError", "NetlinkSocket", "UeventSocket"]
