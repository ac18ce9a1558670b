# SPDX-License-Identifier: Apache-2.0
"""One of the custodian's processes: serves on the sockets that its supervisor passed (docs/custodian.md §12).

python -m keyquorum.custodian.worker DIRECTORY ROW ROWS SOCKETS SOURCE, with descriptor 3 the supervisor's lifeline, 4
the counters and from 5 on the sockets. SOURCE is who gives evidence of this machine (docs/holders-enclave.md §5), ""
for none. It ends with its supervisor, whatever became of that.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from keyquorum import process, speech
from keyquorum.custodian import housekeeping, proving, server
from keyquorum.custodian.admission import Limits
from keyquorum.custodian.chores import Chores
from keyquorum.custodian.connection import Manner
from keyquorum.custodian.counters import Counters
from keyquorum.custodian.endpoints import Endpoints, House
from keyquorum.custodian.log_reading import Reader
from keyquorum.custodian.server import Server
from keyquorum.custodian.site import Site
from keyquorum.errors import KeyquorumError
from keyquorum.holders.contract import Tuning
from keyquorum.linux import listening
from keyquorum.linux.answers import LocalAnswers
from keyquorum.settings import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.custodian.sealing_key import SealingKey
    from keyquorum.settings import Settings

LIFELINE, COUNTERS, SOCKETS = 3, 4, 5


def tuning(settings: Settings) -> Tuning:
    """Return what of the machine's settings the place of the sealing key needs."""
    return Tuning(
        tpm_device=settings.tpm_device,
        pcr_signatures=settings.pcr_signature,
        pkcs11_modules=settings.pkcs11_module,
        reference_directory=settings.reference,
    )


class Worker:
    """What one process has open."""

    def __init__(self, site: Site, row: int, rows: int, source: str) -> None:
        self._site = site
        self._counters = Counters(COUNTERS, rows, row)
        settings = site.settings()
        answers = LocalAnswers(credentials=os.environ.get("CREDENTIALS_DIRECTORY", ""), keep=True)
        self._sealing: SealingKey = site.sealing(settings.origin, answers, tuning(load()))
        self._limits = Limits().shared(rows)
        self._collector = proving.collector(source, load().tpm_device) if source else None
        self._chores = Chores(housekeeping.chores(site, os.getppid()) if row == 0 else ())
        self._endpoints = Endpoints(self._house(), self._limits)
        self._endpoints.house.open_store().close()  # says now what would be wrong at the first request

    def _house(self) -> House:
        site = self._site
        settings = site.settings()
        office = site.office(settings, self._sealing)
        return House(
            open_store=lambda: site.open_store(settings),
            office=office,
            writers=site.writers(settings, office),
            door=site.door(),
            reader=Reader(
                witnesses=settings.witnesses,
                keep=site.keep_newest,
                auditors=frozenset(settings.auditors.values()),
                logs={key.name: key for key in settings.logs},
                log=site.log_signer(settings),
                cosigner=site.cosigner(settings),
                now=lambda: int(time.time()),
            ),
            prover=site.prover(office, self._collector) if self._collector else None,
        )

    def _manner(self) -> Manner:
        return Manner(
            limits=self._limits,
            counters=self._counters,
            respond=self._endpoints.respond,
            issued=self._endpoints.house.door.authority.issued,
        )

    def serve(self, sockets: int) -> int:
        """Serve until SIGTERM, or until the supervisor is gone."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)  # the pipe tells which one came
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        listeners = [listening.inherited(SOCKETS + number) for number in range(sockets)]
        path = self._site.path
        running = Server(
            listeners,
            lambda: server.tls_context(path("tls.pem"), path("tls.key"), path("clients.pem")),
            self._manner(),
        )
        self._counters.add("ready")
        self._chores.start()
        running.serve({read_end: lambda: self._woken(read_end, running), LIFELINE: lambda: False})
        self._chores.stop()
        running.stop()
        self._endpoints.close()
        self._sealing.wipe()
        return 0

    def _woken(self, read_end: int, running: Server) -> bool:
        said = os.read(read_end, 4096)
        if signal.SIGTERM in said or signal.SIGINT in said:
            return False
        if signal.SIGHUP in said:
            self._reload(running)
        return True

    def _reload(self, running: Server) -> None:
        """Read files and settings again; what cannot be read leaves everything as it was."""
        before = self._endpoints.house
        try:
            self._endpoints.house = self._house()
            running.reload(self._manner())
        except KeyquorumError as error:
            self._endpoints.house = before
            speech.fail(error)


def _run(words: list[str]) -> int:
    directory, row, rows, sockets = words[0], *map(int, words[1:4])
    return Worker(Site(directory), row, rows, words[4]).serve(sockets)


def main() -> int:
    """Run one worker."""
    return process.run(lambda: _run(sys.argv[1:]))


if __name__ == "__main__":
    process.leave(main())
