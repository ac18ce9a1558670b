# SPDX-License-Identifier: Apache-2.0
"""Building and unpacking the package as a user does: by the program, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = (
    "agent",
    "docs",
    "hooks",
    "packaging",
    "systemd",
    "udev",
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
)


def build(checkout: Path, output: Path, *, umask: int = 0o022, **environment: str) -> Path:
    """Build in a checkout; return the package's path."""
    program = [sys.executable, str(checkout / "packaging/build_deb.py"), str(output)]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, umask=umask, env={**os.environ, **environment})
    (package,) = output.glob("keyquorum_*_amd64.deb")
    return package


def unpack(package: Path, directory: Path) -> None:
    """Unpack a package, its control files in DEBIAN."""
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(directory)], check=True)
