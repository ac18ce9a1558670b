# SPDX-License-Identifier: Apache-2.0
"""The chores of a custodian that serves, each with a store of its own (docs/custodian.md §8.4)."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from typing import TYPE_CHECKING

from keyquorum import speech
from keyquorum.custodian import retention, witnessing
from keyquorum.custodian.chores import Chore
from keyquorum.linux.turn import turn

if TYPE_CHECKING:
    from keyquorum.custodian.site import Site

_HOUR = 3600.0
_PAUSE = 0.2  # seconds between two transactions, in which others write


def chores(site: Site, supervisor: int) -> tuple[Chore, ...]:
    """Return what is to be done for a custodian's directory, in a worker of this supervisor (its process number).

    Settings are read again each time, but for how often.
    """
    every = float(site.settings().ask_every)
    return (
        Chore(name="witnesses", every=every, do=lambda: ask_witnesses(site)),
        Chore(name="what is over", every=_HOUR, do=lambda: forget(site)),
        Chore(name="the custodian's certificates", every=_HOUR, do=lambda: renew(site, supervisor)),
    )


def ask_witnesses(site: Site) -> None:
    """Have our witnesses cosign the log or, before it was compared, say how long it is (docs/custodian.md §12.2)."""
    settings = site.settings()
    with closing(site.open_store(settings)) as store:
        if store.current:
            witnessing.ask(site, settings, store)
        else:
            witnessing.newest(site, settings)


def renew(site: Site, supervisor: int) -> None:
    """Renew our own certificates in time, and have the supervisor tell every worker (docs/custodian.md §11.4)."""
    renewed = site.renew(int(time.time()))
    if renewed:
        speech.note(f"made anew: {', '.join(f'{name}.pem' for name in renewed)}")
        if os.getppid() == supervisor:  # else it is gone, and this worker goes too
            os.kill(supervisor, signal.SIGHUP)


def forget(site: Site) -> None:
    """Delete what is older than the settings say; raises `KeyquorumError`."""
    settings = site.settings()
    with closing(site.open_store(settings)) as store:
        more = store.current
        while more:
            old = retention.find(store, int(time.time()), settings.keep_days)
            with turn(site.directory):  # as whoever answers machines takes it (`group_commit`)
                more = retention.prune(store, old).more
            if more:
                time.sleep(_PAUSE)
