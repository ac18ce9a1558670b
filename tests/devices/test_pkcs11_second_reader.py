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
from devices.tokens import PIN, SOFTHSM, SoftHsm
from keyquorum.holders import load
from keyquorum.holders.contract import Tuning
from keyquorum.model.holder_options import Pkcs11Options

_READER = """
import base64, hashlib, json, struct, sys
import pkcs11
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pkcs11 import KDF, Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.util import ec, rsa

def quarter(s, a, b, c, d):
    for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) & 0xFFFFFFFF
        s[z] ^= s[x]
        s[z] = (s[z] << turn | s[z] >> 32 - turn) & 0xFFFFFFFF

def hchacha20(key, nonce):
    s = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))
    for _ in range(10):
        for i in range(4):
            quarter(s, i, i + 4, i + 8, i + 12)
        for i in range(4):
            quarter(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *s[:4], *s[12:])

where, names, pin = json.loads(sys.stdin.read())
module, = sys.argv[1:]
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
        material = private.decrypt(encapsulated)  # the library's default is OAEP with SHA-1
        from asn1crypto.keys import PublicKeyInfo, RSAPublicKey
        shown = PublicKeyInfo.wrap(RSAPublicKey.load(rsa.encode_rsa_public_key(public)), "rsa").dump()
assert hashlib.sha256(shown).hexdigest() == where["key"]
bound = names | {"encapsulated": encapsulated.hex(), "key": where["key"], "mechanism": where["mechanism"]}
info = b"keyquorum/v1/pkcs11\\0" + json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()
key = HKDF(hashes.SHA256(), 32, None, info).derive(material)
subkey = hchacha20(key, bytes(16))
print(ChaCha20Poly1305(subkey).decrypt(bytes(12), base64.b64decode(where["wrapped"]), info).hex())
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
    assert base64.b64decode(where["wrapped"])
    names = {"volume": SUBJECT.volume, "set": SUBJECT.set_id.hex(), "name": SUBJECT.name}
    done = subprocess.run(
        [sys.executable, "-c", _READER, SOFTHSM],
        input=json.dumps([where, names, PIN]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == bytes(kept.view).hex(), done.stderr
