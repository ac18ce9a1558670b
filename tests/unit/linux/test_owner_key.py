# SPDX-License-Identifier: Apache-2.0
"""The owner's private key: made once, kept from others, and nothing else taken for it."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from keyquorum.errors import KeyquorumError, MalformedError
from keyquorum.linux import owner_key

if TYPE_CHECKING:
    from pathlib import Path

    from keyquorum.envelope.signing import Owner

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def put(path: Path, data: bytes, mode: int = 0o600) -> str:
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def test_two_first_enrolments_at_once_agree_on_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has looked and found no key; whoever comes second must sign with the key that stays."""
    path, real = str(tmp_path / "owner.key"), owner_key.load
    missed = iter([FileNotFoundError(), FileNotFoundError()])

    def load(path: str) -> Owner:
        for error in missed:
            raise error
        return real(path)

    monkeypatch.setattr(owner_key, "load", load)
    first, fresh = owner_key.load_or_create(path)
    second, second_fresh = owner_key.load_or_create(path)
    assert (fresh, second_fresh) == (True, False)
    assert first.public == second.public == real(path).public
    assert [entry.name for entry in tmp_path.iterdir()] == ["owner.key"]


def test_made_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "owner.key"
    made, fresh = owner_key.load_or_create(str(path))
    again, still_fresh = owner_key.load_or_create(str(path))
    assert (fresh, still_fresh, made.public) == (True, False, again.public)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_that_exists(tmp_path: Path) -> None:
    assert owner_key.load(put(tmp_path / "k", PEM)).public.raw == KEY.public_key().public_bytes_raw()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601])
def test_a_key_that_others_may_touch(tmp_path: Path, mode: int) -> None:
    with pytest.raises(MalformedError, match=rf"is readable by others \(mode {mode:o}\)") as caught:
        owner_key.load(put(tmp_path / "k", PEM, mode))
    assert caught.value.hint.startswith("chmod 600 ")


OTHERS = {
    "empty": b"",
    "noise": b"\x00\xff" * 100,
    "cut": PEM[:60],
    "public": KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "encrypted": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_key(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / "k", OTHERS[name])
    with pytest.raises(MalformedError, match="is not an unencrypted private key in PEM"):
        owner_key.load_or_create(path)
    assert (tmp_path / "k").read_bytes() == OTHERS[name], "never overwritten"


def test_another_kind_of_key(tmp_path: Path) -> None:
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(MalformedError, match="is not an Ed25519 key"):
        owner_key.load(put(tmp_path / "k", other))


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(KeyquorumError, match="cannot be read: Is a directory"):
        owner_key.load(str(tmp_path))
