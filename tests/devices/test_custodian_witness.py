# SPDX-License-Identifier: Apache-2.0
"""Two custodians over TLS: one is the other's witness, and so an old backup is noticed (docs/custodian.md §8.3, §9.2)."""

from __future__ import annotations

import binascii
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devices.custodian_site import ORIGIN, Running
from keyquorum.custodian import checkpoint, housekeeping, receipt, site_settings
from keyquorum.custodian.site_settings import Address, WitnessAt
from keyquorum.custodian.store import StaleStoreError
from unit.custodian.notes import FRAGMENT, KEYS
from unit.custodian.stores import OPERATOR

if TYPE_CHECKING:
    from devices.bench import Bench, Said

ROME = "custodian.example/rome"


def change(running: Running, **changes: Any) -> None:
    """Give a custodian other settings, as SIGHUP does."""
    changed = replace(running.site.settings(), **changes)
    Path(running.site.path("custodian.toml")).write_bytes(site_settings.serialise(changed))
    running.reopen()
    running.server.reload(running.manner())


def trust(running: Running, other: Running) -> None:
    with open(running.site.path("clients.pem"), "ab") as file:
        file.write(Path(other.site.path("authority.pem")).read_bytes())


@dataclass
class Pair:
    """A custodian and its witness."""

    bench: Bench
    paris: Running
    rome: Running

    def ask(self, action: tuple[str, ...], whose: Running, other: Running) -> Said:
        where = ("--at", f"127.0.0.1:{other.port}", "--name", "127.0.0.1")
        files = ("--authority", other.site.path("authority.pem"), "--directory", whose.site.directory)
        said = self.bench.run("custodian", *action, *where, *files)
        for running in (self.paris, self.rome):
            running.reopen()  # the command ran in this process, and wiped its secrets at the end
        return said

    def witness(self) -> Said:
        return self.ask(("witness", ORIGIN), self.rome, self.paris)

    def newest(self) -> Said:
        return self.ask(("newest",), self.paris, self.rome)

    def kept(self) -> int:
        note = Path(self.paris.site.path("newest.note")).read_bytes()
        settings = self.paris.site.settings()
        log = self.paris.site.log_signer(settings).key
        return checkpoint.verify(note, log, settings.witnesses, 1).checkpoint.size


@pytest.fixture
def pair(bench: Bench) -> Iterator[Pair]:
    with Running(bench.path("paris")) as paris, Running(bench.path("rome"), origin=ROME) as rome:
        trust(paris, rome)
        trust(rome, paris)
        cosigner = rome.site.cosigner(rome.site.settings()).key
        change(paris, witnesses=(cosigner,), auditors={"rome": bytes.fromhex(rome.site.client_key())})
        log = paris.site.log_signer(paris.site.settings()).key
        change(rome, logs=(log,), auditors={"paris": bytes.fromhex(paris.site.client_key())})
        yield Pair(bench, paris, rome)


def test_a_witness_cosigns_and_remembers(pair: Pair) -> None:
    said = pair.witness()
    assert said.code == 0, said.err
    with pair.paris.store() as store:
        first = store.size
    assert pair.kept() == first
    pair.paris.deposit()
    pair.paris.deposit(FRAGMENT.with_(epoch=4))
    said = pair.witness()
    assert (said.code, f"cosigned {first + 2} entries of {ORIGIN}, after {first}" in said.err) == (0, True), said.err
    assert pair.kept() == first + 2
    assert pair.witness().code == 0, "nothing new is nothing bad"
    with pair.rome.store() as store:
        acts = [store.log.entry(number).act for number in range(store.size)]
        assert acts.count("cosigned") == 2
    os.unlink(pair.paris.site.path("newest.note"))
    said = pair.newest()
    assert (said.code, f"{ROME} has {first + 2} entries" in said.err) == (0, True), said.err
    assert pair.kept() == first + 2


def test_an_old_backup_is_noticed_by_asking_a_witness(pair: Pair) -> None:
    path, backup = pair.paris.site.path("custodian.db"), pair.bench.path("backup.db")
    with pair.paris.store() as store:
        store.backup(backup)
    pair.paris.deposit()
    assert pair.witness().code == 0
    os.unlink(pair.paris.site.path("newest.note"))  # it was on the same disk
    for name in (path, f"{path}-wal", f"{path}-shm"):
        if os.path.exists(name):
            os.unlink(name)
    shutil.copy(backup, path)
    assert pair.newest().code == 0
    status = pair.bench.run("custodian", "status", "--directory", pair.paris.site.directory)
    assert (status.code, "this is an old copy" in status.err) == (4, True)
    assert "keyquorum custodian restore" in status.err
    shown = pair.bench.run("log", "show", "--directory", pair.paris.site.directory)
    assert (shown.code, "founded" in shown.out) == (0, True), "it can still be looked at"


