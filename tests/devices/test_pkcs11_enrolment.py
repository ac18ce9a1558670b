# SPDX-License-Identifier: Apache-2.0
"""Which keys the pkcs11 holder refuses to enrol, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.holder_tasks import Given, identity, seal_task
from devices.tokens import PIN, SOFTHSM, SoftHsm, SoftToken
from keyquorum.errors import MalformedError, UnavailableError, UsageError
from keyquorum.holders import load
from keyquorum.holders.contract import Tuning
from keyquorum.model.holder_options import Pkcs11Options

HOLDER = load("pkcs11")
TUNING = Tuning(pkcs11_modules=(SOFTHSM,))
URI = "pkcs11:token=vault;object=kq"


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    return SoftHsm(tmp_path)


@pytest.fixture
def token(hsm: SoftHsm) -> SoftToken:
    return hsm.add_token()


def enrol(uri: str = URI) -> None:
    HOLDER.seal(seal_task(Pkcs11Options(uri=uri), Given([PIN.encode()]), identity(), TUNING))


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        ("rsa:2048", ("--sensitive", "--usage-decrypt", "--extractable"), "it can be copied out of the token"),
        ("EC:prime256v1", ("--sensitive", "--usage-derive", "--extractable"), "it can be copied out of the token"),
        ("EC:prime256v1", ("--sensitive", "--usage-sign"), r"it may not derive \(CKA_DERIVE is false\)"),
        ("rsa:1024", ("--sensitive", "--usage-decrypt"), "an RSA key of 1024 bits, not from 2048 to 16384"),
        ("EC:secp521r1", ("--sensitive", "--usage-derive"), "its curve is neither P-256 nor P-384"),
        ("EC:edwards25519", ("--sensitive", "--usage-sign"), "it is neither an RSA nor an EC key"),
    ],
)
def test_unfit_keys(token: SoftToken, kind: str, options: tuple[str, ...], problem: str) -> None:
    token.make_key(kind, "kq", "01", *options)
    with pytest.raises(UsageError, match=rf'^the key "kq" on token "vault" .* is not fit: .*{problem}') as caught:
        enrol()
    assert "not extractable" in caught.value.hint


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"SENSITIVE": False}, r"it can be read in plaintext \(CKA_SENSITIVE is false\)"),
        ({"EXTRACTABLE": True}, r"it can be copied out of the token \(CKA_EXTRACTABLE is true\)"),
        ({"DECRYPT": False}, r"it may not decrypt \(CKA_DECRYPT is false\)"),
    ],
)
def test_one_wrong_attribute(token: SoftToken, attributes: dict[str, bool], problem: str) -> None:
    token.make_rsa_key_with(2048, **attributes)
    with pytest.raises(UsageError, match=rf"is not fit: {problem}$"):
        enrol()


def test_every_problem_is_said_at_once(token: SoftToken) -> None:
    token.make_rsa_key_with(1024, SENSITIVE=False, EXTRACTABLE=True, DECRYPT=False)
    with pytest.raises(UsageError) as caught:
        enrol()
    assert caught.value.message.count(";") == 3


def test_a_key_made_by_another_library(token: SoftToken) -> None:
    token.make_rsa_key_with(2048, SENSITIVE=True, EXTRACTABLE=False, DECRYPT=True)
    enrol()


def test_ec_key_without_its_public_part(token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    token.delete_public()
    with pytest.raises(UsageError, match="does not show its public key"):
        enrol()


def test_rsa_key_without_its_public_part_is_fine(token: SoftToken) -> None:
    token.make_key("rsa:2048")
    token.delete_public()
    enrol()


def test_several_keys(token: SoftToken) -> None:
    token.make_key("EC:prime256v1", "kq", "01")
    token.make_key("rsa:2048", "kq", "0aff")
    with pytest.raises(UsageError, match=r"has 2 private keys that fit: id=%01, id=%0a%ff$") as caught:
        enrol()
    assert caught.value.hint == "name one by id= in the URI"
    enrol("pkcs11:token=vault;object=kq;id=%0a%ff")


def test_a_uri_that_names_no_key_takes_the_only_one(token: SoftToken) -> None:
    token.make_key("EC:prime256v1")
    enrol("pkcs11:token=vault")


def test_no_such_key(token: SoftToken) -> None:
    with pytest.raises(UsageError, match=r'^token "vault" .* has no private key "kq"$'):
        enrol()


def test_no_such_token(token: SoftToken) -> None:
    for uri in (
        "pkcs11:token=other",
        "pkcs11:serial=0",
        "pkcs11:slot-id=99",
        "pkcs11:model=x",
        "pkcs11:manufacturer=x",
    ):
        with pytest.raises(UnavailableError, match=rf"^no token that is attached fits {uri}$"):
            enrol(uri)


def test_several_tokens(hsm: SoftHsm) -> None:
    first, second = hsm.add_token("vault"), hsm.add_token("vault")
    with pytest.raises(UsageError, match=r"^2 tokens fit") as caught:
        enrol("pkcs11:token=vault")
    assert first.serial in caught.value.message
    assert second.serial in caught.value.message
    assert caught.value.hint == "add serial= to the URI"
    first.make_key("EC:prime256v1")
    enrol()  # only one of them shows the key
    second.make_key("EC:prime256v1")
    with pytest.raises(UsageError, match=r"^2 tokens fit"):
        enrol()
    enrol(f"{URI};serial={second.serial}")


def test_malformed_uri() -> None:
    with pytest.raises(MalformedError, match=r"^policy: pin-source: "):
        enrol("pkcs11:token=vault?pin-source=/etc/pin")
