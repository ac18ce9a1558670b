# SPDX-License-Identifier: Apache-2.0
"""Genuine TPM evidence and what a strict verifier answers: MANIFEST.json's verdicts, with the name of the check."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from keyquorum.errors import TamperingError
from keyquorum.evidence import (
    certificate,
    certificates,
    event_log,
    tpm_appraisal,
    tpm_checks,
    tpm_keys,
    tpm_log,
    tpm_public,
)
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.ek_certificate import EkTrust
from keyquorum.evidence.result import AttestationResult, Status
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.evidence.tpm_attest import ClockInfo
from keyquorum.evidence.tpm_keys import Activation, KeyEvidence
from keyquorum.evidence.tpm_quote import AttestationKey, Challenge, QuoteEvidence, verify
from unit.evidence.tpm_maker import NOW, OWNER, policy_table, signed

Vectors = Callable[[str], Path]
SELFMADE = "attest/tpm/swtpm-selfmade"
GOOGLE = "attest/tpm/google-go-tpm-tools"
KEYLIME = "attest/tpm/keylime"

# The verdict of MANIFEST.json in the names of our checks; "" is trusted. Their first words must agree with it.
VERDICTS = {
    "good": ("accept", ""),
    "bad_nonce": ("refuse: extraData", "tpm.attest.nonce"),
    "bad_sha1_bank": ("refuse: bank", "tpm.quote.bank"),
    "bad_empty_selection": ("refuse: selection", "tpm.quote.selections"),
    "bad_single_pcr16": ("refuse: selection", "tpm.quote.pcrs"),
    "bad_type_certify": ("refuse: attest type 0x8017", "tpm.attest.type"),
    "bad_unrestricted_key": ("refuse: AK signature", "tpm.signature.value"),
    "bad_selection_pcr16_as_pcr7": ("refuse: two selections", "tpm.quote.selections"),
    "bad_selection24_pcr16_as_pcr11": ("refuse: three selections", "tpm.quote.selections"),
    "gce-cos-85-nonce9009": ("accept (nonce 9009)", ""),
    "gce-cos-85-no-nonce": ("refuse: no nonce", "tpm.attest.nonce"),
}


def policy(pcrs: dict[int, bytes], **changes: Any) -> SignedPolicy:
    """Return a policy that takes exactly these values; those that anybody may reset are not judged."""
    rules = {str(pcr): "unjudged" if pcr in {16, 23} else [value.hex()] for pcr, value in pcrs.items()}
    table = policy_table(rules, log={"secure_boot": "any", "exit_boot_services": "called"}, firmware=None) | changes
    return SignedPolicy(envelope=signed(table), signers=(OWNER.public,))


class SelfMade:
    """The quotes of a TPM emulator that got the PCRs of a real machine's event log."""

    def __init__(self, vectors: Vectors) -> None:
        self.folder = vectors(SELFMADE)
        self.meta = json.loads((self.folder / "meta.json").read_text())
        self.log = vectors("attest/tpm/" + self.meta["eventlog"]).read_bytes()
        self.pcrs = {int(pcr): bytes.fromhex(value) for pcr, value in self.meta["pcrs"].items()}
        name = self.read("ak.name")
        key = AttestationKey(area=self.read("ak.pub"), qualified_name=tpm_public.qualified_name((name,)))
        self.challenge = Challenge(key=key, extra_data=bytes.fromhex(self.meta["nonce"]))

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def claimed(self, name: str) -> dict[int, bytes]:
        """Return the values that the sender claims, in the order that makes the digest right."""
        if name == "bad_selection_pcr16_as_pcr7":
            return {int(pcr): bytes.fromhex(value) for pcr, value in self.meta["bad_selection_claimed"].items()}
        if name == "bad_selection24_pcr16_as_pcr11":
            return dict(enumerate(bytes.fromhex(value) for value in self.meta["bad_selection24_claimed"]))
        return self.pcrs

    def appraise(self, name: str, **evidence: bytes) -> AttestationResult:
        pcrs = self.claimed(name)
        parts: dict[str, Any] = {
            "attest": self.read(f"{name}.attest"),
            "signature": self.read(f"{name}.sig"),
            "log": self.log,
        }
        found = QuoteEvidence(pcrs=pcrs, **(parts | evidence))
        result, _ = tpm_appraisal.appraise(found, self.challenge, policy(pcrs), NOW)
        return result


