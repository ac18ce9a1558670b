# SPDX-License-Identifier: Apache-2.0
"""Published HPKE vectors against the opener that boots use (docs/fragment.md §3).

X-Wing needs OpenSSL 3.5. Where this machine's is older, the same checks run in a root of Debian 13 as well.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from guests.chroot import Chroot
from guests.root_tree import root_tree
from keyquorum.envelope import hpke
from keyquorum.envelope.sealing import Recipient
from keyquorum.native import crypto, sodium
from keyquorum.secret import Identity, Share
from vectors import hpke_check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE = "crypto/hpke/hpke-pq-test-vectors.json"
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# RFC 9180 appendix A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode.
RFC_9180_A_2_1: dict[str, Any] = {
    "mode": 0,
    "kem_id": 0x20,
    "kdf_id": 1,
    "aead_id": 3,
    "info": "4f6465206f6e2061204772656369616e2055726e",
    "skRm": "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
    "pkRm": "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a",
    "enc": "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
    "shared_secret": "0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7",
    "key": "ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91",
    "base_nonce": "5c4d98150661b848853b547f",
    "encryptions": [
        {
            "aad": "436f756e742d30",
            "pt": "4265617574792069732074727574682c20747275746820626561757479",
            "ct": "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
        }
    ],
}


@pytest.fixture
def table(vectors: Callable[[str], Path]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(vectors(FILE).read_bytes())
    return found


def of(table: list[dict[str, Any]], kem: str) -> list[dict[str, Any]]:
    found = [vector for vector in table if vector["kem_id"] == hpke._KEM_IDS[kem]]
    assert found, f"the file has no vector of {kem}"
    return found


def test_rfc_9180() -> None:
    assert hpke_check.check(RFC_9180_A_2_1) == ["shared_secret", "key", "base_nonce", "pt"]
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(RFC_9180_A_2_1["skRm"]))
    assert private.public_key().public_bytes_raw().hex() == RFC_9180_A_2_1["pkRm"]


def test_rfc_9180_through_the_function_that_a_boot_calls() -> None:
    """Our fragments have no AEAD associated data: the published key and nonce seal once more without it."""
    vector = RFC_9180_A_2_1
    plain = bytes.fromhex(vector["encryptions"][0]["pt"])
    sealed = ChaCha20Poly1305(bytes.fromhex(vector["key"])).encrypt(bytes.fromhex(vector["base_nonce"]), plain, b"")
    with (
        Identity.from_view(bytes.fromhex(vector["skRm"])) as identity,
        hpke.open_sealed(
            hpke.X25519, identity, bytes.fromhex(vector["enc"]), sealed, bytes.fromhex(vector["info"])
        ) as opened,
    ):
        assert bytes(opened.view) == plain


def test_decapsulation_of_x25519(table: list[dict[str, Any]]) -> None:
    for vector in of(table, hpke.X25519):
        assert hpke_check.check(vector)[0] == "shared_secret"


def test_a_check_that_cannot_fail_would_be_worth_nothing() -> None:
    for name in ("shared_secret", "key", "base_nonce"):
        wrong = RFC_9180_A_2_1 | {name: "00" * (len(RFC_9180_A_2_1[name]) // 2)}
        with pytest.raises(AssertionError, match="is not 0000"):
            hpke_check.check(wrong)
    wrong = RFC_9180_A_2_1 | {"info": ""}
    with pytest.raises(AssertionError):
        hpke_check.check(wrong)


def test_recipients_of_published_keys(table: list[dict[str, Any]]) -> None:
    """Enrolment derives the public key that the vectors give for the seed, and names it by its hash."""
    for kem in (hpke.X25519, hpke.X_WING):
        for vector in of(table, kem):
            with Identity.from_view(bytes.fromhex(vector["skRm"])) as identity:
                recipient = Recipient.of(identity, kem)
            assert recipient.key_id == sodium.sha256(bytes.fromhex(vector["pkRm"]))[:16]


def sealed_by_cryptography() -> list[dict[str, str]]:
    rows = []
    for kem in (hpke.X25519, hpke.X_WING):
        for size in (32, 64, 96, 160):
            seed, plain, info = os.urandom(32), os.urandom(size), b"keyquorum/v1/fragment\0" + os.urandom(50)
            with Identity.from_view(seed) as identity, Share.from_view(plain) as share:
                enc, ciphertext = Recipient.of(identity, kem).seal(share, info)
            row = {"seed": seed, "plain": plain, "info": info, "enc": enc, "ct": ciphertext}
            rows.append({"kem": kem} | {name: value.hex() for name, value in row.items()})
    return rows


def test_x_wing(vectors: Callable[[str], Path], tmp_path: Path) -> None:
    """Vectors of draft-ietf-hpke-pq, and what `cryptography` sealed, with an OpenSSL that has ML-KEM."""
    sealed = tmp_path / "sealed.json"
    sealed.write_text(json.dumps(sealed_by_cryptography()))
    files = {"vectors.json": str(vectors(FILE)), "sealed.json": str(sealed)}
    outcome = json.loads(in_debian_13(files))
    checked = outcome["checked"]
    assert checked[f"{hpke.X_WING} kdf 1 aead 3"] == ["shared_secret", "key", "base_nonce", "pt"]
    assert len([name for name in checked if name.startswith(hpke.X_WING)]) == len(
        of(json.loads(vectors(FILE).read_bytes()), hpke.X_WING)
    )
    assert (outcome["opened"], outcome["crowd"]) == (8, 255)
    assert outcome["one_time"]["kem"] == hpke.X_WING
    check_one_time(outcome["one_time"])
    if crypto.has_ml_kem():
        for vector in of(json.loads(vectors(FILE).read_bytes()), hpke.X_WING):
            hpke_check.check(vector)


def check_one_time(made: dict[str, str]) -> None:
    """The public half is that of the seed, in SubjectPublicKeyInfo of the right length and kind."""
    spki, kem = bytes.fromhex(made["public"]), made["kem"]
    beginning, size = {
        hpke.X25519: ("302a300506032b656e032100", 32),
        hpke.X_WING: ("308204d4300d060b2b0601040183e62d81c87a038204c100", 1184 + 32),
    }[kem]
    assert spki[:-size].hex() == beginning
    with Identity.from_view(bytes.fromhex(made["seed"])) as identity:
        assert Recipient.of(identity, kem).key_id == sodium.sha256(spki[-size:])[:16]


def test_a_key_for_one_request_here() -> None:
    check_one_time(hpke_check.one_time())


_UNPACK_AND_RUN = """
import runpy, sys, tarfile
tarfile.open(fileobj=sys.stdin.buffer, mode="r|").extractall("/tmp/check", filter="data")
sys.path.insert(0, "/tmp/check/agent")
sys.argv = ["hpke_check.py", "/tmp/check/vectors.json", "/tmp/check/sealed.json"]
runpy.run_path("/tmp/check/hpke_check.py", run_name="__main__")
"""


def in_debian_13(files: dict[str, str]) -> str:
    """Run hpke_check.py in a stock Debian 13 root. The program and its files are in a tmpfs that ends with it."""
    files = files | {"hpke_check.py": os.path.join(REPOSITORY, "tests", "vectors", "hpke_check.py")}
    chroot = Chroot(root_tree("trixie").path)
    return chroot.run(["python3", "-c", _UNPACK_AND_RUN], data=archive_of(files)).decode()


def archive_of(files: dict[str, str]) -> bytes:
    """Pack the agent and some files for a root directory."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(os.path.join(REPOSITORY, "agent", "keyquorum"), "agent/keyquorum", filter=_no_caches)
        for name, path in files.items():
            tar.add(path, name)
    return archive.getvalue()


def _no_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in member.name else member
