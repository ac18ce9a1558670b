# SPDX-License-Identifier: Apache-2.0
"""The log for others: checkpoints and proofs, entries for auditors, cosignatures for other logs (docs §9, §12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.custodian import checkpoint, merkle, note, witness, witnessed_receipt
from keyquorum.custodian.http_head import TEXT, Answer, RequestError
from keyquorum.custodian.witness import Witness
from keyquorum.errors import MalformedError, RefusedError, TamperingError
from keyquorum.model import deposit_messages, strict_json
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from keyquorum.custodian.decision import Client
    from keyquorum.custodian.note import NoteSigner, VerifierKey
    from keyquorum.custodian.store import Store

MOST_BYTES = 40 * 1024  # of entries in one answer: base64 makes 54 KiB of them
_WHAT = "the question to the log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who may read what, and who signs. `auditors` are SHA-256 of TLS keys, `logs` those that are cosigned.

    `keep` writes the newest checkpoint that a witness of this log has to where the next start looks for it.
    """

    auditors: frozenset[bytes]
    logs: Mapping[str, VerifierKey]
    log: NoteSigner
    cosigner: NoteSigner
    now: Callable[[], int]
    witnesses: tuple[VerifierKey, ...]
    keep: Callable[[bytes], None]


def newest(reader: Reader, store: Store, client: Client, _query: object) -> Answer:
    """Return a checkpoint of the log as it is now."""
    _demand_known(reader, store, client)
    kept = store.newest_checkpoint()
    return Answer(status=200, body=kept or store.sign_checkpoint(reader.log), kind=TEXT)


def consistency(reader: Reader, store: Store, client: Client, query: Mapping[str, str]) -> Answer:
    """Return the proof that the log of `old` entries is the beginning of that of `new`."""
    _demand_known(reader, store, client)
    old, new = _numbers(query, "old", "new")
    return _hashes(store.consistency_proof(old, new))


def entries(reader: Reader, store: Store, client: Client, query: Mapping[str, str]) -> Answer:
    """Return entries from `start` on, as they stand."""
    _demand_auditor(reader, client)
    (start,) = _numbers(query, "start")
    found: list[str] = []
    size = 0
    for body in store.entries(start):
        size += len(body)
        if found and size > MOST_BYTES:
            break
        found.append(strict_json.to_base64(body))
    return _json({"start": start, "entries": found})


def inclusion(reader: Reader, store: Store, client: Client, query: Mapping[str, str]) -> Answer:
    """Return entry `number` and the proof that the tree of `size` entries has it."""
    _demand_auditor(reader, client)
    number, size = _numbers(query, "number", "size")
    if not number < size <= store.size:
        raise MalformedError(_WHAT, "number", f"{number} is not among the first {size} of {store.size} entries")
    body, proof = store.receipt_parts(number, size)
    return _json({"entry": strict_json.to_base64(body), "hashes": [strict_json.to_base64(one) for one in proof]})


def cosign(reader: Reader, store: Store, client: Client, body: bytes) -> Answer:
    """Return another log's checkpoint with a cosignature of this witness."""
    _demand_auditor(reader, client)
    fields = Fields.read(body, _WHAT, note.MAX_NOTE * 2, TamperingError)
    log = _log(reader, fields.text("origin", longest=128))
    offered = fields.data("checkpoint", longest=note.MAX_NOTE)
    proof = _take_hashes(fields)
    fields.finish()
    return Answer(status=200, body=Witness(store, reader.cosigner).cosign(offered, proof, log, reader.now()), kind=TEXT)


def witnessed(reader: Reader, store: Store, client: Client, query: Mapping[str, str]) -> Answer:
    """Return the checkpoint of another log that was cosigned last."""
    _demand_auditor(reader, client)
    if set(query) != {"origin"}:
        raise RequestError(400, "the query is origin=NAME")
    log = _log(reader, query["origin"])
    with store.reading() as database:
        seen = witness.last_seen(database, log.name)
    if seen is None or not seen.signed:
        raise RequestError(404, f"nothing of {log.name} was cosigned here")
    return Answer(status=200, body=checkpoint.cosign(seen, reader.cosigner, reader.now()), kind=TEXT)


def receipt_of(reader: Reader, store: Store, client: Client, query: Mapping[str, str]) -> Answer:
    """Return the receipt of an entry, with who cosigned the checkpoint in it; a machine gets those about itself."""
    (number,) = _numbers(query, "number")
    if number >= store.size:
        raise RequestError(404, f"the log has no entry {number}")
    if client.key not in reader.auditors:
        machine = store.machine_of(client.key)
        about = store.log.entry(number).machine
        if machine is None or machine.revoked or about != machine.name:
            raise RefusedError("this is for auditors, and for the machine that the entry is about")
    made, found = witnessed_receipt.prove(store, number, reader.log, reader.witnesses)
    state = deposit_messages.WITNESSED if found.witnesses else deposit_messages.RECORDED
    return _json({"state": state, "witnesses": sorted(found.witnesses), "receipt": strict_json.to_base64(made)})


def cosigned(reader: Reader, store: Store, client: Client, body: bytes) -> Answer:
    """Take a checkpoint of this log back from a witness, for the next start."""
    _demand_auditor(reader, client)
    found = checkpoint.verify(body, reader.log.key, reader.witnesses, 1)
    store.take_cosigned(found)
    reader.keep(body)
    return _json({"size": found.checkpoint.size, "witnesses": sorted(found.witnesses)})


def hashes_of(answer: bytes) -> list[bytes]:
    """Read what `consistency` answers; raises `TamperingError`."""
    fields = Fields.read(answer, _WHAT, note.MAX_NOTE, TamperingError)
    found = _take_hashes(fields)
    fields.finish()
    return found


def hashes_table(proof: list[bytes], *, origin: str, checkpoint: bytes) -> bytes:
    """Write what `cosign` reads: a checkpoint of the log `origin`, and the proof from what was cosigned last."""
    table = {"origin": origin, "checkpoint": strict_json.to_base64(checkpoint)}
    return strict_json.serialise(table | {"hashes": [strict_json.to_base64(one) for one in proof]})


def _take_hashes(fields: Fields) -> list[bytes]:
    rows = fields.rows("hashes", most=merkle.MAX_PROOF)
    return [Fields({"hash": row}, _WHAT, TamperingError).data("hash", size=merkle.HASH) for row in rows]


def _log(reader: Reader, origin: str) -> VerifierKey:
    found = reader.logs.get(origin)
    if found is None:
        raise RefusedError("this custodian is no witness of that log")
    return found


def _demand_auditor(reader: Reader, client: Client) -> None:
    if client.key not in reader.auditors:
        raise RefusedError("this is for auditors")


def _demand_known(reader: Reader, store: Store, client: Client) -> None:
    if client.key in reader.auditors:
        return
    machine = store.machine_of(client.key)
    if machine is None or machine.revoked:
        raise RefusedError("this client is neither an enrolled machine nor an auditor")


def _numbers(query: Mapping[str, str], *names: str) -> list[int]:
    if not isinstance(query, dict) or set(query) != set(names):
        raise RequestError(400, f"the query is {'&'.join(f'{name}=NUMBER' for name in names)}")
    texts = [query[name] for name in names]
    if any(not (text.isascii() and text.isdecimal()) or len(text) > 16 for text in texts):
        raise RequestError(400, "a number of the query is none")
    return [int(text) for text in texts]


def _hashes(proof: list[bytes]) -> Answer:
    return _json({"hashes": [strict_json.to_base64(digest) for digest in proof]})


def _json(table: dict[str, object]) -> Answer:
    return Answer(status=200, body=strict_json.serialise(table))
