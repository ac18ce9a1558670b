# SPDX-License-Identifier: Apache-2.0
"""Files of public keys: Ed25519 in PEM, one or several."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keyquorum.envelope import public_key_file
from keyquorum.envelope.dsse import PublicKey
from keyquorum.errors import MalformedError

PRIVATE = [Ed25519PrivateKey.from_private_bytes(bytes((number,)) * 32) for number in (1, 2)]
KEYS = tuple(PublicKey(raw=one.public_key().public_bytes_raw()) for one in PRIVATE)
FILES = [public_key_file.serialise(key) for key in KEYS]
OTHER = ec.derive_private_key(7, ec.SECP256R1()).public_key()


def test_keys_are_written_and_read() -> None:
    assert public_key_file.parse(FILES[0], "file") == KEYS[:1]
    assert public_key_file.parse(b"\n".join(FILES), "file") == KEYS
    assert public_key_file.parse(FILES[0].replace(b"\n", b"\r\n"), "file") == KEYS[:1]


WRONG = {
    "empty": b"",
    "text": b"hello",
    "text behind": FILES[0] + b"hello",
    "text before": b"hello\n" + FILES[0],
    "cut": FILES[0][:-30],
    "torn": FILES[0].replace(b"MC", b"!!"),
    "another kind": OTHER.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "a private key": PRIVATE[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_files_are_refused(case: str) -> None:
    with pytest.raises(MalformedError):
        public_key_file.parse(WRONG[case], "file")
