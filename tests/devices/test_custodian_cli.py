# SPDX-License-Identifier: Apache-2.0
"""`keyquorum custodian` and `keyquorum log` through the real entry: outcomes as docs/cli.md has them, and refusals."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from devices.custodian_site import ORIGIN, Running
from devices.test_cli_outcomes import check
from keyquorum.errors import TamperingError
from keyquorum.linux import owner_key
from keyquorum.model import release_messages, strict_json
from unit.custodian.notes import KEYS, private

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devices.bench import Bench, Said

PEOPLE: dict[str, Any] = {"needed": 2, "within": "1h", "of": {"anna": private(30).public_key().public_bytes_raw().hex(), "ben": private(31).public_key().public_bytes_raw().hex()}}  # fmt: skip


@pytest.fixture
def custodian(bench: Bench) -> Iterator[Running]:
    with Running(bench.path("custodian")) as running:
        running.deposit(approvals=PEOPLE)
        yield running


def run(bench: Bench, custodian: Running, *words: str) -> Said:
    return bench.run(*words, "--directory", custodian.site.directory)


def init(bench: Bench, *words: str) -> Said:
    return bench.run("custodian", "init", "--origin", ORIGIN, "--directory", bench.path("site"), *words)


def test_a_custodian_is_made(bench: Bench) -> None:
    said = init(bench, "--unsafe-without-witnesses", "--country", "FR", "--name", "192.0.2.1", "--json")
    check(said, "custodian init", command="custodian init")
    assert said.json["log_key"].startswith(f"{ORIGIN}+")
    server = x509.load_pem_x509_certificate(Path(bench.path("site/tls.pem")).read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [ORIGIN, "192.0.2.1"], "a machine looks for the custodian's id"
    for name in os.listdir(bench.path("site")):
        assert os.stat(bench.path(f"site/{name}")).st_mode & 0o77 == 0, name
    again = init(bench, "--unsafe-without-witnesses")
    assert (again.code, "is not empty" in again.err) == (2, True)
    check(
        bench.run("custodian", "status", "--directory", bench.path("site"), "--json"),
        "custodian status",
        command="custodian status",
    )


def test_its_certificates_are_made_anew(bench: Bench) -> None:
    init(bench, "--unsafe-without-witnesses")
    pem = Path(bench.path("site/tls.pem"))
    before = x509.load_pem_x509_certificate(pem.read_bytes())
    said = bench.run("custodian", "renew", "--directory", bench.path("site"), "--json")
    check(said, "custodian renew", command="custodian renew")
    assert said.json["renewed"] == ["tls", "client"]
    after = x509.load_pem_x509_certificate(pem.read_bytes())
    assert (after.public_key(), after.subject) == (before.public_key(), before.subject)
    assert after.serial_number != before.serial_number
    status = bench.run("custodian", "status", "--directory", bench.path("site"), "--json")
    assert status.json["expires_soon"] == []
    assert os.stat(pem).st_mode & 0o77 == 0


def test_a_custodian_is_told_who_vouches_for_its_log(bench: Bench) -> None:
    for words in ((), ("--witness", str(KEYS[0]), "--unsafe-without-witnesses")):
        said = init(bench, *words)
        assert (said.code, "and not both" in said.err) == (2, True)
    assert not os.path.exists(bench.path("site"))
    said = init(bench, "--witness", str(KEYS[0]))
    assert said.code == 0
    assert "before it serves" in said.err
    status = bench.run("custodian", "status", "--directory", bench.path("site"), "--json")
    assert status.json["current"] is False
    refused = bench.run("custodian", "enroll-machine", "web-1", "--directory", bench.path("site"))
    assert (refused.code, "not yet compared" in refused.err) == (5, True)


@pytest.mark.parametrize(
    "words",
    [
        ("--workers", "0"),
        ("--listen", "8443"),
        ("--uri", "pkcs11:object=x"),
        ("--sealing-key", "pkcs11"),
        ("--witness", "junk"),
        ("--origin", "two words"),
        ("--name", "two words"),
        ("--name", "cüstodian.example"),
    ],
)
def test_what_makes_no_custodian(bench: Bench, words: tuple[str, ...]) -> None:
    unsafe = () if "--witness" in words else ("--unsafe-without-witnesses",)
    assert init(bench, *unsafe, *words).code == 2
    assert not os.path.exists(bench.path("site"))


def test_a_machine_is_offered(bench: Bench, custodian: Running) -> None:
    said = run(bench, custodian, "custodian", "enroll-machine", "db-1", "--country", "NO", "--as", "anna", "--json")
    check(said, "custodian enroll-machine", command="custodian enroll-machine")
    token = bytes.fromhex(said.json["token"])
    with custodian.store() as store:
        last = store.log.entry(store.size - 1)
        assert (last.act, last.who.name, last.facts["country"]) == ("offered-enrolment", "anna", "NO")
        assert token.hex() not in store.log.body(store.size - 1).decode()
    long = "x" * 65
    for words in (
        *(("web-1",), ("db-1", "--ek", "00"), ("db-1", "--ek", "x"), ("",), ("a\tb",), (long,)),
        *(("db-1", "--country", "Norway"), ("db-1", "--country", "no"), ("db-1", "--region", long)),
    ):
        assert run(bench, custodian, "custodian", "enroll-machine", *words).code == 2


def key_file(bench: Bench, name: str, seed: int) -> str:
    path = bench.path(f"{name}.key")
    Path(path).write_bytes(owner_key.pem(private(seed)))
    os.chmod(path, 0o600)
    return path


def ask(custodian: Running) -> tuple[int, Any]:
    custodian.reopen()  # a command that ran in this process has wiped its secrets at the end
    answered, _ = custodian.release()
    payload, _ = custodian.wire().signed(answered, release_messages.ANSWER_TYPE)
    return answered.status, strict_json.parse(payload, "", 1 << 16, TamperingError)


def test_people_let_a_request_through_once(bench: Bench, custodian: Running) -> None:
    status, table = ask(custodian)
    assert (status, table["answer"]) == (202, "waiting")
    number = str(table["number"])
    listed = run(bench, custodian, "custodian", "list", "--json")
    check(listed, "custodian list", command="custodian list")
    assert [row["number"] for row in listed.json["waiting"]] == [int(number)]
    anna, ben = key_file(bench, "anna", 30), key_file(bench, "ben", 31)
    said = run(bench, custodian, "custodian", "approve", number, "--as", "anna", "--key", anna, "--json")
    check(said, "custodian approve", command="custodian approve")
    assert ask(custodian)[0] == 202, "one of two"
    twice = run(bench, custodian, "custodian", "approve", number, "--as", "anna", "--key", anna)
    assert (twice.code, "has answered" in twice.err) == (2, True)
    for words in (("ben", anna), ("stranger", anna), ("ben", key_file(bench, "stranger", 41))):
        for action in ("approve", "deny"):
            wrong = run(bench, custodian, "custodian", action, number, "--as", words[0], "--key", words[1])
            assert wrong.code == 4, "one operator's key does not speak for another, a stranger's for nobody"
    assert ask(custodian)[0] == 202
    settings = Path(custodian.site.path("custodian.toml"))
    before = settings.read_text()
    settings.write_text(before.replace("[operators]", f'[operators]\nben = "{PEOPLE["of"]["anna"]}"'))
    unknown = run(bench, custodian, "custodian", "approve", number, "--as", "ben", "--key", ben)
    assert (unknown.code, "no operator of this custodian" in unknown.err) == (2, True)
    settings.write_text(before.replace("[operators]", f'[operators]\nben = "{PEOPLE["of"]["ben"]}"'))
    assert run(bench, custodian, "custodian", "approve", number, "--as", "ben", "--key", ben).code == 0
    assert ask(custodian)[0] == 200
    status, table = ask(custodian)
    assert (status, table["number"] > int(number)) == (202, True), "once"
    said = run(bench, custodian, "custodian", "deny", str(table["number"]), "--as", "ben", "--key", ben, "--json")
    check(said, "custodian deny", command="custodian deny")
    for none in ("0", "9999", "-1"):
        assert run(bench, custodian, "custodian", "approve", none, "--as", "ben", "--key", ben).code == 2
    assert run(bench, custodian, "custodian", "approve", number, "--as", "ben", "--key", "/nonexistent").code == 2


def test_a_machine_is_revoked(bench: Bench, custodian: Running) -> None:
    said = run(bench, custodian, "custodian", "revoke", "web-1", "--reason", "stolen", "--yes", "--json")
    check(said, "custodian revoke", command="custodian revoke")
    assert run(bench, custodian, "custodian", "revoke", "ghost", "--yes").code == 2
    with custodian.store() as store:
        assert store.log.entry(said.json["number"]).reason == "stolen"
    shown = run(bench, custodian, "custodian", "log", "--last", "1")
    assert "revoked-machine web-1 by operator operator: stolen" in shown.out
    check(
        run(bench, custodian, "custodian", "log", "--json"),
        "custodian log",
        opaque=("entries",),
        command="custodian log",
    )


def test_the_log_is_read_proven_and_checked(bench: Bench, custodian: Running) -> None:
    ask(custodian)
    check(run(bench, custodian, "log", "show", "--json"), "log show", opaque=("entries",), command="log show")
    proof = run(bench, custodian, "log", "prove", "1")
    assert proof.code == 0
    path = bench.path("receipt")
    Path(path).write_text(proof.out)
    key = str(custodian.site.log_signer(custodian.site.settings()).key)
    said = bench.run("log", "verify", "--receipt", path, "--key", key, "--json")
    check(said, "log verify", opaque=("entry",), command="log verify")
    assert said.json["entry"]["number"] == 1
    assert bench.run("log", "verify", "--receipt", path, "--key", key, "--witness", str(KEYS[0])).code == 4
    Path(path).write_text(proof.out.replace("index 1", "index 2"))
    assert bench.run("log", "verify", "--receipt", path, "--key", key).code == 4
    assert bench.run("log", "verify", "--receipt", path).code == 2
    assert run(bench, custodian, "log", "prove", "9999").code == 2
    whole = run(bench, custodian, "log", "verify", "--json")
    check(whole, "log verify", command="log verify")
    kept = bench.path("kept.note")
    with custodian.store() as store:
        Path(kept).write_bytes(
            store.newest_checkpoint() or store.sign_checkpoint(custodian.site.log_signer(custodian.site.settings()))
        )
        size = store.size
        store._database.execute("DELETE FROM checkpoint")
        body = store.log.body(size - 1).replace(b"pending", b"pendinf")
        store._database.execute("UPDATE entry SET body = ? WHERE number = ?", (body, size - 1))
    bad = run(bench, custodian, "log", "verify", "--checkpoint", kept, "--json")
    assert (bad.code, bad.json["exit_code"]) == (4, 4)
    assert any(f"entry {size - 1} was changed" in finding["problem"] for finding in bad.json["findings"])


def test_a_witness_lets_a_custodian_serve(bench: Bench, custodian: Running) -> None:
    """The witness is the custodian that serves here; the other one is new."""
    witness = str(custodian.site.cosigner(custodian.site.settings()).key)
    other = bench.path("other")
    words = ("--origin", "custodian.example/rome", "--directory", other, "--witness", witness, "--json")
    made = bench.run("custodian", "init", *words).json
    founded = os.path.join(other, "founded.note")
    refused = run(bench, custodian, "custodian", "cosign", founded)
    assert (refused.code, "no witness of custodian.example/rome" in refused.err) == (2, True)
    settings = Path(custodian.site.path("custodian.toml"))
    settings.write_text(settings.read_text().replace("logs = []", f'logs = ["{made["log_key"]}"]'))
    cosigned = run(bench, custodian, "custodian", "cosign", founded)
    assert cosigned.code == 0
    status = ("custodian", "status", "--directory", other, "--json")
    assert bench.run(*status).json["current"] is False
    Path(other, "newest.note").write_text(cosigned.out)
    assert bench.run(*status).json["current"] is True
    assert bench.run("custodian", "enroll-machine", "web-1", "--directory", other).code == 0
    Path(other, "newest.note").write_bytes(Path(founded).read_bytes())
    assert bench.run(*status).code == 4, "nobody cosigned this one"
    hashes = bench.path("hashes")
    Path(hashes).write_text('{"hashes":["AAAA"]}')
    assert run(bench, custodian, "custodian", "cosign", founded, "--hashes", hashes).code == 4


def test_an_old_backup_comes_forward(bench: Bench, custodian: Running) -> None:
    path = custodian.site.path("custodian.db")
    with custodian.store() as store:
        store.backup(bench.path("backup.db"))
        had = store.size
    assert run(bench, custodian, "custodian", "revoke", "web-1", "--yes").code == 0
    first, all_of_them = bench.path("first"), bench.path("entries")
    Path(first).write_text(run(bench, custodian, "log", "show", "--count", str(had), "--json").out)
    Path(all_of_them).write_text(run(bench, custodian, "log", "show", "--json").out)
    newest = bench.path("newest.note")
    with custodian.store() as store:
        Path(newest).write_bytes(store.sign_checkpoint(custodian.site.log_signer(custodian.site.settings())))
    for name in ("", "-wal", "-shm"):
        if os.path.exists(path + name):
            os.unlink(path + name)
    shutil.copy(bench.path("backup.db"), path)
    short = run(bench, custodian, "custodian", "restore", newest, "--entries", first)
    assert (short.code, "1 are missing, 0 were given" in short.err) == (4, True)
    assert run(bench, custodian, "custodian", "restore", newest, "--entries", "/nonexistent").code == 2
    said = run(bench, custodian, "custodian", "restore", newest, "--entries", all_of_them)
    assert said.code == 0, said.err
    assert f"from {had} to {had + 1} entries" in said.err
    assert run(bench, custodian, "custodian", "list", "--json").json["machines"][0]["revoked"] is True
    late = bench.path("late")
    Path(late).write_text(run(bench, custodian, "log", "show", "--start", str(had), "--json").out)
    with custodian.store() as store:
        assert store.current
    gap = bench.path("gap")
    Path(gap).write_text(Path(late).read_text().replace(f'"number":{had}', f'"number":{had + 5}'))
    assert run(bench, custodian, "custodian", "restore", newest, "--entries", gap).code == 2
