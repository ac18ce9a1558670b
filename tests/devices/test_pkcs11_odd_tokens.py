# SPDX-License-Identifier: Apache-2.0
"""What tokens other than SoftHSM2 do, and what a broken or hostile module might (odd_module.c wraps SoftHSM2)."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from pathlib import Path

import pytest

from devices.holder_tasks import Given, identity, open_task, seal_task
from devices.tokens import PIN, SOFTHSM, SoftHsm, SoftToken
from keyquorum.errors import KeyquorumError, RefusedError, UnavailableError
from keyquorum.holders import load
from keyquorum.holders.contract import Tuning
from keyquorum.model.holder_options import Pkcs11Options

HOLDER = load("pkcs11")
URI = "pkcs11:object=kq"


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> str:
    built = tmp_path_factory.mktemp("odd") / "odd.so"
    source = Path(__file__).parent / "odd_module.c"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-I/usr/include/p11-kit-1", f'-DSOFTHSM="{SOFTHSM}"', "-o", built, source, "-ldl"],
        check=True,
    )
    return str(built)


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftToken:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    return SoftHsm(tmp_path).add_token()


class Machine:
    """A token behind the odd module."""

    def __init__(self, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tuning, self._patch, self.kept = Tuning(pkcs11_modules=(module,)), monkeypatch, identity()

    def be(self, oddity: str) -> None:
        self._patch.setenv("ODD", oddity)

    def seal(self, answers: Given | None = None) -> dict[str, object]:
        return HOLDER.seal(seal_task(Pkcs11Options(uri=URI), answers or Given([PIN.encode()]), self.kept, self.tuning))

    def opens(self, where: dict[str, object], answers: Given | None = None, seconds: float = 60) -> bool:
        task = open_task(where, answers or Given([PIN.encode()]), self.tuning, seconds)
        with HOLDER.open(task).identity as found:
            return found.equals(self.kept)


@pytest.fixture
def machine(module: str, token: SoftToken, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("ODD", raising=False)
    return Machine(module, monkeypatch)


def test_the_module_itself_is_a_good_one(machine: Machine, token: SoftToken) -> None:
    token.make_key("rsa:2048")
    assert machine.opens(machine.seal())


def test_last_try_is_said_to_a_person(machine: Machine, token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    where = machine.seal()
    machine.be("final-try")
    answers = Given([PIN.encode()])
    assert machine.opens(where, answers)
    assert answers.asked[0].endswith(", last try before it locks")
    with pytest.raises(RefusedError, match="is wrong, and one try is left before it locks"):
        machine.opens(where, Given([b"0000"]))


def test_a_stored_pin_never_gets_the_last_try(machine: Machine, token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    where = machine.seal()
    machine.be("final-try")
    stored = Given([PIN.encode()], stored=True)
    with pytest.raises(RefusedError, match="has one try left before its PIN locks") as caught:
        machine.opens(where, stored)
    assert "correct the stored PIN" in caught.value.hint
    assert stored.asked == []


def test_locked_pin_is_not_even_asked_for(machine: Machine, token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    where = machine.seal()
    machine.be("locked")
    answers = Given([PIN.encode()])
    with pytest.raises(RefusedError, match=r"^the PIN of token .* is locked$") as caught:
        machine.opens(where, answers)
    assert "security officer" in caught.value.hint
    assert answers.asked == []


def test_expired_pin(machine: Machine, token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    where = machine.seal()
    machine.be("expired")
    with pytest.raises(RefusedError, match="has expired"):
        machine.opens(where)


def test_pin_pad(machine: Machine, token: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    token.make_key("EC:prime256v1")
    machine.be("keypad")
    monkeypatch.setenv("KEYPAD", PIN)
    nobody = Given()
    where = machine.seal(nobody)
    assert where["login"] == "keypad"
    assert HOLDER.needs_person(where)
    assert machine.opens(where, nobody)
    assert nobody.asked == []


@pytest.mark.parametrize("oddity", ["der-point", "bare-point"])
def test_both_ways_to_write_a_point(machine: Machine, token: SoftToken, oddity: str) -> None:
    token.make_key("EC:prime256v1")
    plain = machine.seal()
    machine.be(oddity)
    odd = machine.seal()
    assert odd["key"] == plain["key"]
    assert machine.opens(plain)
    machine.be("")
    assert machine.opens(odd)


def test_a_token_that_decrypts_wrongly_is_not_enrolled(machine: Machine, token: SoftToken) -> None:
    token.make_key("rsa:2048")
    where = machine.seal()
    machine.be("liar")
    with pytest.raises(KeyquorumError, match="rsa-oaep-sha1 gives something else back"):
        machine.seal()
    with pytest.raises(RefusedError, match="it decrypts to something else"):
        machine.opens(where)


@pytest.mark.parametrize("kind", ["rsa:2048", "EC:prime256v1"])
@pytest.mark.parametrize("oddity", ["sizes", "growing", "count", "length"])
def test_sizes_that_a_module_invents(machine: Machine, token: SoftToken, kind: str, oddity: str) -> None:
    """They end in an answer of ours, never beyond our memory."""
    token.make_key(kind)
    where = machine.seal()
    machine.be(oddity)
    for attempt in (machine.seal, lambda: machine.opens(where)):
        with contextlib.suppress(KeyquorumError):
            attempt()


def test_token_pulled_while_in_use(machine: Machine, token: SoftToken) -> None:
    token.make_key("rsa:2048")
    where = machine.seal()
    machine.be("removed")
    with pytest.raises(UnavailableError, match=r'^token "vault" .* was removed$'):
        machine.opens(where)


def test_unreadable_token(machine: Machine, token: SoftToken) -> None:
    token.make_key("rsa:2048")
    where = machine.seal()
    machine.be("unreadable")
    with pytest.raises(UnavailableError, match="no token that is attached fits"):
        machine.opens(where)


def test_hostile_label_reaches_nobody(machine: Machine, token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    where = machine.seal()
    machine.be("hostile-label")
    answers = Given([b"0000"])
    with pytest.raises(RefusedError) as caught:
        machine.opens(where, answers)
    assert caught.value.message.isprintable()
    assert answers.asked[0].isprintable()


def test_broken_module(module: str, token: SoftToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "broken.so"
    copy.write_bytes(Path(module).read_bytes())
    monkeypatch.setenv("ODD", "broken")
    with pytest.raises(UnavailableError, match=r"no token .*; C_GetFunctionList: general error \(0x5\)$"):
        HOLDER.seal(seal_task(Pkcs11Options(uri=URI), Given(), identity(), Tuning(pkcs11_modules=(str(copy),))))


def test_module_without_a_function(
    module: str, token: SoftToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "incomplete.so"
    copy.write_bytes(Path(module).read_bytes())
    monkeypatch.setenv("ODD", "incomplete")
    token.make_key("EC:prime256v1")
    with pytest.raises(KeyquorumError, match=r"C_DeriveKey: function not supported"):
        HOLDER.seal(
            seal_task(Pkcs11Options(uri=URI), Given([PIN.encode()]), identity(), Tuning(pkcs11_modules=(str(copy),)))
        )


def test_a_slow_token_delays_another_fragment_no_longer_than_its_deadline(
    machine: Machine, token: SoftToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token.make_key("EC:prime256v1")
    where, gate, entered = machine.seal(), tmp_path / "gate", tmp_path / "entered"
    monkeypatch.setenv("GATE", str(gate))
    monkeypatch.setenv("ENTERED", str(entered))
    machine.be("slow")
    slow = threading.Thread(target=machine.opens, args=(where,))
    slow.start()
    try:
        while not entered.exists():
            assert slow.is_alive(), "it ended before it came to the token"
            time.sleep(0.01)
        with pytest.raises(UnavailableError, match="is busy with another fragment"):
            machine.opens(where, seconds=0.1)
    finally:
        gate.touch()
        slow.join()
