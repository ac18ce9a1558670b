# SPDX-License-Identifier: Apache-2.0
"""A machine enrols, deposits and gets back, with a TPM emulator and the custodian's real decisions, over real TLS."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from devices.custodian_core import OPERATOR, TOKEN, Core
from devices.holder_tasks import SUBJECT, Given, identity, open_task, seal_task
from devices.tpm_emulator import Emulator
from devices.tpm_support import client, extend, loaded
from keyquorum import settings
from keyquorum.cli import custodian_papers
from keyquorum.custodian import authority
from keyquorum.enroll.machine import enroll_machine
from keyquorum.enroll.renew import renew_machine
from keyquorum.enroll.request import Machine
from keyquorum.envelope.signing import Owner
from keyquorum.errors import (
    HolderError,
    KeyquorumError,
    MalformedError,
    RefusedError,
    TamperingError,
    UnavailableError,
    UsageError,
)
from keyquorum.evidence import ek_certificate, tpm_public
from keyquorum.holders import machine_certificates, machine_keys
from keyquorum.holders.contract import Tuning
from keyquorum.holders.custodian import HOLDER
from keyquorum.holders.custodian_exchange import load_identity
from keyquorum.model import invitation as invitations
from keyquorum.model import policy as policies
from keyquorum.tpm2 import commands
from unit.linux.tls_authority import CUSTODIAN, Authority
from unit.unlock.scene import free_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWNER = Owner(Ed25519PrivateKey.from_private_bytes(b"\x07" * 32))
PCRS = (0, 4, 7)


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        yield emulator


@pytest.fixture
def tuning(tpm: Emulator, tmp_path: Path) -> Tuning:
    return Tuning(tpm_device=tpm.device, machine=str(tmp_path / "machine.json"))


@pytest.fixture
def core(tuning: Tuning, tmp_path: Path) -> Iterator[Core]:
    before = free_memory()
    listed = ek_certificate.key_hash(tpm_public.parse(machine_keys.read_attested(tuning).ek, "EK"))
    with Core(str(tmp_path), listed) as made:
        yield made
    assert free_memory() == before, "secrets were left behind"


def machine(tuning: Tuning) -> Machine:
    return Machine(
        settings=settings.parse(""),
        tuning=tuning,
        answers=Given(),
        now=int(time.time()),
        tell=lambda _line: None,
        warn=lambda _line: None,
    )


def policy(tmp_path: Path, tpm: Emulator, **changes: Any) -> Any:
    """A policy with one custodian; the files of its papers are written as they are now right."""
    with client(tpm.device) as opened:
        values = commands.pcr_read(opened, "sha256", PCRS)
    now = int(time.time())
    reference = {
        "version": 1,
        "name": "web",
        "serial": 1,
        "issued": now - 60,
        "expires": now + 3600,
        "bank": "sha256",
        "pcrs": {str(pcr): [value.hex()] for pcr, value in values.items()},
        "log": None,
        "firmware": None,
        "clock": "any",
    }
    release = {
        "version": "1",
        "name": '"web"',
        "serial": "1",
        "issued": "2020-01-01",
        "expires": "2099-01-01",
        "volumes": f'["{SUBJECT.volume}"]',
        "machines": '["web-1"]',
        "attestation": '["trusted"]',
        **dict.fromkeys(("regions", "countries", "operators", "hours", "limits", "approvals"), '"any"'),
    } | changes
    (tmp_path / "reference.json").write_text(json.dumps(reference))
    (tmp_path / "release.toml").write_text("".join(f"{name} = {value}\n" for name, value in release.items()))
    holder = {"kind": "custodian", "id": CUSTODIAN}
    holder |= {"release": str(tmp_path / "release.toml"), "reference": str(tmp_path / "reference.json")}
    table = {"version": 1, "threshold": 1, "of": ["eu"], "holder": {"eu": holder}}
    return policies.parse(table | {"volume": {"allow_single_holder": True}}, "policy.toml")


def deposited(tuning: Tuning, tmp_path: Path, tpm: Emulator, kept: Any, **changes: Any) -> dict[str, Any]:
    read = policy(tmp_path, tpm, **changes)
    papers = dict(custodian_papers.sign(read, OWNER))["eu"]
    task = seal_task(read.holders[0].options, Given(), kept, tuning).with_(owner=OWNER, papers=papers)
    return HOLDER.seal(task)


def test_enrol_deposit_and_get_back(core: Core, tuning: Tuning, tmp_path: Path, tpm: Emulator) -> None:
    known = enroll_machine(machine(tuning), OWNER, core.invitation())
    assert known.machine == "web-1"
    assert os.stat(tuning.machine).st_mode & 0o777 == 0o600
    with identity() as kept:
        raw = bytes(kept.view)
        where = deposited(tuning, tmp_path, tpm, kept)
    assert where["pcrs"] == list(PCRS)
    with HOLDER.open(open_task(where, Given(), tuning, 30)).identity as found:
        assert bytes(found.view) == raw
    assert core.paths == ["/v1/enroll", "/v1/enroll", "/v1/deposit", "/v1/challenge", "/v1/release"]
    assert loaded(tpm.device) == []
    tpm.restart()
    with HOLDER.open(open_task(where, Given(), tuning, 30)).identity as found:
        assert bytes(found.view) == raw


def years_ago(core: Core, tuning: Tuning, years: int) -> None:
    """Give the machine the certificate that it would have, had it been enrolled then."""
    own, then = core.site.authority(), int(time.time()) - years * 365 * 86400
    known = load_identity(tuning.machine)
    ((name, there),) = known.custodians
    key = authority.key_der(x509.load_der_x509_certificate(there.chain[0]))
    old = own.issue_client(key, there.machine, {"country": "NO"}, then)
    chain, expires = (old.public_bytes(Encoding.DER),), int(old.not_valid_after_utc.timestamp())
    with open(tuning.machine, "wb") as file:
        file.write(known.knowing(name, there.with_(chain=chain, expires=expires)).to_json())


def warned(tuning: Tuning) -> list[str]:
    said: list[str] = []
    machine_certificates.warn(tuning.machine, int(time.time()), said.append)
    return said


def test_a_machine_that_was_off_for_years_is_told_the_way_back(
    core: Core, tuning: Tuning, tmp_path: Path, tpm: Emulator
) -> None:
    enroll_machine(machine(tuning), OWNER, core.invitation())
    with identity() as kept:
        raw = bytes(kept.view)
        where = deposited(tuning, tmp_path, tpm, kept)
    assert renew_machine(machine(tuning)) == ((), ()), "not due"
    assert warned(tuning) == []
    years_ago(core, tuning, 7)
    assert warned(tuning) == [f"this machine's certificate for {CUSTODIAN} is over: keyquorum machine renew"]
    with pytest.raises(UnavailableError) as refused:
        HOLDER.open(open_task(where, Given(), tuning, 30))
    assert "its certificate there is over" in refused.value.message
    assert "keyquorum machine renew" in refused.value.hint
    assert renew_machine(machine(tuning)) == ((CUSTODIAN,), ())
    assert warned(tuning) == []
    assert load_identity(tuning.machine).custodians[0][1].expires > time.time() + 4 * 365 * 86400
    with HOLDER.open(open_task(where, Given(), tuning, 30)).identity as found:
        assert bytes(found.view) == raw


def test_a_machine_file_with_a_certificate_that_is_none(core: Core, tuning: Tuning) -> None:
    enroll_machine(machine(tuning), OWNER, core.invitation())
    known = load_identity(tuning.machine)
    ((name, there),) = known.custodians
    with open(tuning.machine, "wb") as file:
        file.write(known.knowing(name, there.with_(chain=(b"junk",))).to_json())
    renewed, (problem,) = renew_machine(machine(tuning))
    assert (renewed, "no X.509 certificate" in problem.message) == ((), True)


def test_a_certificate_is_renewed_before_its_end_and_a_revoked_machine_keeps_its_old_one(
    core: Core, tuning: Tuning
) -> None:
    enroll_machine(machine(tuning), OWNER, core.invitation())
    years_ago(core, tuning, 4)
    assert renew_machine(machine(tuning)) == ((CUSTODIAN,), ())
    years_ago(core, tuning, 4)
    before = load_identity(tuning.machine)
    with contextlib.closing(core.site.open_store(core.site.settings())) as store:
        store.revoke_machine("web-1", OPERATOR, int(time.time()), "")
    renewed, (problem,) = renew_machine(machine(tuning))
    assert (renewed, "web-1 is revoked" in problem.message) == ((), True)
    assert load_identity(tuning.machine) == before


def test_another_system_is_denied_in_words(core: Core, tuning: Tuning, tmp_path: Path, tpm: Emulator) -> None:
    enroll_machine(machine(tuning), OWNER, core.invitation())
    with identity() as kept:
        where = deposited(tuning, tmp_path, tpm, kept)
    extend(tpm.device, 7)
    with pytest.raises(RefusedError, match=f"{CUSTODIAN} denies it: .*expected .*, found .*") as denied:
        HOLDER.open(open_task(where, Given(), tuning, 30))
    assert not denied.value.tampered


def test_a_person_must_approve(core: Core, tuning: Tuning, tmp_path: Path, tpm: Emulator) -> None:
    enroll_machine(machine(tuning), OWNER, core.invitation())
    approvals = f'{{ needed = 1, of = {{ anna = "{OWNER.public.raw.hex()}" }}, within = "1h" }}'
    with identity() as kept:
        where = deposited(tuning, tmp_path, tpm, kept, approvals=approvals)
    with pytest.raises(HolderError, match="waits for a person's approval of request") as waiting:
        HOLDER.open(open_task(where, Given(), tuning, 30))
    assert getattr(waiting.value, "retry_after", 0.0) > 0


def test_a_token_is_good_once(core: Core, tuning: Tuning) -> None:
    enroll_machine(machine(tuning), OWNER, core.invitation())
    with open(tuning.machine, "rb") as file:
        before = file.read()
    with pytest.raises(KeyquorumError):
        enroll_machine(machine(tuning), OWNER, core.invitation())
    with open(tuning.machine, "rb") as file:
        assert file.read() == before


def test_a_wrong_token_and_another_name_are_refused(core: Core, tuning: Tuning) -> None:
    for changes in ({"token": bytes(16)}, {"machine": "db-1"}):
        with pytest.raises(KeyquorumError, match="gives this machine nothing"):
            enroll_machine(machine(tuning), OWNER, core.invitation(**changes))
    assert not os.path.exists(tuning.machine)


def test_a_tpm_that_nobody_listed_is_refused(core: Core, tuning: Tuning, tmp_path: Path) -> None:
    with Emulator(str(tmp_path / "another")) as other:
        elsewhere = tuning.with_(tpm_device=other.device)
        with pytest.raises(RefusedError, match="the machine's keys do not hold"):
            enroll_machine(machine(elsewhere), OWNER, core.invitation())
    assert not os.path.exists(tuning.machine)


def test_an_impostor_gets_no_token(core: Core, tuning: Tuning) -> None:
    with pytest.raises(HolderError, match="who answers is not"):
        enroll_machine(machine(tuning), OWNER, core.invitation(authority=Authority().der))
    assert core.paths == []


@pytest.mark.parametrize("number", [0, 1])
def test_an_answer_of_another_key_is_refused(core: Core, tuning: Tuning, number: int) -> None:
    stranger = Owner(Ed25519PrivateKey.generate())
    invitation = core.invitation(key=stranger.public.raw) if number == 0 else core.invitation()
    if number:
        core.change = lambda path, status, body: (
            status,
            body if core.paths == [path] else body.replace(b"sig", b"sog"),
        )
    with pytest.raises(TamperingError):
        enroll_machine(machine(tuning), OWNER, invitation)
    assert not os.path.exists(tuning.machine)


def test_a_custodian_founded_anew_is_not_taken_for_the_old_one(core: Core, tuning: Tuning) -> None:
    enroll_machine(machine(tuning), OWNER, core.invitation())
    with pytest.raises(UsageError, match="has another signing key"):
        enroll_machine(machine(tuning), OWNER, core.invitation(key=bytes(32)))


def test_a_machine_that_is_not_enrolled_deposits_nothing(
    core: Core, tuning: Tuning, tmp_path: Path, tpm: Emulator
) -> None:
    with identity() as kept, pytest.raises(HolderError, match="enrolled at no custodian"):
        deposited(tuning, tmp_path, tpm, kept)
    assert core.paths == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"volumes": '["00000000-0000-0000-0000-000000000000"]'}, "is not for volume"),
        ({"machines": '["db-1"]'}, "is not for machine web-1"),
    ],
)
def test_papers_that_would_fail_at_a_boot_are_refused_now(
    changes: dict[str, str], words: str, core: Core, tuning: Tuning, tmp_path: Path, tpm: Emulator
) -> None:
    enroll_machine(machine(tuning), OWNER, core.invitation())
    with identity() as kept, pytest.raises(KeyquorumError, match=words):
        deposited(tuning, tmp_path, tpm, kept, **changes)


def test_papers_are_read_before_anything_changes(tmp_path: Path, tpm: Emulator) -> None:
    custodian_papers.refuse_unreadable(policy(tmp_path, tpm), SUBJECT.volume)
    with pytest.raises(UsageError, match="is not for volume"):
        custodian_papers.refuse_unreadable(policy(tmp_path, tpm), "00000000-0000-0000-0000-000000000000")
    with pytest.raises(MalformedError, match=r"release\.toml: serial"):
        custodian_papers.refuse_unreadable(policy(tmp_path, tpm, serial='"x"'), SUBJECT.volume)
    read = policy(tmp_path, tpm)
    (tmp_path / "reference.json").write_text("{}")
    with pytest.raises(MalformedError, match=r"reference\.json"):
        custodian_papers.refuse_unreadable(read, SUBJECT.volume)
    (tmp_path / "release.toml").unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        custodian_papers.refuse_unreadable(read, SUBJECT.volume)


def test_an_invitation(core: Core) -> None:
    table: dict[str, Any] = json.loads(core.invitation_file())
    assert invitations.parse(json.dumps(table).encode(), "x").addresses[0].port == 8443
    assert TOKEN.hex() not in repr(core.invitation())
    other = table["log_key"].replace("eu-1", "eu-2")
    changed = {
        "version": 2,
        "command": "enroll",
        "exit_code": 1,
        "custodian": "not/a/name",
        "machine": "",
        "token": "00",
        "expires": -1,
        "log_key": other,
        "authority": "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    }
    assert changed.keys() == table.keys()
    for name, value in changed.items():
        with pytest.raises(MalformedError, match=name):
            invitations.parse(json.dumps(table | {name: value}).encode(), "x")
        with pytest.raises(MalformedError):
            invitations.parse(json.dumps({n: v for n, v in table.items() if n != name}).encode(), "x")
    for key in ("", "a+b+c", table["log_key"][:-4], table["log_key"] + "=", "+".join(("x", *other.split("+")[1:]))):
        with pytest.raises(MalformedError, match="log_key"):
            invitations.parse(json.dumps(table | {"log_key": key}).encode(), "x")
