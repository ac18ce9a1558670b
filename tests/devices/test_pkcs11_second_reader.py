# SPDX-License-Identifier: Apache-2.0
"""What we seal is opened by other code: python-pkcs11 and cryptography, following docs/holders-pkcs11.md §3 alone."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from devices.holder_tasks import SUBJECT, Given, identity, seal_task
from devices.second_reader import unwrap
from devices.tokens import PIN, SOFTHSM, SoftHsm
from keyquorum.holders import load
from keyquorum.holders.contract import Tuning
from keyquorum.model.holder_options import Pkcs11Options

_READER = """
import base64, hashlib, json, sys
import pkcs11
from asn1crypto.keys import PublicKeyInfo, RSAPublicKey
from pkcs11 import KDF, Attribute, KeyType, ObjectClass
from pkcs11.util import ec, rsa

where, pin, module = json.loads(sys.stdin.read())
encapsulated = base64.b64decode(where["encapsulated"])
token = next(t for t in pkcs11.lib(module).get_tokens(token_serial=where["serial"].encode()))
with token.open(user_pin=pin) as session:
    private = next(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: "kq"}))
    public = next(session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: "kq"}))
    if where["mechanism"].startswith("ecdh"):
        size = {"ecdh-p256": 32, "ecdh-p384": 48}[where["mechanism"]]
        derived = private.derive_key(
            KeyType.GENERIC_SECRET, 8 * size, mechanism_param=(KDF.NULL, None, encapsulated),
            template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
        )
        material, shown = derived[Attribute.VALUE], ec.encode_ec_public_key(public)
    else:
        assert where["mechanism"] == "rsa-oaep-sha1"
        material = private.decrypt(encapsulated)  # this library's default is OAEP with SHA-1
        shown = PublicKeyInfo.wrap(RSAPublicKey.load(rsa.encode_rsa_public_key(public)), "rsa").dump()
print(material.hex(), hashlib.sha256(shown).hexdigest())
"""


@pytest.mark.parametrize("kind", ["rsa:2048", "EC:prime256v1", "EC:secp384r1"])
def test_other_code_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    SoftHsm(tmp_path).add_token().make_key(kind)
    kept = identity()
    task = seal_task(
        Pkcs11Options(uri="pkcs11:object=kq"), Given([PIN.encode()]), kept, Tuning(pkcs11_modules=(SOFTHSM,))
    )
    where = load("pkcs11").seal(task)
    done = subprocess.run(
        [sys.executable, "-c", _READER],
        input=json.dumps([where, PIN, SOFTHSM]),
        capture_output=True,
        text=True,
        check=True,
    )
    material, fingerprint = done.stdout.split()
    assert fingerprint == where["key"]
    bound = {
        "encapsulated": base64.b64decode(where["encapsulated"]).hex(),
        "key": fingerprint,
        "mechanism": where["mechanism"],
        "name": SUBJECT.name,
        "set": SUBJECT.set_id.hex(),
        "volume": SUBJECT.volume,
    }
    opened = unwrap(bytes.fromhex(material), base64.b64decode(where["wrapped"]), "pkcs11", bound)
    assert opened == bytes(kept.view)
