# SPDX-License-Identifier: Apache-2.0
"""The custodian as its processes: started by the command, killed, reloaded, stopped, given an old backup."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from devices.custodian_site import ORIGIN, PATIENCE, Identity, Running, Wire, a_site, opened, until
from keyquorum.custodian import authority, checkpoint, receipt, site_settings, store_listing
from keyquorum.custodian.site import Site
from keyquorum.custodian.store import open_store
from keyquorum.model import enclave_messages, release_messages
from keyquorum.model.enclave_messages import EvidenceQuestion
from unit.custodian.notes import FRAGMENT
from unit.custodian.offices import SECRET
from unit.custodian.stores import OPERATOR

AGENT = str(Path(__file__).resolve().parents[2] / "agent")


class Service:
    """`keyquorum custodian serve`, as a unit starts it."""

    def __init__(self, site: Site, directory: str, *words: str) -> None:
        self.site = site
        self._said = Path(directory) / "said"
        environment = {**os.environ, "PYTHONPATH": AGENT, "KEYQUORUM_CONFIG": os.path.join(directory, "none")}
        with self._said.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "keyquorum.cli.main",
                    "custodian",
                    "serve",
                    "--directory",
                    site.directory,
                    *words,
                ],
                env=environment,
                stdout=out,
                stderr=out,
            )

    @property
    def said(self) -> str:
        return self._said.read_text()

    def ready(self) -> Self:
        until(lambda: " serves, by " in self.said or self.process.poll() is not None, "ready")
        assert self.process.poll() is None, self.said
        return self

    def port(self, what: str) -> int:
        return int(re.findall(rf"{what} on 127\.0\.0\.1:(\d+)", self.said)[0])

    def wire(self, who: Identity) -> Wire:
        return Wire(self.site, self.port("listening"), who)

    def monitor(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port('monitoring')}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    @property
    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.fixture
def made(memory_path: str) -> Running:
    """A custodian with a machine and a deposit, which is not served by this process any more."""
    with Running(memory_path) as running:
        running.deposit()
    return running


def released(made: Running, service: Service) -> int:
    """Get the fragment, and return the number of the entry."""
    wire = service.wire(made.identity)
    answered, request = made.release(wire)
    assert answered.status == 200, answered.body
    payload, proof = wire.signed(answered, release_messages.ANSWER_TYPE)
    assert opened(made.machine, payload, request) == SECRET
    log = made.site.log_signer(made.site.settings()).key
    return receipt.verify(proof, log).entry.number


def test_from_the_start_to_the_end(made: Running, memory_path: str) -> None:
    with Service(made.site, memory_path).ready() as service:
        assert len(service.workers) == 2
        numbers = [released(made, service) for _ in range(4)]
        assert numbers == sorted(set(numbers))
        assert service.monitor("/health") == (200, "serving\n")
        status, text = service.monitor("/metrics")
        assert status == 200
        assert "keyquorum_custodian_workers_ready 2\n" in text
        assert "keyquorum_custodian_releases 4\n" in text
        assert 'keyquorum_custodian_answers_total{status="200"} 8\n' in text
        assert "web-1" not in text
        assert service.monitor("/etc/passwd")[0] == 404
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0
    with made.store() as store:
        store.examine(made.site.log_signer(made.site.settings()).key).demand()


def test_old_evidence_is_forgotten_while_it_serves(made: Running, memory_path: str) -> None:
    """The first entry of this store is of the year 1970; what is put beside it is as old."""
    with made.store() as store:
        with store.writing() as database:
            database.execute("INSERT INTO evidence (number, result) VALUES (1, x'00')")
        assert store_listing.counts(store)["evidence"] == 1
        size = store.size

    def counts() -> dict[str, int]:
        with made.store() as store:
            return dict(store_listing.counts(store))

    with Service(made.site, memory_path).ready():
        until(lambda: counts()["evidence"] == 0, "forgotten")
        assert counts()["log_entries"] == size


def test_a_server_renews_its_certificate_and_shows_it(made: Running, memory_path: str) -> None:
    site, now = made.site, int(time.time())
    own, pem = site.authority(), Path(site.path("tls.pem"))
    first = x509.load_pem_x509_certificate(pem.read_bytes())
    four_years_old = own.reissue(first, now - 4 * 365 * 86400)
    site.put("tls.pem", four_years_old.public_bytes(Encoding.PEM) + own.certificate.public_bytes(Encoding.PEM))
    with Service(site, memory_path).ready() as service:

        def shown() -> bytes:
            with service.wire(made.identity).connect() as tls:
                return tls.getpeercert(binary_form=True) or b""

        until(lambda: new(pem) != four_years_old, "made anew")
        until(lambda: shown() == new(pem).public_bytes(Encoding.DER), "the new one is shown")
        released(made, service)
    found = new(pem)
    assert authority.key_der(found) == authority.key_der(first)
    assert authority.names_of(found) == [ORIGIN, "127.0.0.1"]
    assert site.renew(now) == []
    assert site.renew(now, early=True) == ["tls", "client"]
    assert site.client_key() == made.site.client_key()


def new(pem: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.read_bytes())


def another(before: list[int], now: list[int]) -> bool:
    return before[0] not in now and len(now) == len(before)


def test_a_worker_that_dies_is_started_again(made: Running, memory_path: str) -> None:
    with Service(made.site, memory_path).ready() as service:
        for _ in range(2):
            before = service.workers
            os.kill(before[0], signal.SIGKILL)
            until(lambda: another(before, service.workers), "another one")  # noqa: B023 (called at once)
            until(lambda: "workers_ready 2\n" in service.monitor("/metrics")[1], "two that serve")
            released(made, service)
        assert "ended with exit status -9" in service.said


def test_workers_end_with_their_supervisor(made: Running, memory_path: str) -> None:
    with Service(made.site, memory_path).ready() as service:
        workers = service.workers
        service.process.kill()
        service.process.wait(PATIENCE)
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), "no workers left")


def test_a_kill_at_any_moment_loses_nothing_that_was_said(made: Running, memory_path: str) -> None:
    """Whatever a machine was told is in the log; whatever is in the log may have been lost on the way."""
    told: list[int] = []
    for turn in range(3):
        with Service(made.site, memory_path).ready() as service:
            told += [released(made, service) for _ in range(1 + turn)]
            wire = service.wire(made.identity)
            request = release_messages.release_request(made.machine.request(wire.challenge()))
            over = wire.open()
            over.request("POST", "/v1/release", request)  # its answer is not waited for
            for pid in service.workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            service.process.kill()
            service.process.wait(PATIENCE)
            over.close()
    with made.store() as store:
        acts = {number: store.log.entry(number).act for number in range(store.size)}
        rows = {number for (number,) in store._database.execute("SELECT number FROM release")}
        assert set(told) <= rows
        assert rows == {number for number, act in acts.items() if act == "released"}
        store.examine(made.site.log_signer(made.site.settings()).key).demand()


def test_a_reload_reads_the_settings_again(made: Running, memory_path: str) -> None:
    with Service(made.site, memory_path).ready() as service:
        wire = service.wire(made.identity)
        assert wire.ask("/v1/log/entries?start=0").status == 403
        over = wire.open()
        assert wire.ask("/v1/log/checkpoint", over=over).status == 200
        changed = replace(made.site.settings(), auditors={"me": made.identity.hash})
        path = Path(made.site.path("custodian.toml"))
        path.write_bytes(b"junk")
        service.process.send_signal(signal.SIGHUP)
        until(lambda: service.said.count("is not TOML") == len(service.workers), "each complains")
        assert wire.ask("/v1/log/entries?start=0").status == 403, "the old settings go on"
        path.write_bytes(site_settings.serialise(changed))
        service.process.send_signal(signal.SIGHUP)
        until(lambda: all(wire.ask("/v1/log/entries?start=0").status == 200 for _ in range(6)), "new settings")
        assert wire.ask("/v1/log/checkpoint", over=over).status == 200, "the old connection goes on"
        over.close()


def test_what_keeps_it_from_starting_is_said(made: Running, memory_path: str) -> None:
    os.unlink(made.site.path("sealing.key"))
    with Service(made.site, memory_path) as service:
        assert service.process.wait(PATIENCE) == 1
        assert "sealing.key cannot be read" in service.said
        assert "a worker could not start" in service.said


def test_an_old_backup_is_not_served(made: Running, memory_path: str) -> None:
    path, backup = made.site.path("custodian.db"), os.path.join(memory_path, "backup.db")
    with made.store() as store:
        store.backup(backup)
        store.revoke_machine("web-1", OPERATOR, 1, "stolen")
        newest = store.sign_checkpoint(made.site.log_signer(made.site.settings()))
        missing = store.entries(
            checkpoint.verify(newest, made.site.log_signer(made.site.settings()).key).checkpoint.size - 1
        )
    for name in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + name)
    shutil.copy(backup, path)
    Path(made.site.path("newest.note")).write_bytes(newest)
    with Service(made.site, memory_path) as service:
        assert service.process.wait(PATIENCE) == 1
        assert "this is an old copy" in service.said
    old = open_store(path)
    old.catch_up(checkpoint.verify(newest, made.site.log_signer(made.site.settings()).key), missing)
    old.close()
    with Service(made.site, memory_path).ready() as service:
        wire = service.wire(made.identity)
        answered = wire.ask("/v1/challenge", release_messages.challenge_request(FRAGMENT))
        assert (answered.status, "is revoked" in answered.problem) == (403, True)


def test_a_store_that_nobody_vouches_for_is_not_served(memory_path: str) -> None:
    """Without witnesses, and without the word `unsafe`, nothing is written, so nothing is released."""
    site = a_site(os.path.join(memory_path, "site"), unsafe_without_witnesses=False)
    with Service(site, memory_path).ready() as service:
        assert service.monitor("/health")[0] == 503
        assert "not yet compared" in service.monitor("/health")[1]
        store = site.open_store(site.settings())
        assert not store.current
        store.close()


def test_an_enclave_asks_the_device_that_was_named(made: Running, memory_path: str) -> None:
    """Every worker knows it; this machine has none, and the answer says which one did not answer and how."""
    question = enclave_messages.request(EvidenceQuestion(fragment=FRAGMENT, nonce=bytes(32)))
    service = Service(made.site, memory_path, "--evidence", "tsm").ready()
    try:
        answered = service.wire(made.identity).ask("/v1/attest", question)
        assert answered.status == 503
        assert answered.problem.startswith("no evidence can be had now: /sys/kernel/config/tsm/report gives no report")
        assert int(answered.headers["retry-after"]) > 0
    finally:
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0


def test_a_custodian_that_is_no_enclave_says_so(made: Running, memory_path: str) -> None:
    question = enclave_messages.request(EvidenceQuestion(fragment=FRAGMENT, nonce=bytes(32)))
    service = Service(made.site, memory_path).ready()
    try:
        assert service.wire(made.identity).ask("/v1/attest", question).status == 404
    finally:
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0


def test_systemd_passes_the_socket(made: Running, memory_path: str) -> None:
    """As systemd-socket-activate does: descriptor 3, LISTEN_FDS and LISTEN_PID."""
    script = (
        "import os, socket, sys\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "os.dup2(s.fileno(), 3); os.set_inheritable(3, True)\n"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    said = Path(memory_path) / "said"
    words = ["-m", "keyquorum.cli.main", "custodian", "serve", "--directory", made.site.directory]
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *words], env={**os.environ, "PYTHONPATH": AGENT}, stdout=out, stderr=out
        )
    try:
        until(lambda: " serves, by " in said.read_text() or process.poll() is not None, "ready")
        (port,) = re.findall(r"listening on 127\.0\.0\.1:(\d+)", said.read_text())
        wire = Wire(made.site, int(port), made.identity)
        assert made.release(wire)[0].status == 200
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_the_digest_of_a_client_is_that_of_its_key(made: Running) -> None:
    """What an operator writes under auditors is what `openssl pkey -pubout -outform der | sha256sum` prints."""
    command = ["openssl", "pkey", "-in", made.identity.key, "-pubout", "-outform", "der"]
    public = subprocess.run(command, check=True, capture_output=True).stdout
    assert hashlib.sha256(public).digest() == made.identity.hash
    assert made.site.settings().origin == ORIGIN
