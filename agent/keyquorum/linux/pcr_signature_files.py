# SPDX-License-Identifier: Apache-2.0
"""Where signed PCR policies are found: systemd's places, or those of the settings (docs/holders-tpm.md §5)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = "tpm2-pcr-signature.json"
# systemd's search path; /.extra is where systemd-stub puts what a unified kernel image carries
DIRECTORIES = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/.extra")


def contents(paths: tuple[str, ...], limit: int) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) of every signature file that can be read, up to one byte more than `limit`."""
    for path in paths or tuple(os.path.join(directory, _NAME) for directory in DIRECTORIES):
        try:
            with open(path, "rb") as file:
                yield path, file.read(limit + 1)
        except OSError:
            continue
