# SPDX-License-Identifier: Apache-2.0
"""Checkpoints between custodians: being another's witness, asking one's own, bringing an old backup forward."""

from __future__ import annotations

import time

from keyquorum import speech
from keyquorum.cli import shell
from keyquorum.errors import MalformedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Callable

    from keyquorum.custodian.checkpoint import Verified
    from keyquorum.custodian.note import VerifierKey
    from keyquorum.custodian.peer import Peer
    from keyquorum.custodian.site import Site
    from keyquorum.custodian.site_settings import SiteSettings

_COSIGN = """\
Cosign a checkpoint of another custodian's log, and print it. Its key must be among the logs of the settings. The first
one is taken as it is; every later one needs the proof that it goes on from the last (GET /v1/log/consistency).
"""
_RESTORE = """\
Bring an old backup forward by the entries that it lacks, as keyquorum log show --json printed them elsewhere. They must
lead exactly to a checkpoint of this log. What was deposited after the backup does not come back: owners deposit anew.
"""
_WITNESS = """\
Be a witness: fetch the newest checkpoint of another custodian's log, with the proof that it goes on from what was
cosigned last, cosign it, remember it, and give the cosignature back. For a timer. Both must know each other: this
custodian's client key (status) is among their auditors, its authority.pem in their clients.pem.
"""
_NEWEST = """\
Ask a witness for the newest checkpoint of this custodian's own log, and keep it as newest.note: the next serve compares
the store with it, so that a restored backup is noticed. For the start of a service, and before restore.
"""
_MAX_ENTRIES = 1 << 28  # bytes of a file with entries
_MAX_HASHES = 16 * 1024


def configure(verbs: _SubParsersAction[ArgumentParser], add_directory: Callable[[ArgumentParser], None]) -> None:
    """Declare the actions."""
    cosign = verbs.add_parser("cosign", help="cosign a checkpoint of another's log", description=_COSIGN)
    cosign.add_argument("checkpoint", metavar="FILE", help="the signed checkpoint")
    cosign.add_argument("--hashes", default="", metavar="FILE", help='the proof, {"hashes": [BASE64, ...]}')
    restore = verbs.add_parser("restore", help="bring an old backup forward", description=_RESTORE)
    restore.add_argument("checkpoint", metavar="FILE", help="the newest checkpoint of this log that anybody has")
    restore.add_argument(
        "--entries", action="append", required=True, metavar="FILE", help="entries in their order; may be given again"
    )
    witness = verbs.add_parser("witness", help="cosign the log of a custodian on the network", description=_WITNESS)
    witness.add_argument(
        "origin", metavar="ORIGIN", help="that custodian's id; its key is among the logs of the settings"
    )
    newest = verbs.add_parser("newest", help="ask a witness how long one's own log is", description=_NEWEST)
    for parser in (witness, newest):
        parser.add_argument("--at", required=True, metavar="ADDRESS", help="HOST:PORT of the other custodian")
        parser.add_argument("--name", required=True, metavar="HOST", help="the name that its certificate has")
        parser.add_argument("--authority", required=True, metavar="FILE", help="its authority.pem")
    for parser in (cosign, restore, witness, newest):
        add_directory(parser)


def run(arguments: Namespace) -> int:
    """Do one of them."""
    from keyquorum.custodian.site import Site

    site = Site(arguments.directory)
    settings = site.settings()
    return _ACTIONS[arguments.action](arguments, site, settings)


def _cosign(arguments: Namespace, site: Site, settings: SiteSettings) -> int:
    from keyquorum.custodian import checkpoint, note
    from keyquorum.custodian.log_reading import hashes_of
    from keyquorum.custodian.witness import Witness

    offered = shell.read_file(arguments.checkpoint, note.MAX_NOTE)
    origin = checkpoint.parse_text(note.parse(offered).text).origin
    log = _log(settings, origin)
    proof = hashes_of(shell.read_file(arguments.hashes, _MAX_HASHES)) if arguments.hashes else []
    store = site.open_store(settings)
    try:
        cosigned = Witness(store, site.cosigner(settings)).cosign(offered, proof, log, int(time.time()))
    finally:
        store.close()
    speech.say_text(cosigned.decode().removesuffix("\n"))
    return 0