class Google:
    """A quote of a Google Compute Engine machine: a protobuf of go-tpm-tools, read as far as needed."""

    def __init__(self, vectors: Vectors, name: str, bank: str = "sha256") -> None:
        message = dict(_protobuf(vectors(f"{GOOGLE}/{name}.pb").read_bytes()))
        quotes = [
            list(_protobuf(value))
            for number, value in _protobuf(vectors(f"{GOOGLE}/{name}.pb").read_bytes())
            if number == 2
        ]
        quote = {len(_pcrs(dict(fields)[3])[0]): dict(fields) for fields in quotes}[{"sha256": 32, "sha384": 48}[bank]]
        area = message[1]
        ak = tpm_public.parse(area, "the key")
        key = AttestationKey(area=area, qualified_name=tpm_public.qualified_name((ak.name,)))
        nonce = bytes.fromhex("9009")
        self.challenge = Challenge(key=key, extra_data=nonce, min_nonce=2)
        self.bank, self.pcrs = bank, _pcrs(quote[3])
        self.evidence = QuoteEvidence(attest=quote[1], signature=quote[2], pcrs=self.pcrs, log=message[3])

    def appraise(self) -> AttestationResult:
        found, _ = tpm_appraisal.appraise(self.evidence, self.challenge, policy(self.pcrs, bank=self.bank), NOW)
        return found


