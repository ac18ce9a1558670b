# SPDX-License-Identifier: Apache-2.0
"""PCR policies signed in systemd's format: an update opens without a new enrolment (docs/holders-tpm.md §5)."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from devices.tpm_emulator import Emulator
from devices.tpm_support import Enrolment, client, extend, pcr, signed_entry, signing_key
from keyquorum.errors import MalformedError, RefusedError, UsageError
from keyquorum.linux import pcr_signature_files
from keyquorum.model import strict_json
from keyquorum.model.holder_options import TpmOptions
from keyquorum.tpm2 import commands


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(str(tmp_path / "tpm")) as emulator:
        yield emulator


class Vendor:
    """Somebody who signs what a system may look like."""

    def __init__(self, tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
        self.key, self.file, self.pem = key, tmp_path / "tpm2-pcr-signature.json", tmp_path / "vendor.pem"
        self.pem.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def sign(self, tpm: Emulator, *pcrs: int, bank: str = "sha256", key: rsa.RSAPrivateKey | None = None) -> None:
        """Sign the PCRs as they are now, and nothing else."""
        values = {number: pcr(tpm.device, number, bank) for number in pcrs}
        self.publish({bank: [signed_entry(key or self.key, bank, values)]})

    def publish(self, table: dict[str, Any]) -> None:
        self.file.write_text(json.dumps(table))

    def published(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    return Vendor(tmp_path, signing_key())


def enrol(tpm: Emulator, tmp_path: Path, vendor: Vendor, typed: bytes = b"", **options: Any) -> Enrolment:
    chosen = TpmOptions(**{"signed_pcrs": (11,), "public_key": str(vendor.pem), **options})
    return Enrolment(tpm.device, str(tmp_path / "reference"), chosen, typed, pcr_signatures=(str(vendor.file),))


@pytest.mark.parametrize(
    "options",
    [{}, {"pcrs": (7,)}, {"signed_pcrs": (11, 12, 13)}, {"bank": "sha384"}, {"bank": "sha1", "pcrs": (0, 7)}],
    ids=str,
)
def test_an_update_opens_without_enrolling_again(
    tpm: Emulator, tmp_path: Path, vendor: Vendor, options: dict[str, Any]
) -> None:
    pcrs, bank = options.get("signed_pcrs", (11,)), options.get("bank", "sha256")
    enrolment = enrol(tpm, tmp_path, vendor, **options)
    vendor.sign(tpm, *pcrs, bank=bank)
    assert enrolment.opens()
    extend(tpm.device, 11, b"kernel 6.13")
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert "differs from all 1 values signed by the key" in caught.value.message
    vendor.sign(tpm, *pcrs, bank=bank)
    assert enrolment.opens()


def test_all_three_parts_of_a_policy_together(tpm: Emulator, tmp_path: Path, vendor: Vendor) -> None:
    enrolment = enrol(tpm, tmp_path, vendor, b"1234", pcrs=(7,), pin=True)
    vendor.sign(tpm, 11)
    assert enrolment.opens(b"1234")
    with pytest.raises(RefusedError, match="the PIN is wrong"):
        enrolment.open(b"4321")
    extend(tpm.device, 7)
    with pytest.raises(RefusedError, match=r"PCR 7 \(Secure Boot policy\) differs"):
        enrolment.open(b"1234")


def test_a_longer_key_works(tpm: Emulator, tmp_path: Path) -> None:
    vendor = Vendor(tmp_path, signing_key(bits=3072))
    enrolment = enrol(tpm, tmp_path, vendor)
    vendor.sign(tpm, 11)
    assert enrolment.opens()


def test_a_key_that_the_tpm_cannot_use_is_refused_at_enrolment(tpm: Emulator, tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:  # this emulator has RSA of up to 3072 bits
        enrol(tpm, tmp_path, Vendor(tmp_path, signing_key(bits=4096)))
    assert "the TPM refuses TPM2_LoadExternal: value out of range" in caught.value.message


def test_where_holds_the_key_and_stays_small(tpm: Emulator, tmp_path: Path, vendor: Vendor) -> None:
    assert len(strict_json.serialise(enrol(tpm, tmp_path, vendor, pcrs=(7,)).where)) < 1024


def test_a_signature_by_another_key_is_refused(tpm: Emulator, tmp_path: Path, vendor: Vendor) -> None:
    enrolment = enrol(tpm, tmp_path, vendor)
    vendor.sign(tpm, 11, key=signing_key(1))
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert "nothing there is signed for PCR 11 by the enrolled key" in caught.value.message
    table = vendor.published()
    table["sha256"][0]["pkfp"] = base64.b64decode(enrolment.where["signed"]["pkfp"]).hex()
    vendor.publish(table)
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert "is not one by the enrolled key" in caught.value.message
    assert caught.value.tampered


def test_a_signature_of_other_values_is_refused(tpm: Emulator, tmp_path: Path, vendor: Vendor) -> None:
    enrolment = enrol(tpm, tmp_path, vendor)
    vendor.sign(tpm, 11)
    signed = vendor.published()
    extend(tpm.device, 11)
    vendor.sign(tpm, 11)
    wanted = vendor.published()["sha256"][0]["pol"]
    signed["sha256"][0]["pol"] = wanted
    vendor.publish(signed)
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert caught.value.tampered


def test_a_signature_of_other_pcrs_is_refused(tpm: Emulator, tmp_path: Path, vendor: Vendor) -> None:
    enrolment = enrol(tpm, tmp_path, vendor)
    vendor.sign(tpm, 12)
    with pytest.raises(RefusedError):
        enrolment.open()
    table = vendor.published()
    table["sha256"][0]["pcrs"] = [11]
    vendor.publish(table)
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert "differs from all" in caught.value.message


def test_the_one_that_fits_is_found_among_many(tpm: Emulator, tmp_path: Path, vendor: Vendor) -> None:
    enrolment = enrol(tpm, tmp_path, vendor)
    right = signed_entry(vendor.key, "sha256", {11: pcr(tpm.device, 11)})
    others = [signed_entry(vendor.key, "sha256", {11: bytes((number,)) * 32}) for number in range(1, 6)]
    broken = {**right, "sig": base64.b64encode(bytes(256)).decode()}
    foreign = signed_entry(signing_key(1), "sha256", {11: pcr(tpm.device, 11)})
    vendor.publish({"sha1": [right], "sha256": [*others, foreign, broken, right], "sm3": "later"})
    assert enrolment.opens()
    vendor.publish({"sha256": [broken] * 8 + [right]})
    with pytest.raises(RefusedError):
        enrolment.open()


def test_every_file_is_looked_at(
    tpm: Emulator, tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrolment = enrol(tpm, tmp_path, vendor)
    vendor.sign(tpm, 11)
    places = [tmp_path / name for name in ("etc", "run", "lib")]
    for place in places[1:]:
        place.mkdir()
    (places[1] / vendor.file.name).write_text("no JSON")
    shutil.move(vendor.file, places[2])
    monkeypatch.setattr(pcr_signature_files, "DIRECTORIES", tuple(map(str, places)))
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert caught.value.message == "no signed policy for PCR 11 was found"
    enrolment.tuning = enrolment.tuning.with_(pcr_signatures=())
    assert enrolment.opens()
    (places[2] / vendor.file.name).unlink()
    with pytest.raises(RefusedError) as caught:
        enrolment.open()
    assert "not acceptable JSON" in caught.value.message or "not JSON" in caught.value.message


@pytest.mark.parametrize("what", ["signer", "fingerprint"])
def test_an_altered_key_in_where_never_opens(tpm: Emulator, tmp_path: Path, vendor: Vendor, what: str) -> None:
    """Somebody who could rewrite `where` puts a key of his own there, with a signature by it."""
    enrolment = enrol(tpm, tmp_path, vendor)
    (tmp_path / "mine").mkdir()
    mine = Vendor(tmp_path / "mine", signing_key(1))
    theirs = enrol(tpm, tmp_path, mine)
    vendor.sign(tpm, 11, key=mine.key)
    changed = (
        dict(theirs.where["signed"])
        if what == "signer"
        else {**enrolment.where["signed"], "pkfp": theirs.where["signed"]["pkfp"]}
    )
    with pytest.raises(RefusedError) as caught:
        enrolment.open(where={**enrolment.where, "signed": changed})
    assert caught.value.tampered


def test_keys_that_cannot_sign_policies_are_refused_at_enrolment(tpm: Emulator, tmp_path: Path, vendor: Vendor) -> None:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pems = {
        "elliptic": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "private": vendor.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "text": b"hello",
        "empty": b"",
        "short": signing_key(2, 1024).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    }
    for name, pem in pems.items():
        vendor.pem.write_bytes(pem)
        with pytest.raises(MalformedError) as caught:
            enrol(tpm, tmp_path, vendor)
        assert str(vendor.pem) in caught.value.message, name
    vendor.pem.unlink()
    with pytest.raises(UsageError):
        enrol(tpm, tmp_path, vendor)


def test_systemd_measure_signs_what_we_accept(tpm: Emulator, tmp_path: Path, vendor: Vendor) -> None:
    """The real signer, for a unified kernel image of two sections in the boot phase enter-initrd."""
    program = shutil.which("systemd-measure", path="/usr/lib/systemd:/lib/systemd")
    assert program, "systemd-measure is not installed (Debian: systemd, systemd-boot-tools or systemd-ukify)"
    private = tmp_path / "vendor.key"
    private.write_bytes(vendor.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    linux, release = tmp_path / "linux", tmp_path / "os-release"
    linux.write_bytes(b"kernel" * 100)
    release.write_bytes(b"ID=test\n")
    done = subprocess.run(
        [program, "sign", f"--linux={linux}", f"--osrel={release}", "--phase=enter-initrd", "--bank=sha256",
         f"--private-key={private}", f"--public-key={vendor.pem}", f"--tpm2-device={tpm.device}", "--json=short"],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    vendor.file.write_bytes(done.stdout)
    enrolment = enrol(tpm, tmp_path, vendor)
    with pytest.raises(RefusedError, match="differs from all 1 values signed"):
        enrolment.open()
    sections = ((b".linux\x00", linux.read_bytes()), (b".osrel\x00", release.read_bytes()))
    with client(tpm.device) as own:
        for measured in (*(part for section in sections for part in section), b"enter-initrd"):
            commands.pcr_extend(own, 11, {"sha256": hashlib.sha256(measured).digest()})
    assert enrolment.opens()