def test_a_log_that_was_written_anew_is_not_cosigned(pair: Pair) -> None:
    pair.paris.deposit()
    assert pair.witness().code == 0
    with pair.paris.store() as store:
        body = store.log.body(1).replace(b"web-1", b"web-9")
        store._database.execute("PRAGMA foreign_keys = OFF")
        with store.writing() as database:
            database.execute("UPDATE entry SET body = ? WHERE number = 1", (body,))
            bodies = list(store.log.bodies())
            for table in ("node", "checkpoint", "deposit", "entry"):
                database.execute(f"DELETE FROM {table}")
            for number, entry in enumerate(bodies):
                store.log.append_body(number, entry)
    os.unlink(pair.paris.site.path("newest.note"))
    said = pair.witness()
    assert (said.code, "two roots" in said.err) == (4, True), said.err
    with pair.rome.store() as store:
        assert store.log.entry(store.size - 1).act == "fork-seen"


def test_what_does_not_come_from_a_witness(pair: Pair) -> None:
    with pair.paris.store() as store:
        own = store.sign_checkpoint(pair.paris.site.log_signer(pair.paris.site.settings()))
    wire = pair.paris.wire()
    assert wire.ask("/v1/log/cosigned", own).status == 403, "a machine is no auditor"
    change(pair.paris, auditors={"me": pair.paris.identity.hash})
    answered = wire.ask("/v1/log/cosigned", own)
    assert (answered.status, "1 witnesses are needed" in answered.problem) == (400, True)
    assert not os.path.exists(pair.paris.site.path("newest.note"))
    said = pair.witness()
    assert (said.code, "says 403" in said.err) == (1, True), "rome is no auditor any more"


def address_of(running: Running) -> WitnessAt:
    where = Address(host="127.0.0.1", port=running.port)
    return WitnessAt(address=where, name="127.0.0.1", authority=running.site.path("authority.pem"))


def state(running: Running, number: int) -> dict[str, Any]:
    """What a machine gets for a receipt."""
    answered = running.wire().ask(f"/v1/log/receipt?number={number}")
    assert answered.status == 200, answered.body
    return answered.table


def test_who_serves_asks_its_witnesses_by_itself(pair: Pair) -> None:
    change(pair.paris, ask={ROME: address_of(pair.rome)})
    pair.paris.deposit()
    with pair.paris.store() as store:
        number = store.size - 1
    assert state(pair.paris, number)["state"] == "recorded"
    housekeeping.ask_witnesses(pair.paris.site)
    assert pair.kept() == number + 1
    found = state(pair.paris, number)
    assert (found["state"], found["witnesses"]) == ("witnessed", [ROME])
    settings = pair.paris.site.settings()
    log = pair.paris.site.log_signer(settings).key
    proven = receipt.verify(binascii.a2b_base64(found["receipt"]), log, settings.witnesses, 1)
    assert (proven.entry.number, proven.entry.act) == (number, "deposited")
    said = pair.bench.run("log", "prove", str(number), "--directory", pair.paris.site.directory)
    assert receipt.verify(said.out.encode(), log, settings.witnesses, 1) == proven, "the same by the operator's command"
    pair.paris.reopen()
    before = rome_size(pair)
    housekeeping.ask_witnesses(pair.paris.site)
    assert rome_size(pair) == before, "nothing new is not asked for"
    pair.paris.release()
    assert state(pair.paris, number)["state"] == "witnessed", "by the checkpoint of before"
    housekeeping.ask_witnesses(pair.paris.site)
    assert rome_size(pair) == before + 1


def test_who_starts_without_a_checkpoint_asks_for_it(pair: Pair) -> None:
    change(pair.paris, ask={ROME: address_of(pair.rome)})
    housekeeping.ask_witnesses(pair.paris.site)
    had = pair.kept()
    os.unlink(pair.paris.site.path("newest.note"))
    change(pair.paris, unsafe_without_witnesses=False)
    with pair.paris.store() as store:
        assert not store.current
    housekeeping.ask_witnesses(pair.paris.site)
    assert pair.kept() == had
    with pair.paris.store() as store:
        assert store.current