def _protobuf(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (field number, bytes) of the length-delimited fields; numbers are given as one byte."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        size, at = _varint(data, at)
        if key & 7 == 0:
            yield key >> 3, bytes((size & 0xFF,))
            continue
        assert key & 7 == 2
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if not byte & 0x80:
            return value, at


def _pcrs(data: bytes) -> dict[int, bytes]:
    found = {}
    for number, value in _protobuf(data):
        if number == 2:
            row = dict(_protobuf(value))
            found[row.get(1, b"\x00")[0]] = row[2]
    return dict(sorted(found.items()))


def appraise(vectors: Vectors, name: str) -> AttestationResult:
    return Google(vectors, name).appraise() if name.startswith("gce") else SelfMade(vectors).appraise(name)


def test_every_tpm_entry_of_the_manifest_has_its_verdict_here(vectors: Vectors) -> None:
    entries = [row for row in json.loads(vectors("attest/MANIFEST.json").read_text()) if row["kind"] == "tpm"]
    assert {Path(row["path"]).stem for row in entries} == set(VERDICTS)
    for row in entries:
        assert row["strict_verdict"].startswith(VERDICTS[Path(row["path"]).stem][0])
        assert row["verify_at"] is None, "no certificates: any instant will do"
        assert hashlib.sha256(vectors(f"attest/{row['path']}").read_bytes()).hexdigest() == row["sha256"]


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts(vectors: Vectors, name: str) -> None:
    result = appraise(vectors, name)
    assert [check.name for check in result.failed[:1]] == [VERDICTS[name][1]] * bool(VERDICTS[name][1]), result.reason
    assert (result.status == Status.TRUSTED) == (VERDICTS[name][1] == "")


@pytest.mark.parametrize("bank", ["sha256", "sha384"])
def test_a_cloud_machine_explains_its_boot(vectors: Vectors, bank: str) -> None:
    google = Google(vectors, "gce-cos-85-nonce9009", bank)
    if bank == "sha384":  # its log has no digests of this bank
        log = event_log.parse(google.evidence.log, "log")
        assert (0x0C in log.sizes) == (google.appraise().status == Status.TRUSTED)
        return
    result = google.appraise()
    assert result.status == Status.TRUSTED
    assert result.claims["tpm.pcr10"] == google.pcrs[10].hex() != "00" * 32
    believed = tpm_log.believe(google.evidence.log, bank, google.pcrs)
    assert 10 in believed.unexplained, "the kernel's own measurements are in no log of the firmware"
    assert believed.unlike == ()
    assert set(range(8)) <= set(believed.events)


def test_two_bytes_are_no_nonce(vectors: Vectors) -> None:
    google = Google(vectors, "gce-cos-85-nonce9009")
    google.challenge = Challenge(key=google.challenge.key, extra_data=google.challenge.extra_data)
    assert [check.name for check in google.appraise().failed] == ["tpm.attest.nonce-size"]


def ek_trust(vectors: Vectors, **changes: Any) -> EkTrust:
    folder = vectors(SELFMADE)
    root, issuer = (
        certificate.load_bundle((folder / name).read_bytes(), name) for name in ("ek_root.pem", "ek_issuer.pem")
    )
    return EkTrust(**({"roots": root, "intermediates": issuer} | changes))


def keys(vectors: Vectors, ak: str = "ak", **changes: Any) -> KeyEvidence:
    folder = vectors(SELFMADE)
    area = (folder / f"{ak}.pub").read_bytes()
    parts: dict[str, Any] = {
        "ek": (folder / "ek.pub").read_bytes(),
        "ak": area,
        "ak_name": b"\x00\x0b" + hashlib.sha256(area).digest(),
        "certificates": ((folder / "ek_rsa2048.crt.der").read_bytes(),),
    }
    return KeyEvidence(**(parts | changes))


def der_of(path: Path) -> bytes:
    (found,) = certificate.load_bundle(path.read_bytes(), path.name)
    return found.der


CERTIFIED = 1_800_000_000  # 2027: the emulator's certificates were made in November 2026
DONE = Activation(secret=bytes(32), answer=bytes(32))


def test_the_keys_of_the_emulator_are_accepted(vectors: Vectors) -> None:
    evidence = keys(vectors)
    assert evidence.ak_name == (vectors(SELFMADE) / "ak.name").read_bytes()
    result, key = tpm_keys.accept(evidence, ek_trust(vectors), CERTIFIED, DONE)
    assert result.status == Status.TRUSTED, result.reason
    assert key == SelfMade(vectors).challenge.key
    assert [link.subject for link in result.chain] == ["CN=unknown", "CN=swtpm-localca", "CN=swtpm-localca-rootca"]
    assert {check.name for check in result.checks} == tpm_checks.KEYS
    assert result.claims["tpm.manufacturer"] == "id:00001014"


def test_an_unrestricted_key_is_not_enrolled(vectors: Vectors) -> None:
    result, key = tpm_keys.accept(keys(vectors, "unrestricted_ak"), ek_trust(vectors), CERTIFIED, DONE)
    assert key is None
    assert [check.name for check in result.failed] == ["tpm.ak.attributes"]


def test_the_certificate_of_a_cloud_tpm_is_understood_and_not_believed(vectors: Vectors) -> None:
    """Google's intermediate is not at hand: all that can be said without it is said, and no more."""
    given = der_of(vectors(f"{GOOGLE}/uca_tpm_rsa_enc_cert.pem"))
    result, _ = tpm_keys.accept(keys(vectors, certificates=(given,)), ek_trust(vectors), CERTIFIED, DONE)
    assert [check.name for check in result.failed] == ["tpm.ek.key", "tpm.ek.chain"]
    shown = {check.name: check.actual for check in result.checks}
    assert shown["tpm.ek.maker"] == "id:474F4F47 vTPM id:20160511"


def test_a_certificate_for_another_purpose_is_not_for_an_endorsement_key(vectors: Vectors) -> None:
    given = der_of(vectors(f"{GOOGLE}/pca_tpm_rsa_enc_cert.pem"))
    result, _ = tpm_keys.accept(keys(vectors, certificates=(given,)), ek_trust(vectors), CERTIFIED, DONE)
    assert {"tpm.ek.usage", "tpm.ek.maker"} <= {check.name for check in result.failed}


def test_keylimes_quote_of_another_tpm(vectors: Vectors) -> None:
    """An old emulator's, with a 20-byte nonce, an RSA key below its endorsement key, and three PCRs."""
    folder = vectors(KEYLIME)
    area, ek = (folder / "ak.pub").read_bytes()[2:], (folder / "ek.pub").read_bytes()[2:]
    ak_name = (folder / "ak.name").read_bytes()
    parsed = tpm_public.parse(area, "the key")
    assert parsed.name == ak_name
    ek_name = tpm_public.parse(ek, "the endorsement key").name
    key = AttestationKey(area=area, qualified_name=tpm_public.qualified_name((ek_name, ak_name)))
    asked = Challenge(key=key, extra_data=(folder / "rand.out").read_bytes(), min_nonce=20)
    values = (folder / "quotepcr.out").read_bytes()
    # tpm2-tools writes its structures as they lie in memory: three digests of 64 bytes, each after its size
    pcrs = {pcr: values[start : start + 32] for pcr, start in ((15, 142), (16, 208), (22, 274))}
    evidence = QuoteEvidence(
        attest=(folder / "quote.out").read_bytes(), signature=(folder / "quotesig.out").read_bytes(), pcrs=pcrs
    )
    checks = Checks(tpm_checks.REFERENCES)
    found = verify(evidence, asked, "sha256", (15, 16, 22), checks)
    assert not checks.failed
    assert found is not None
    assert found.clock == ClockInfo(reset_count=0, restart_count=0, clock=5994, safe=True)
    assert found.pcrs[22] == b"\xff" * 32
    assert verify(evidence, asked, "sha256", (15, 22), Checks(tpm_checks.REFERENCES)) is None


def flips(data: bytes) -> Iterator[bytes]:
    """Yield the data with each byte spoiled in turn, by one bit and by all."""
    for at in range(len(data)):
        for mask in (1 << at % 8, 0xFF):
            yield data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :]


