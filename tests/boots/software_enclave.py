# SPDX-License-Identifier: Apache-2.0
"""`python -m boots.software_enclave DIRECTORY PORT [FAULT]`: a custodian as an enclave, on a processor of software.

One worker of `keyquorum custodian serve --evidence`, with SEV-SNP reports that are signed under test roots. The
processor's certificates are kept in DIRECTORY, with what a machine's owner needs: its roots and an appraisal policy.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys

from boots.host_custodian import ASKED
from devices.enclave_stand_in import SoftwareProcessor
from keyquorum.custodian import counters, proving, worker
from keyquorum.custodian.site import Site
from keyquorum.evidence.bundle import Bundle
from keyquorum.linux import listening

ROOTS, APPRAISAL = "roots.pem", "appraisal.json"
_CHAIN = "processor-{}.der"
_DEBUG = 1 << 19
_SAFE = 1 << 17 | 1 << 20 | 0xF << 22 | 0x0131
_ABOVE = 100  # descriptors that nobody takes
FAULTS: dict[str, dict[int, bytes]] = {
    "": {},
    "measurement": {0x90: bytes(48)},
    "debug": {0x08: (_SAFE | _DEBUG).to_bytes(8, "little")},
    "nonce": {},
}


class Processor(SoftwareProcessor):
    """The one that is kept in a directory; made there at first."""

    def __init__(self, directory: str, fault: str) -> None:
        super().__init__()
        paths = [os.path.join(directory, _CHAIN.format(number)) for number in range(len(self.chain))]
        if os.path.exists(paths[0]):
            self.chain = tuple(_read(path) for path in paths)
        else:
            for path, data in zip(paths, self.chain, strict=True):
                _write(path, data)
            _write(os.path.join(directory, ROOTS), self.roots)
            _write(os.path.join(directory, APPRAISAL), self.appraisal())
        self.report, self._stale = FAULTS[fault], fault == "nonce"
        self._asked = os.path.join(directory, ASKED)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._asked)

    def collect(self, nonce: bytes) -> Bundle:
        """Return a report with these 64 bytes, or, if that is its fault, with those of another question."""
        _write(self._asked, b"")
        return super().collect(bytes(len(nonce)) if self._stale else nonce)


def main(directory: str, port: str, fault: str = "") -> int:
    """Serve until somebody ends this process."""
    processor = Processor(directory, fault)
    proving.collector = lambda _source, _tpm: processor  # type: ignore[assignment]  # who else would vouch for us here
    lifeline, kept = os.pipe()
    counted, _ = counters.make(1)
    listener = listening.bound("127.0.0.1", int(port))
    given = [fcntl.fcntl(number, fcntl.F_DUPFD, _ABOVE) for number in (lifeline, counted, listener.fileno(), kept)]
    for number, wanted in zip(given, (worker.LIFELINE, worker.COUNTERS, worker.SOCKETS), strict=False):
        os.dup2(number, wanted)
    return worker.Worker(Site(directory), 0, 1, "tsm").serve(1)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
