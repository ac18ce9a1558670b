# SPDX-License-Identifier: Apache-2.0
"""An enclave of software: SEV-SNP reports signed under test roots, for a custodian that runs on no such processor.

`python -m devices.enclave_stand_in DIRECTORY HOST PORT` makes a custodian in DIRECTORY (or goes on with the one that is
there) and serves it as an enclave; HOST may be vsock:any. `DIRECTORY/enclave` then has `roots.pem` (for `test_roots`)
and `appraisal.json` (for `keyquorum attest policy sign`); both are made anew at each start with DIRECTORY.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keyquorum.evidence.bundle import Bundle
from unit.evidence import snp_maker

if TYPE_CHECKING:
    from devices.custodian_site import Running

_DAY = dt.timedelta(days=1)


class SoftwareProcessor:
    """What `custodian.proving` calls a collector; its chip, authority and root live as long as this object."""

    by_tpm = False

    def __init__(self) -> None:
        now = dt.datetime.now(dt.UTC)
        valid = {"start": now - 2 * _DAY, "end": now + 3650 * _DAY}
        self.chain = snp_maker.Scene(leaf=valid, intermediate=valid, root=valid).certificates()
        self.report: dict[int, bytes] = {}  # what is to be wrong in it, by offset
        self.collected = 0

    def collect(self, nonce: bytes) -> Bundle:
        """Return a report with these 64 bytes."""
        self.collected += 1
        scene = snp_maker.Scene(report={0x50: nonce} | self.report)
        parts = {"report": scene.signed_report(), "certificates": b"".join(self.chain)}
        return Bundle(technology="snp", parts=parts)

    @property
    def roots(self) -> bytes:
        """The root in PEM."""
        return x509.load_der_x509_certificate(self.chain[2]).public_bytes(Encoding.PEM)

    @staticmethod
    def appraisal(**changes: Any) -> bytes:
        """A policy for it, unsigned."""
        now = int(time.time())
        return json.dumps(snp_maker.policy_table(issued=now - 3600, expires=now + 86400 * 365, **changes)).encode()


def main(words: list[str]) -> int:
    """Serve until standard input ends."""
    from devices.custodian_site import Running

    directory, host, port = words[0], words[1], int(words[2])
    processor = SoftwareProcessor()
    os.makedirs(os.path.join(directory, "enclave"), exist_ok=True)
    for name, data in (("roots.pem", processor.roots), ("appraisal.json", processor.appraisal())):
        with open(os.path.join(directory, "enclave", name), "wb") as file:
            file.write(data)
    with Running(directory, host=host, port=port) as running:
        prove(running, processor)
        print(f"serves {running.site.directory} at {host} port {running.port}", flush=True)
        select.select([sys.stdin], [], [])
    return 0


def prove(running: Running, processor: SoftwareProcessor | None) -> None:
    """Have a running custodian prove itself by this processor, or no more."""
    running.collector = processor
    running.endpoints.house = running.house()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