@pytest.mark.parametrize("name", [name for name in VERDICTS if not name.startswith("gce")])
@pytest.mark.parametrize("part", ["attest", "signature"])
def test_no_flipped_byte_of_a_quote_is_trusted(vectors: Vectors, name: str, part: str) -> None:
    emulator = SelfMade(vectors)
    emulator.log = b""
    whole = emulator.read(f"{name}.{'sig' if part == 'signature' else part}")
    for spoiled in flips(whole):
        checks = Checks(tpm_checks.REFERENCES)
        parts = {"attest": emulator.read(f"{name}.attest"), "signature": emulator.read(f"{name}.sig")} | {part: spoiled}
        evidence = QuoteEvidence(pcrs=emulator.claimed(name), **parts)
        assert verify(evidence, emulator.challenge, "sha256", tuple(emulator.pcrs), checks) is None
        assert checks.failed


def test_no_flipped_byte_of_a_clouds_quote_is_trusted(vectors: Vectors) -> None:
    google = Google(vectors, "gce-cos-85-nonce9009")
    for part in ("attest", "signature"):
        for spoiled in flips(getattr(google.evidence, part)):
            parts = {"attest": google.evidence.attest, "signature": google.evidence.signature} | {part: spoiled}
            evidence = QuoteEvidence(pcrs=google.pcrs, **parts)
            checks = Checks(tpm_checks.REFERENCES)
            assert verify(evidence, google.challenge, "sha256", tuple(range(24)), checks) is None


def test_no_flipped_byte_of_a_key_is_enrolled(vectors: Vectors) -> None:
    evidence, trust = keys(vectors), ek_trust(vectors)
    for spoiled in flips(evidence.ak):
        result, key = tpm_keys.accept(replace(evidence, ak=spoiled), trust, CERTIFIED, DONE)
        assert (result.status, key) == (Status.UNTRUSTED, None)
    # Nobody vouches for an endorsement key's policy and harmless attributes, so nothing is claimed of them either.
    whole, accepted = tpm_keys.accept(evidence, trust, CERTIFIED, DONE)
    for spoiled in flips(evidence.ek):
        result, key = tpm_keys.accept(replace(evidence, ek=spoiled), trust, CERTIFIED, DONE)
        assert (key, result.claims) in [(None, {}), (accepted, whole.claims)]


def test_no_flipped_byte_of_a_certificate_is_believed(vectors: Vectors) -> None:
    trust, (whole,) = ek_trust(vectors), keys(vectors).certificates
    for spoiled in flips(whole):
        result, key = tpm_keys.accept(keys(vectors, certificates=(spoiled,)), trust, CERTIFIED, DONE)
        assert (result.status, key) == (Status.UNTRUSTED, None)