def _restore(arguments: Namespace, site: Site, settings: SiteSettings) -> int:
    from keyquorum.custodian import checkpoint, note
    from keyquorum.custodian.store import open_store

    newest = shell.read_file(arguments.checkpoint, note.MAX_NOTE)
    needed = 1 if settings.witnesses else 0
    verified = checkpoint.verify(newest, site.log_signer(settings).key, settings.witnesses, needed)
    bodies = [body for path in arguments.entries for body in _bodies(path)]
    store = open_store(site.path("custodian.db"))
    try:
        had = store.size
        store.catch_up(verified, bodies[had - _first(bodies, had) :] if bodies else [])
        now = store.size
    finally:
        store.close()
    site.put("newest.note", newest)
    speech.note(f"the log went from {had} to {now} entries; epochs retired and machines revoked since are so again")
    return 0


def _bodies(path: str) -> list[bytes]:
    """Read entries as `keyquorum log show --json` prints them; each in its canonical form, which is what was hashed."""
    from keyquorum.model import strict_json
    from keyquorum.model.fields import Fields

    fields = Fields.read(shell.read_file(path, _MAX_ENTRIES), path, _MAX_ENTRIES, MalformedError)
    return [strict_json.serialise(row) for row in fields.rows("entries", most=1 << 20)]


def _first(bodies: list[bytes], had: int) -> int:
    """Return the number of the first entry that was given: those that the store has are passed over."""
    from keyquorum.custodian import entry

    first = entry.parse(bodies[0]).number
    if first > had:
        raise UsageError(f"entries {had} to {first - 1} are missing: the store has {had}")
    return first


def _witness(arguments: Namespace, site: Site, settings: SiteSettings) -> int:
    from keyquorum.custodian import witness
    from keyquorum.custodian.log_reading import hashes_of

    log = _log(settings, arguments.origin)
    peer = _peer(arguments, site)
    store = site.open_store(settings)
    try:
        offered = peer.ask("/v1/log/checkpoint")
        with store.reading() as database:
            seen = witness.last_seen(database, log.name)
        new = checkpoint_of(offered, log).checkpoint.size
        old = new if seen is None else seen.checkpoint.size
        known = old in {0, new}
        proof = [] if known else hashes_of(peer.ask(f"/v1/log/consistency?old={old}&new={new}"))
        cosigned = witness.Witness(store, site.cosigner(settings)).cosign(offered, proof, log, int(time.time()))
        peer.ask("/v1/log/cosigned", cosigned)
    finally:
        store.close()
    speech.note(f"cosigned {new} entries of {log.name}" + ("" if seen is None else f", after {old}"))
    return 0


def _newest(arguments: Namespace, site: Site, settings: SiteSettings) -> int:
    from keyquorum.custodian import checkpoint

    found = _peer(arguments, site).ask(f"/v1/witnessed?origin={settings.origin}")
    verified = checkpoint.verify(found, site.log_signer(settings).key, settings.witnesses, 1)
    site.keep_newest(found)
    names = ", ".join(verified.witnesses)
    speech.note(f"{names} has {verified.checkpoint.size} entries of this log")
    return 0


def checkpoint_of(signed: bytes, log: VerifierKey) -> Verified:
    """Verify a checkpoint of a log by its own key."""
    from keyquorum.custodian import checkpoint

    return checkpoint.verify(signed, log)


def _log(settings: SiteSettings, origin: str) -> VerifierKey:
    found = next((key for key in settings.logs if key.name == origin), None)
    if found is None:
        raise UsageError(f"this custodian is no witness of {origin}", "add its verifier key to logs in custodian.toml")
    return found


def _peer(arguments: Namespace, site: Site) -> Peer:
    from keyquorum.custodian.site_settings import address

    return site.peer(address(arguments.at, "--at"), arguments.name, arguments.authority)


_ACTIONS: dict[str, Callable[[Namespace, Site, SiteSettings], int]] = {
    "cosign": _cosign,
    "restore": _restore,
    "witness": _witness,
    "newest": _newest,
}
