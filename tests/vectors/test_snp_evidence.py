# SPDX-License-Identifier: Apache-2.0
"""Genuine reports of SEV-SNP and what a strict verifier answers: MANIFEST.json's verdicts, by the name of the check."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keyquorum.errors import TamperingError
from keyquorum.evidence import (
    certificate,
    certificates,
    snp_appraisal,
    snp_certificates,
    snp_checks,
    snp_policy,
    snp_report,
    snp_verify,
)
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.result import AttestationResult, Status
from keyquorum.evidence.signed_policy import SignedPolicy
from keyquorum.evidence.snp_certificates import AMD
from keyquorum.evidence.snp_chain import SnpTrust
from keyquorum.evidence.snp_verify import SnpChallenge, SnpEvidence
from unit.evidence.snp_maker import GUEST, PLATFORM, policy_table
from unit.evidence.tpm_maker import OWNER, signed

Vectors = Callable[[str], Path]
TRUST = SnpTrust(anchors=AMD)
MICROSOFT, TRUSTEE = "snp/microsoft-TAV", "snp/trustee"
ASK_AND_ARK = {
    "milan": f"{TRUSTEE}/milan_ask_ark_asvk.pem",
    "genoa": f"{TRUSTEE}/genoa_ask_ark_asvk.pem",
    "turin": f"{TRUSTEE}/turin_ask_ark_asvk.pem",
}

# Leaf of the entry in MANIFEST.json: (product, how its verdict begins, the failed checks under the strict policy that
# knows this guest, what makes it trusted; None: nothing does)
NO_CHOICE: dict[str, Any] = {}
V2: dict[str, Any] = {"report-versions": [2]}
PROVISIONAL: dict[str, Any] = {"provisional-firmware": "any"}
AWS: dict[str, Any] = {"signers": ["vlek"], "vlek-providers": ["cc-us-east-2.amazonaws.com"], "vmpl": [1]}
WRONG_CHIP = ["snp.chain.signatures", "snp.certificate.tcb", "snp.certificate.chip", "snp.signature.value"]
VERDICTS: dict[str, tuple[str, str, list[str], dict[str, Any] | None]] = {
    f"{MICROSOFT}/milan_vcek.pem": ("milan", "accept", [], NO_CHOICE),
    f"{MICROSOFT}/genoa_vcek.pem": ("genoa", "accept", [], NO_CHOICE),
    f"{MICROSOFT}/turin_vcek.pem": ("turin", "accept", [], NO_CHOICE),
    "snp/virtee-sev/vcek_milan.der": ("milan", "accept if v2 allowed", ["snp.version.allowed"], V2),
    "snp/google-go-sev-guest/vcek.testcer": ("milan", "refuse: debug", ["snp.version.allowed", "snp.policy.debug"], None),
    f"{TRUSTEE}/test-vcek.der": (
        "milan", "accept only if provisional firmware allowed", ["snp.version.allowed", "snp.tcb.provisional"], V2 | PROVISIONAL,
    ),
    f"{TRUSTEE}/test-vcek-invalid-legacy.der": ("milan", "refuse: chain signature, HWID, TCB", WRONG_CHIP, None),
    f"{TRUSTEE}/test-vcek-invalid-new.der": ("milan", "refuse: chain signature, HWID, TCB", WRONG_CHIP, None),
    f"{TRUSTEE}/test-vlek.der": (
        "milan", "accept only where VLEK and vmpl 1 are allowed",
        ["snp.signer.allowed", "snp.provider.allowed", "snp.tcb.provisional", "snp.vmpl"], AWS | PROVISIONAL,
    ),
}  # fmt: skip


def manifest(vectors: Vectors) -> dict[str, dict[str, Any]]:
    rows = json.loads(vectors("attest/MANIFEST.json").read_text())
    return {row["leaf"]: row for row in rows if row["kind"] == "snp"}


def instant(row: dict[str, Any]) -> int:
    return int(dt.datetime.fromisoformat(row["verify_at"]).timestamp())


def der(path: Path) -> tuple[bytes, ...]:
    data = path.read_bytes()
    return snp_certificates.from_pem(data, path.name) if data.startswith(b"-----") else (data,)


class Guest:
    """A report of the manifest with its certificates, and a policy that knows it and is strict for the rest."""

    def __init__(self, vectors: Vectors, leaf: str) -> None:
        row = manifest(vectors)[leaf]
        data = vectors(f"attest/{row['path']}").read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        product = VERDICTS[leaf][0]
        ask, ark, asvk = der(vectors(f"attest/{ASK_AND_ARK[product]}"))
        self.now = instant(row)
        self.data = bytes.fromhex(data.decode()) if row["path"].endswith(".hex") else data
        middle = asvk if "vlek" in leaf else ask
        self.evidence = SnpEvidence(report=self.data, certificates=(der(vectors(f"attest/{leaf}"))[0], middle, ark))
        self.report = snp_report.parse(self.data, "report")
        self.challenge = SnpChallenge(report_data=self.report.report_data)
        self.product = product.capitalize()

    def policy(self, **changes: Any) -> dict[str, Any]:
        """Nothing of what clouds do not set is demanded: hidden ciphertext and the like."""
        report, product = self.report, self.product
        lowest = min(report.tcb, report.launch_tcb, key=lambda tcb: tuple(_levels(tcb, product).values()))
        table = {
            "report-versions": [3, 5],
            "products": {product: _levels(lowest, product) | {"mitigations": "any"}},
            "guest-svn": report.guest_svn,
            "measurement": [report.measurement.hex()],
            "host-data": [report.host_data.hex()],
            "family-id": [report.family_id.hex()],
            "image-id": [report.image_id.hex()],
            "id-key": [report.id_key_digest.hex()],
            "author-key": [report.author_key_digest.hex()],
            "guest-policy": dict.fromkeys(GUEST, "any")
            | {"abi-major": 0, "abi-minor": 0, "migration": "forbidden", "debug": "forbidden"},
            "platform": dict.fromkeys(PLATFORM, "any") | {"unknown": "0000000000000040"},
        }
        return policy_table(**(table | changes))

    def appraise(self, evidence: SnpEvidence | None = None, **changes: Any) -> AttestationResult:
        policy = SignedPolicy(
            envelope=signed(self.policy(**changes), OWNER, snp_policy.REFERENCE_TYPE), signers=(OWNER.public,)
        )
        return snp_appraisal.appraise(evidence or self.evidence, self.challenge, TRUST, policy, self.now)


def _levels(tcb: bytes, product: str) -> dict[str, int]:
    return snp_report.components(tcb, product, "report")


def test_every_snp_entry_of_the_manifest_has_its_verdict_here(vectors: Vectors) -> None:
    rows = manifest(vectors)
    assert set(rows) == set(VERDICTS)
    assert len([row for row in json.loads(vectors("attest/MANIFEST.json").read_text()) if row["kind"] == "snp"]) == 9
    for leaf, row in rows.items():
        assert row["strict_verdict"] == VERDICTS[leaf][1]


@pytest.mark.parametrize("leaf", VERDICTS)
def test_verdicts(vectors: Vectors, leaf: str) -> None:
    guest = Guest(vectors, leaf)
    _, _, failed, loosened = VERDICTS[leaf]
    strict = guest.appraise()
    assert [check.name for check in strict.failed] == failed, strict.reason
    assert (strict.status == Status.TRUSTED) == (not failed)
    if loosened is None:
        return
    result = guest.appraise(**loosened)
    assert result.status == Status.TRUSTED, result.reason
    assert {check.name for check in result.checks} == snp_checks.REPORT
    assert result.claims["snp.measurement"] == guest.report.measurement.hex()
    for name, value in loosened.items():  # each of them was needed
        assert (
            guest.appraise(**{other: loosened[other] for other in loosened if other != name}).status == Status.UNTRUSTED
        ), value


def test_the_debug_bit_alone_refuses(vectors: Vectors) -> None:
    guest = Guest(vectors, "snp/google-go-sev-guest/vcek.testcer")
    assert [check.name for check in guest.appraise(**V2).failed] == ["snp.policy.debug"]
    open_policy = guest.policy()["guest-policy"] | {"debug": "any"}
    result = guest.appraise(**V2, **{"guest-policy": open_policy})
    assert result.status == Status.TRUSTED
    assert "snp.policy.debug" in [check.name for check in result.waived]


def test_a_modern_floor_refuses_an_old_machine(vectors: Vectors) -> None:
    guest = Guest(vectors, "snp/virtee-sev/vcek_milan.der")
    modern: dict[str, Any] = {"products": policy_table()["products"]}
    names = [check.name for check in guest.appraise(**V2, **modern).failed]
    assert names == ["snp.tcb.minimum", "snp.tcb.launch"]


def test_a_provider_key_lives_a_year(vectors: Vectors) -> None:
    guest = Guest(vectors, f"{TRUSTEE}/test-vlek.der")
    guest.now = instant({"verify_at": "2026-06-01T00:00:00Z"})
    assert [check.name for check in guest.appraise(**AWS, **PROVISIONAL).failed] == ["snp.chain.validity"]


@pytest.mark.parametrize(("leaf", "below"), [("vlek", 0), ("vcek", 2)])
def test_the_two_kinds_of_keys_are_not_mixed(vectors: Vectors, leaf: str, below: int) -> None:
    """A VLEK below the ASK, and a VCEK below the ASVK."""
    guest = Guest(vectors, f"{TRUSTEE}/test-{leaf}.der")
    bundle = der(vectors(f"attest/{ASK_AND_ARK['milan']}"))
    mixed = SnpEvidence(report=guest.data, certificates=(guest.evidence.certificates[0], bundle[below], bundle[1]))
    assert [check.name for check in guest.appraise(mixed).failed][:2] == ["snp.chain.signatures", "snp.chain.role"]


def test_a_root_of_another_product_is_not_the_root(vectors: Vectors) -> None:
    guest = Guest(vectors, f"{MICROSOFT}/genoa_vcek.pem")
    milan = der(vectors(f"attest/{ASK_AND_ARK['milan']}"))
    mixed = SnpEvidence(report=guest.data, certificates=(guest.evidence.certificates[0], milan[0], milan[1]))
    failed = {check.name for check in guest.appraise(mixed).failed}
    assert {"snp.chain.signatures", "snp.product"} <= failed


@pytest.mark.parametrize("product", ["milan", "genoa", "turin"])
def test_the_pinned_fingerprints_are_those_of_the_published_roots(vectors: Vectors, product: str) -> None:
    ask, ark, asvk = der(vectors(f"attest/{ASK_AND_ARK[product]}"))
    anchor = next(one for one in AMD if one.product == product.capitalize())
    assert anchor.root == snp_certificates.fingerprint(ark)
    assert anchor.intermediates == {snp_certificates.fingerprint(ask), snp_certificates.fingerprint(asvk)}
    assert der(vectors(f"attest/{MICROSOFT}/{product}_ark.pem")) == (ark,)
    root, *below = (certificate.load(one, "authority") for one in (ark, ask, asvk))
    for one in below:
        assert certificates.chain(one, (), (root,), "authority")[1].der == ark


def refused(guest: Guest, evidence: SnpEvidence, trust: SnpTrust = TRUST) -> bool:
    checks = Checks(snp_checks.REFERENCES)
    found = snp_verify.verify(evidence, guest.challenge, trust, guest.now, checks)
    assert (found is None) == checks.failed
    return found is None


def flips(data: bytes, stride: int = 1) -> list[bytes]:
    """Return the data with one bit spoiled in each byte in turn."""
    return [data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :] for at in range(0, len(data), stride)]


GENUINE = [leaf for leaf in VERDICTS if "invalid" not in leaf]


@pytest.mark.parametrize("leaf", GENUINE)
def test_no_flipped_bit_of_a_report_is_believed(vectors: Vectors, leaf: str) -> None:
    """Each byte in turn, by the parser and the signature alone; one in fifty by the whole of the verification."""
    guest = Guest(vectors, leaf)
    assert not refused(guest, guest.evidence)
    key = snp_certificates.load_leaf(guest.evidence.certificates[0], "leaf")
    for at, spoiled in enumerate(flips(guest.data)):
        if at % 50 == 0:
            assert refused(guest, SnpEvidence(report=spoiled, certificates=guest.evidence.certificates))
        checks = Checks(snp_checks.REFERENCES)
        try:
            snp_verify.check_signature(snp_report.parse(spoiled, "report"), key, checks)
        except TamperingError:
            continue
        assert checks.failed


def holds(check: Callable[[], None]) -> bool:
    try:
        check()
    except TamperingError:
        return False
    return True


@pytest.mark.parametrize("leaf", GENUINE)
def test_no_flipped_bit_of_a_chips_certificate_is_believed(vectors: Vectors, leaf: str) -> None:
    """Each byte of one of every product and kind, every fifth of the others; one in fifty by the whole verification."""
    guest = Guest(vectors, leaf)
    first, *rest = guest.evidence.certificates
    middle = snp_certificates.load_authority(rest[0], "middle")

    def check(data: bytes) -> None:
        snp_certificates.check_leaf(snp_certificates.load_leaf(data, "leaf"), middle, "chain")

    assert holds(lambda: check(first))
    whole = leaf.startswith(MICROSOFT) or "vlek" in leaf
    for at, spoiled in enumerate(flips(first, 1 if whole else 5)):
        assert not holds(partial(check, spoiled))
        if at % 50 == 0:
            assert refused(guest, SnpEvidence(report=guest.data, certificates=(spoiled, *rest)))


@pytest.mark.parametrize("leaf", [f"{MICROSOFT}/genoa_vcek.pem", f"{TRUSTEE}/test-vlek.der"])
def test_no_flipped_bit_of_an_authority_is_believed(vectors: Vectors, leaf: str) -> None:
    """Each byte of the intermediate by its signature, every ninth of the root, which is pinned, by the whole."""
    guest = Guest(vectors, leaf)
    first, middle, root = guest.evidence.certificates
    above = snp_certificates.load_authority(root, "root")

    def check(data: bytes) -> None:
        snp_certificates.check_intermediate(snp_certificates.load_authority(data, "middle"), above, "chain")

    assert holds(lambda: check(middle))
    for spoiled in flips(middle):
        assert not holds(partial(check, spoiled))
    for spoiled in flips(root, 9):
        assert refused(guest, SnpEvidence(report=guest.data, certificates=(first, middle, spoiled)))


def test_cut_and_padded_evidence_is_refused(vectors: Vectors) -> None:
    guest = Guest(vectors, f"{MICROSOFT}/genoa_vcek.pem")
    leaf, *rest = guest.evidence.certificates
    for size in (0, 1, 3, 4, 16, 600, 1183):
        assert refused(guest, SnpEvidence(report=guest.data, certificates=(leaf[:size], *rest)))
        assert refused(guest, SnpEvidence(report=guest.data[:size], certificates=guest.evidence.certificates))
    for more in (b"\0", b"\xff", bytes(9000)):
        assert refused(guest, SnpEvidence(report=guest.data, certificates=(leaf + more, *rest)))
        assert refused(guest, SnpEvidence(report=guest.data + more, certificates=guest.evidence.certificates))