@pytest.mark.parametrize("name", ["uca_tpm_ecc_enc_cert", "uca_tpm_rsa_sign_cert", "pca_tpm_ecc_enc_cert"])
def test_no_flipped_byte_of_a_genuine_certificate_surprises(vectors: Vectors, name: str) -> None:
    """It is read or refused with our error, and who issued it stays unknown."""
    trust = ek_trust(vectors)
    for spoiled in islice(flips(der_of(vectors(f"{GOOGLE}/{name}.pem"))), 0, None, 2):
        try:
            found = certificate.load(spoiled, name)
        except TamperingError:
            continue
        with pytest.raises(TamperingError):
            certificates.chain(found, trust.intermediates, trust.roots, name)


def test_a_flipped_log_says_nothing_new(vectors: Vectors) -> None:
    """A log with a spoiled byte is refused, or its believed part is the same: descriptions are no evidence."""
    emulator = SelfMade(vectors)
    before = tpm_log.believe(emulator.log, "sha256", emulator.pcrs)
    good = emulator.appraise("good")
    assert good.status == Status.TRUSTED
    for at in range(0, len(emulator.log), 307):
        spoiled = emulator.log[:at] + bytes((emulator.log[at] ^ 0xFF,)) + emulator.log[at + 1 :]
        result = emulator.appraise("good", log=spoiled)
        if result.status != Status.TRUSTED:
            assert result.failed[0].name.startswith("tpm.log.")
            continue
        after = tpm_log.believe(spoiled, "sha256", emulator.pcrs)
        for pcr, events in after.events.items():
            for old, new in zip(before.of(pcr), events, strict=True):
                assert new.digest == old.digest
                assert new.data in {None, old.data}


SECURE_BOOT = {
    f"{GOOGLE}/cos-101-amd-sev.bin": "on",
    f"{GOOGLE}/rhel8-uefi.bin": "on",
    f"{GOOGLE}/confidential-gke-debug-251000_eventlog.bin": "on",
    f"{GOOGLE}/eventlogwithsp800155.bin": "on",
    f"{KEYLIME}/binary_bios_measurements-secureboot": "on",
    "attest/tpm/tpm2-tools/event-moklisttrusted.bin": "on",
    f"{GOOGLE}/ubuntu-2104-no-secure-boot.bin": "off",
    f"{GOOGLE}/glinux-alex.bin": "off",
    f"{KEYLIME}/binary_bios_measurements": "off",
    "attest/tpm/tpm2-tools/event-bootorder.bin": "off",
    f"{GOOGLE}/arch-linux-workstation.bin": "unknown",  # the variable is empty: firmware without Secure Boot
    "attest/tpm/tpm2-tools/event-sd-boot-fedora37.bin": "unknown",
}


@pytest.mark.parametrize("name", SECURE_BOOT)
def test_what_genuine_logs_say_of_secure_boot(vectors: Vectors, name: str) -> None:
    data = vectors(name).read_bytes()
    log = event_log.parse(data, name)
    values = {pcr: event_log.replay(log, 0x0B, pcr, lambda part: hashlib.sha256(part).digest()) for pcr in range(8)}
    believed = tpm_log.believe(data, "sha256", {pcr: value for pcr, value in values.items() if value is not None})
    assert len(believed.events) == 8
    assert tpm_log.secure_boot(believed) == SECURE_BOOT[name]
    assert tpm_log.bad_separators(believed, tuple(range(8))) == []


def test_logs_of_other_machines_do_not_explain_this_one(vectors: Vectors) -> None:
    emulator = SelfMade(vectors)
    for name in ("rhel8-uefi.bin", "ubuntu-2104-no-secure-boot.bin", "debian-10.bin", "cos-101-amd-sev.bin"):
        result = emulator.appraise("good", log=vectors(f"{GOOGLE}/{name}").read_bytes())
        assert [check.name for check in result.failed][:1] == ["tpm.log.replay"]
    told = base64.b64decode(vectors(f"{KEYLIME}/mb_log.b64").read_text())
    assert emulator.appraise("good", log=told).failed[0].name.startswith("tpm.log.")
