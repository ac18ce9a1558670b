# SPDX-License-Identifier: Apache-2.0
"""`keyquorum attest serve` as a process, and a custodian that has it judge a machine, over real TLS."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from devices.custodian_site import PATIENCE, Running, a_site, until
from keyquorum.custodian import authority, site_settings
from keyquorum.custodian.site_settings import Address, AppraiserSettings
from keyquorum.linux import owner_key
from keyquorum.model import release_messages
from unit.custodian.notes import private
from unit.evidence.tpm_maker import NOW

AGENT = str(Path(__file__).resolve().parents[2] / "agent")
NAME = "appraiser.example"
KEY = private(60)


class Service:
    """The process; `clients` are the authorities whose certificates it takes."""

    def __init__(self, directory: Path, clients: str) -> None:
        site = a_site(str(directory / "appraiser"))
        own, key = site.authority(), authority.new_key()
        self.authority = site.path("authority.pem")
        (directory / "tls.pem").write_bytes(
            own.issue_server(key.public_key(), [NAME], NOW - 86400 * 200).public_bytes(Encoding.PEM)
        )
        for name, data in (("tls.key", authority.key_pem(key)), ("sign.key", owner_key.pem(KEY))):
            (directory / name).write_bytes(data)
            (directory / name).chmod(0o600)
        self._said = directory / "said"
        files = ("--certificate", "tls.pem", "--tls-key", "tls.key", "--clients", clients, "--key", "sign.key")
        words = ["attest", "serve", "--name", NAME, "--listen", "127.0.0.1:0", *files]
        with self._said.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "keyquorum.cli.main", *words],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": AGENT},
                stdout=out,
                stderr=out,
            )
        until(lambda: " signs by " in self.said or self._process.poll() is not None, "ready")
        assert self._process.poll() is None, self.said

    @property
    def said(self) -> str:
        return self._said.read_text()

    @property
    def port(self) -> int:
        return int(re.findall(r"listening on 127\.0\.0\.1:(\d+)", self.said)[0])

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.fixture
def made(memory_path: str) -> Iterator[Running]:
    with Running(memory_path) as running:
        running.deposit()
        yield running


def appoint(made: Running, service: Service, name: str = NAME) -> None:
    """Tell the custodian by whom machines are judged from now on."""
    with open(service.authority, "rb") as file:
        made.site.put("appraiser.pem", file.read())
    at = Address(host="127.0.0.1", port=service.port)
    key = KEY.public_key().public_bytes_raw()
    settings = replace(made.site.settings(), appraiser=AppraiserSettings(at=at, name=name, key=key))
    made.site.put("custodian.toml", site_settings.serialise(settings))
    made.reopen()


def test_a_machine_is_released_to_on_anothers_word(made: Running, tmp_path: Path) -> None:
    with Service(tmp_path, made.site.path("authority.pem")) as service:
        assert KEY.public_key().public_bytes_raw().hex() in service.said
        appoint(made, service)
        answered, request = made.release(made.wire())
        assert answered.status == 200, answered.body
        payload, _ = made.wire().signed(answered, release_messages.ANSWER_TYPE)
        assert b'"released"' in payload
        assert service.stop() == 0
    answered, _ = made.release(made.wire())
    assert answered.status == 403, "nobody judges any more, so nobody is trusted"
    assert b"unreachable" in made.wire().signed(answered, release_messages.ANSWER_TYPE)[0]
    assert request.nonce


def test_who_has_another_certificate_is_not_the_service(made: Running, tmp_path: Path) -> None:
    with Service(tmp_path, made.site.path("authority.pem")) as service:
        appoint(made, service, name="other.example")
        answered, _ = made.release(made.wire())
        assert answered.status == 403
        assert b"unreachable" in made.wire().signed(answered, release_messages.ANSWER_TYPE)[0]


def test_a_custodian_that_the_service_does_not_know_learns_nothing(made: Running, tmp_path: Path) -> None:
    stranger = a_site(str(tmp_path / "stranger"))
    with Service(tmp_path, stranger.path("authority.pem")) as service:
        appoint(made, service)
        answered, _ = made.release(made.wire())
        assert answered.status == 403
        assert b"unreachable" in made.wire().signed(answered, release_messages.ANSWER_TYPE)[0]


def test_a_key_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    words = ["attest", "serve", "--name", NAME, "--certificate", "a", "--tls-key", "b", "--clients", "c"]
    done = subprocess.run(
        [sys.executable, "-m", "keyquorum.cli.main", *words, "--key", str(tmp_path / "none")],
        env={**os.environ, "PYTHONPATH": AGENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "there is no key" in done.stderr
