# SPDX-License-Identifier: Apache-2.0
"""Checks our HPKE opener against a file of published vectors; runs with the bare interpreter of any Debian.

    python3 hpke_check.py VECTORS SEALED

VECTORS is draft-ietf-hpke-pq's file of test vectors, SEALED a JSON list of what `cryptography` sealed. Prints one JSON
object: for each vector of a KEM of ours what was compared, and how many of SEALED opened.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from keyquorum.envelope import hpke, one_time_key
from keyquorum.errors import RefusedError
from keyquorum.mailbox import Mailbox
from keyquorum.native import sodium
from keyquorum.secret import Identity, Secret

KEMS = {number: name for name, number in hpke._KEM_IDS.items()}
OUR_KDF, OUR_AEAD = hpke._KDF_ID, hpke._AEAD_ID


def decapsulate(kem: str, identity: Identity, enc: bytes) -> Secret:
    """What `open_sealed` does first."""
    return hpke._x_wing(identity, enc) if kem == hpke.X_WING else hpke._dhkem(identity, enc)


def check(vector: dict[str, Any]) -> list[str]:
    """Compare one vector; return what was compared. With another KDF only decapsulation is the same as ours."""
    kem, enc = KEMS[vector["kem_id"]], bytes.fromhex(vector["enc"])
    with Identity.from_view(bytes.fromhex(vector["skRm"])) as identity, decapsulate(kem, identity, enc) as shared:
        equal(shared, vector["shared_secret"])
        if (vector["kdf_id"], vector["aead_id"], vector["mode"]) != (OUR_KDF, OUR_AEAD, 0):
            return ["shared_secret"]
        with (
            hpke._schedule(kem, shared, bytes.fromhex(vector["info"])) as keys,
            keys.part(0, 32) as key,
            keys.part(32, 12) as nonce,
        ):
            equal(key, vector["key"])
            equal(nonce, vector["base_nonce"])
            first = vector["encryptions"][0]
            opened = sodium.open_chacha20poly1305(key, nonce, bytes.fromhex(first["ct"]), bytes.fromhex(first["aad"]))
        assert opened is not None, "the published ciphertext does not open"
        with opened:
            equal(opened, first["pt"])
    return ["shared_secret", "key", "base_nonce", "pt"]


def equal(found: Secret, expected: str) -> None:
    """Compare a secret with a published value."""
    assert bytes(found.view).hex() == expected, f"{bytes(found.view).hex()} is not {expected}"


def open_all(sealed: list[dict[str, str]]) -> int:
    """Open through the function that a boot calls; what was altered must not open."""
    for row in sealed:
        enc, ciphertext, info = (bytes.fromhex(row[name]) for name in ("enc", "ct", "info"))
        with Identity.from_view(bytes.fromhex(row["seed"])) as identity:
            with hpke.open_sealed(row["kem"], identity, enc, ciphertext, info) as share:
                equal(share, row["plain"])
            for at in (0, len(enc) // 2, len(enc) - 33, len(enc) - 2):
                altered = bytearray(enc)
                altered[max(0, at)] ^= 1
                try:
                    hpke.open_sealed(row["kem"], identity, bytes(altered), ciphertext, info)
                except RefusedError:
                    continue
                raise AssertionError("an altered seal opened")
    return len(sealed)


def crowd(row: dict[str, str], count: int = 255) -> int:
    """Open the same seal in as many threads as a policy has holders at most; return how many succeeded."""
    box = Mailbox()
    for _ in range(count):
        box.run(lambda: open_all([row]))
    done, end = 0, time.monotonic() + 600.0
    while done < count and (left := end - time.monotonic()) > 0:
        done += sum(box.take(left))
    return done


def one_time() -> dict[str, str]:
    """Make a key for one request, as a boot does; what is returned of it no boot would tell."""
    key = one_time_key.make()
    with key.identity as identity:
        return {"kem": key.kem, "seed": bytes(identity.view).hex(), "public": key.public.hex()}


def main(vectors: str, sealed: str) -> None:
    """Check both files."""
    with open(vectors, "rb") as file:
        table = json.load(file)
    with open(sealed, "rb") as file:
        rows = json.load(file)
    checked = {
        f"{KEMS[v['kem_id']]} kdf {v['kdf_id']} aead {v['aead_id']}": check(v) for v in table if v["kem_id"] in KEMS
    }
    outcome = {"checked": checked, "opened": open_all(rows), "crowd": crowd(rows[-1]), "one_time": one_time()}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
