# SPDX-License-Identifier: Apache-2.0
"""The pkcs11 holder on real SoftHSM2 tokens: opening, and everything that must not open."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import pytest

from devices.holder_tasks import Given, identity, open_task, seal_task
from devices.tokens import PIN, SOFTHSM, SoftHsm, SoftToken, tool
from keyquorum.errors import RefusedError, TamperingError, UnavailableError
from keyquorum.holders import load
from keyquorum.holders.contract import Tuning
from keyquorum.model.holder_options import Pkcs11Options
from keyquorum.secret import Identity

HOLDER = load("pkcs11")
TUNING = Tuning(pkcs11_modules=(SOFTHSM,))
URI = "pkcs11:token=vault;object=kq"
KINDS = ("rsa:2048", "rsa:3072", "EC:prime256v1", "EC:secp384r1")
_FLAGS_AFTER_A_WRONG_PIN = "user PIN count low"


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    return SoftHsm(tmp_path)


@pytest.fixture
def token(hsm: SoftHsm) -> SoftToken:
    return hsm.add_token()


def pin(value: str = PIN) -> Given:
    return Given([value.encode()])


def seal(kept: Identity, uri: str = URI, tuning: Tuning = TUNING, **changes: Any) -> dict[str, Any]:
    return HOLDER.seal(seal_task(Pkcs11Options(uri=uri), pin(), kept, tuning, **changes))


def opens(where: dict[str, Any], kept: Identity, tuning: Tuning = TUNING, **changes: Any) -> bool:
    with HOLDER.open(open_task(where, pin(), tuning, **changes)).identity as found:
        return found.equals(kept)


def wrong_pin_seen(token: SoftToken) -> bool:
    shown = tool("pkcs11-tool", "--module", SOFTHSM, "--list-slots")
    return _FLAGS_AFTER_A_WRONG_PIN in shown.split(token.serial)[0].rpartition("token label")[2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_token_gives_the_identity_back(token: SoftToken, kind: str) -> None:
    token.make_key(kind)
    kept, asked = identity(), pin()
    where = HOLDER.seal(seal_task(Pkcs11Options(uri=URI), asked, kept, TUNING))
    assert asked.asked == [f'PIN of token "vault" (serial {token.serial}) for second']
    assert (
        where["mechanism"]
        == {
            "rsa:2048": "rsa-oaep-sha1",  # SoftHSM2 knows no other hash for OAEP
            "rsa:3072": "rsa-oaep-sha1",
            "EC:prime256v1": "ecdh-p256",
            "EC:secp384r1": "ecdh-p384",
        }[kind]
    )
    assert (where["uri"], where["serial"], where["login"]) == (URI, token.serial, "pin")
    assert HOLDER.needs_person(where)
    assert opens(where, kept)
    assert opens(where, kept)


def test_two_wrappings_of_one_identity_differ(token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    kept = identity()
    first, second = seal(kept), seal(kept)
    assert first["encapsulated"] != second["encapsulated"]
    assert first["wrapped"] != second["wrapped"]


def test_key_by_id_and_by_serial_of_the_token(token: SoftToken) -> None:
    token.make_key("EC:prime256v1", "one", "0a25ff")
    token.make_key("EC:prime256v1", "two", "0b")
    kept = identity()
    for uri in (
        "pkcs11:id=%0a%25%FF",
        f"pkcs11:serial={token.serial};object=one;type=private",
        f"pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;id=%0A%25%ff;slot-id={token.slot}",
    ):
        where = seal(kept, uri)
        assert opens(where, kept)


def test_binding_to_volume_set_and_name_but_not_to_the_epoch(token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    kept = identity()
    where = seal(kept)
    assert opens(where, kept, epoch=9, index=7)
    for change in ({"volume": "0" * 36}, {"set_id": bytes(16)}, {"name": "other"}):
        with pytest.raises(RefusedError, match=r'^the key "kq" on token "vault" .* does not open this fragment'):
            opens(where, kept, **change)


def test_wrong_pin(token: SoftToken) -> None:
    token.make_key("rsa:2048")
    kept = identity()
    where = seal(kept)
    assert not wrong_pin_seen(token)
    for wrong in ("731943", "7", "x" * 300):
        with pytest.raises(RefusedError, match=r'^the PIN of token "vault" .* is wrong; the token counts wrong tries$'):
            HOLDER.open(open_task(where, pin(wrong), TUNING))
    assert wrong_pin_seen(token)
    asked = pin()
    with HOLDER.open(open_task(where, asked, TUNING)).identity as found:
        assert found.equals(kept)
    assert asked.asked == [f'PIN of token "vault" (serial {token.serial}) for second, a wrong one was tried before']


def test_wrong_pin_at_enrolment(token: SoftToken) -> None:
    token.make_key("rsa:2048")
    with pytest.raises(RefusedError, match="is wrong"):
        HOLDER.seal(seal_task(Pkcs11Options(uri=URI), pin("1111"), identity(), TUNING))


def test_nobody_types_the_pin(token: SoftToken) -> None:
    token.make_key("rsa:2048")
    where = seal(identity())
    with pytest.raises(UnavailableError, match=r"^nothing was typed$"):
        HOLDER.open(open_task(where, Given(), TUNING))


def test_token_that_is_not_attached_and_comes_later(hsm: SoftHsm, token: SoftToken, tmp_path: Path) -> None:
    token.make_key("EC:prime256v1")
    kept = identity()
    where = seal(kept)
    (tmp_path / "tokens").rename(tmp_path / "pulled")
    (tmp_path / "tokens").mkdir()
    answers = pin()
    with pytest.raises(UnavailableError, match=r"^no token that is attached fits pkcs11:token=vault;object=kq$"):
        HOLDER.open(open_task(where, answers, TUNING))
    assert answers.asked == []
    (tmp_path / "tokens").rmdir()
    (tmp_path / "pulled").rename(tmp_path / "tokens")
    assert opens(where, kept)


def test_of_two_tokens_with_one_label_only_the_right_one_gets_the_pin(hsm: SoftHsm) -> None:
    tokens = [hsm.add_token("vault"), hsm.add_token("vault")]
    kept = identity()
    for right, other in (tokens, tokens[::-1]):
        right.make_key("EC:prime256v1")
        where = seal(kept)
        other.make_key("EC:prime256v1")
        other.command("--change-pin", "--new-pin", "555555")
        assert opens(where, kept)
        assert not wrong_pin_seen(other)
        other.command("--change-pin", "--new-pin", PIN, pin="555555")
        for one in tokens:
            one.delete_key()


@pytest.mark.parametrize("kind", ["rsa:2048", "EC:prime256v1"])
def test_a_foreign_key_with_the_same_label_and_id_is_named(token: SoftToken, kind: str) -> None:
    token.make_key(kind)
    where = seal(identity())
    token.delete_key()
    token.make_key(kind)
    answers = pin()
    with pytest.raises(
        RefusedError, match=r"is another one than was enrolled: its fingerprint is [0-9a-f]{16}…, "
    ) as caught:
        HOLDER.open(open_task(where, answers, TUNING))
    assert where["key"][:16] in caught.value.message
    assert answers.asked == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_that_shows_no_public_key_is_known_by_its_serial(hsm: SoftHsm, token: SoftToken, kind: str) -> None:
    token.make_key(kind)
    kept = identity()
    where = seal(kept)
    token.delete_public()
    other = hsm.add_token("vault")
    other.command("--change-pin", "--new-pin", "555555")
    assert opens(where, kept)
    hsm.remove_token(token)
    with pytest.raises(
        UnavailableError, match=rf"^no token shows the key \"kq\": .* enrolled was serial {token.serial}$"
    ):
        opens(where, kept)
    assert not wrong_pin_seen(other)


@pytest.mark.parametrize("kind", ["rsa:2048", "EC:prime256v1"])
def test_a_hidden_foreign_key_does_not_open(token: SoftToken, kind: str) -> None:
    token.make_key(kind)
    kept = identity()
    where = seal(kept)
    token.delete_key()
    token.make_key(kind)
    token.delete_public()
    words = "is another one than was enrolled" if kind.startswith("rsa") else "does not open this fragment"
    with pytest.raises(RefusedError, match=words):
        opens(where, kept)


def test_the_private_key_is_gone(token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    where = seal(identity())
    token.command("--delete-object", "--type", "privkey", "--id", "01")
    with pytest.raises(UnavailableError, match=r'has no private key "kq"$'):
        HOLDER.open(open_task(where, pin(), TUNING))


def test_a_key_that_wants_the_pin_for_every_use(token: SoftToken) -> None:
    token.make_key("rsa:2048", "kq", "01", "--sensitive", "--usage-decrypt", "--always-auth")
    kept = identity()
    where = seal(kept)
    assert opens(where, kept)


@pytest.mark.parametrize("field", ["encapsulated", "wrapped"])
@pytest.mark.parametrize("kind", ["rsa:2048", "EC:prime256v1"])
def test_altered_values_do_not_open(token: SoftToken, kind: str, field: str) -> None:
    token.make_key(kind)
    where = seal(identity())
    altered = bytearray(base64.b64decode(where[field]))
    altered[-1] ^= 1
    where[field] = base64.b64encode(altered).decode()
    with pytest.raises(RefusedError, match="does not open this fragment"):
        HOLDER.open(open_task(where, pin(), TUNING))


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("uri", "pkcs11:token=vault?pin-value=1", "pin-value: a PIN is asked for, never stored"),
        ("uri", "file:///", "must start with pkcs11:"),
        ("mechanism", "rsa-pkcs", "is none of"),
        ("encapsulated", "!", "base64"),
        ("wrapped", "AAAA", "has 3 bytes, not 48"),
        ("key", "00", "must be 64 hexadecimal digits"),
        ("login", "maybe", "is none of"),
        ("version", 2, "2 is not known here"),
        ("module", "/tmp/evil.so", "is not known here"),
        ("serial", None, "is missing"),
    ],
)
def test_what_the_set_says_is_read_strictly(field: str, value: object, problem: str) -> None:
    where: dict[str, Any] = {
        "version": 1,
        "uri": URI,
        "mechanism": "ecdh-p256",
        "encapsulated": "AAAA",
        "wrapped": base64.b64encode(bytes(48)).decode(),
        "key": "00" * 32,
        "serial": "1",
        "login": "pin",
    } | {field: value}
    if value is None:
        del where[field]
    with pytest.raises(TamperingError, match=problem):
        HOLDER.open(open_task(where, pin(), TUNING))


def test_another_mechanism_does_not_open(token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    where = seal(identity())
    for mechanism in ("ecdh-p384", "rsa-oaep-sha1", "rsa-oaep-sha256"):
        with pytest.raises(RefusedError, match="does not open this fragment"):
            HOLDER.open(open_task(where | {"mechanism": mechanism}, pin(), TUNING))


def test_modules_that_cannot_be_loaded_are_named_but_do_not_hide_others(token: SoftToken, tmp_path: Path) -> None:
    token.make_key("EC:prime256v1")
    kept = identity()
    text = tmp_path / "text.so"
    text.write_text("no module")
    where = seal(kept)
    tuning = Tuning(pkcs11_modules=(str(text), str(tmp_path / "missing.so"), "libc.so.6", SOFTHSM))
    assert opens(where, kept, tuning)
    with pytest.raises(UnavailableError) as caught:
        opens(where, kept, Tuning(pkcs11_modules=tuning.pkcs11_modules[:3]))
    assert caught.value.message.count("cannot be loaded") == 3
    assert "missing.so" in caught.value.message


def test_modules_by_default_are_those_that_p11_kit_knows(token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    kept = identity()
    where = seal(kept, tuning=Tuning())
    assert opens(where, kept, Tuning())
    assert opens(where, kept, TUNING)


def test_one_token_reached_by_two_modules_is_one_token(token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    kept = identity()
    both = Tuning(pkcs11_modules=(SOFTHSM, "p11-kit-proxy.so"))
    assert opens(seal(kept, tuning=both), kept, both)


def test_fragments_of_one_token_opened_side_by_side(token: SoftToken) -> None:
    token.make_key("EC:prime256v1", "kq", "01")
    token.make_key("rsa:2048", "kr", "02")
    kept = identity()
    wheres = [seal(kept), seal(kept, "pkcs11:object=kr")] * 8
    results: list[bool] = []
    threads = [threading.Thread(target=lambda w=where: results.append(opens(w, kept))) for where in wheres]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [True] * 16


def test_nothing_to_erase(token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    kept = identity()
    where = seal(kept)
    HOLDER.erase(open_task(where, Given(), TUNING))
    HOLDER.retire(open_task(where, Given(), TUNING))
    assert opens(where, kept)