def rome_size(pair: Pair) -> int:
    with pair.rome.store() as store:
        return int(store.size)


def test_receipts_are_for_whom_they_are_about(pair: Pair) -> None:
    pair.paris.deposit()
    wire = pair.paris.wire()
    assert wire.ask("/v1/log/receipt?number=0").status == 403, "the founding is nobody's"
    assert wire.ask("/v1/log/receipt?number=999").status == 404
    assert wire.ask("/v1/log/receipt").status == 400
    with pair.paris.store() as store:
        number = store.size - 1
        store.revoke_machine("web-1", OPERATOR, 1, "")
    assert wire.ask(f"/v1/log/receipt?number={number}").status == 403


def comes_to_rest(pair: Pair) -> None:
    """Both logs stop growing once everything in them is witnessed."""
    sizes = []
    for _ in range(4):
        for running in (pair.paris, pair.rome):
            housekeeping.ask_witnesses(running.site)
        with pair.paris.store() as store:
            sizes.append((store.size, rome_size(pair)))
    assert sizes[1] == sizes[2] == sizes[3]


def test_two_who_are_each_others_witnesses_come_to_rest(pair: Pair) -> None:
    cosigner = pair.paris.site.cosigner(pair.paris.site.settings()).key
    change(
        pair.paris, ask={ROME: address_of(pair.rome)}, logs=(pair.rome.site.log_signer(pair.rome.site.settings()).key,)
    )
    change(pair.rome, witnesses=(cosigner,), ask={ORIGIN: address_of(pair.paris)})
    pair.paris.deposit()
    comes_to_rest(pair)


def test_a_witness_that_is_never_there_makes_no_work_for_the_others(pair: Pair) -> None:
    rome = pair.paris.site.settings().witnesses
    nobody = Address(host="127.0.0.1", port=1)
    oslo = WitnessAt(address=nobody, name="127.0.0.1", authority=pair.rome.site.path("authority.pem"))
    change(pair.paris, witnesses=(*rome, KEYS[0]), ask={ROME: address_of(pair.rome), KEYS[0].name: oslo})
    cosigner, log = (
        pair.paris.site.cosigner(pair.paris.site.settings()).key,
        pair.rome.site.log_signer(pair.rome.site.settings()).key,
    )
    change(pair.paris, logs=(log,))
    change(pair.rome, witnesses=(cosigner,), ask={ORIGIN: address_of(pair.paris)})
    pair.paris.deposit()
    comes_to_rest(pair)


def test_a_witness_that_is_not_there_or_lies_costs_nothing(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    change(pair.paris, ask={ROME: address_of(pair.rome)})
    change(pair.rome, logs=())
    pair.paris.deposit()
    housekeeping.ask_witnesses(pair.paris.site)
    assert "no witness of that log" in capsys.readouterr().err
    pair.rome.stop_accepting()
    pair.rome.server.stop()
    housekeeping.ask_witnesses(pair.paris.site)
    assert "does not answer" in capsys.readouterr().err
    assert not os.path.exists(pair.paris.site.path("newest.note"))
    assert pair.paris.release()[0].status == 200


def test_an_old_copy_learns_from_its_witness_that_it_is_one(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    change(pair.paris, ask={ROME: address_of(pair.rome)})
    path, backup = pair.paris.site.path("custodian.db"), pair.bench.path("backup.db")
    with pair.paris.store() as store:
        store.backup(backup)
    pair.paris.deposit()
    housekeeping.ask_witnesses(pair.paris.site)
    os.unlink(pair.paris.site.path("newest.note"))
    pair.paris.endpoints.close()
    for name in (path, f"{path}-wal", f"{path}-shm"):
        if os.path.exists(name):
            os.unlink(name)
    shutil.copy(backup, path)
    housekeeping.ask_witnesses(pair.paris.site)
    assert "an old copy" in capsys.readouterr().err
    with pytest.raises(StaleStoreError):
        pair.paris.site.open_store(pair.paris.site.settings())


def test_nobody_there(pair: Pair) -> None:
    pair.paris.stop_accepting()
    pair.paris.server.stop()
    said = pair.witness()
    assert (said.code, "does not answer" in said.err) == (1, True)
    stranger = pair.bench.run(
        "custodian", "witness", "custodian.example/oslo", "--at", "127.0.0.1:1", "--name", "x",
        "--authority", pair.paris.site.path("authority.pem"), "--directory", pair.rome.site.directory,
    )  # fmt: skip
    assert (stranger.code, "no witness of" in stranger.err) == (2, True)
