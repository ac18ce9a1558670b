# SPDX-License-Identifier: Apache-2.0
"""Accepting a machine's keys: a real TPM's endorsement key, and an attestation key in the same TPM (§6 of the page).

Two steps, because the TPM has to answer in between: `challenge` gives a credential that only it can open, `accept`
takes the answer. Both make every check anew; nothing has to be kept from the first but the secret.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import credential, ek_certificate, tpm_checks, tpm_public
from keyquorum.evidence.checks import Checks
from keyquorum.evidence.result import Status
from keyquorum.evidence.tpm_quote import AttestationKey

if TYPE_CHECKING:
    from keyquorum.evidence.credential import Credential
    from keyquorum.evidence.ek_certificate import EkTrust
    from keyquorum.evidence.result import AttestationResult
    from keyquorum.evidence.tpm_public import PublicArea

TECHNOLOGY = "tpm-keys"
_BOUND = "tpm.ak.bound"
_ACTIVATED = "the secret that only a TPM with both keys can decrypt"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEvidence:
    """What a machine says of its keys: public areas (TPMT_PUBLIC), the attestation key's Name, and certificates in DER.

    The first certificate is the endorsement key's, the others lead from it to a root; none is needed for a listed key.

    The attestation key is a primary key of the endorsement hierarchy or, with `under_ek`, a child of the endorsement
    key. In every other place a TPM obscures its counters and firmware version (Part 3 §18.1), and no quote counts.
    """

    ek: bytes
    ak: bytes
    ak_name: bytes
    under_ek: bool = False
    certificates: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Activation:
    """The secret that was put into the credential, and the machine's answer."""

    secret: bytes
    answer: bytes


def challenge(
    evidence: KeyEvidence, trust: EkTrust, now: int, secret: bytes, seed: bytes
) -> tuple[AttestationResult, Credential | None]:
    """Return the credential for the TPM if everything but its answer is right; the result is never trusted."""
    checks = Checks(tpm_checks.REFERENCES)
    keys = _examine(evidence, trust, now, checks)
    made = None
    if keys is not None and not checks.failed:
        made = credential.make(keys[0], keys[1].name, secret, seed)
        checks.demand(_BOUND, expected=_ACTIVATED, actual="no answer yet", holds=False)
    return checks.conclude(TECHNOLOGY, now, tpm_checks.KEYS), made


def accept(
    evidence: KeyEvidence, trust: EkTrust, now: int, activation: Activation
) -> tuple[AttestationResult, AttestationKey | None]:
    """Return the attestation key that may be enrolled, if the answer is the secret and every check holds."""
    checks = Checks(tpm_checks.REFERENCES)
    keys = _examine(evidence, trust, now, checks)
    if keys is None or checks.failed:
        return checks.conclude(TECHNOLOGY, now, tpm_checks.KEYS), None
    ek, ak = keys
    known = len(activation.secret) == credential.SECRET_SIZE
    same = hmac.compare_digest(activation.secret, activation.answer)
    actual = "the secret" if known and same else "something else"
    checks.demand(_BOUND, expected=_ACTIVATED, actual=actual, holds=known and same)
    checks.claim("tpm.ek-sha256", ek_certificate.key_hash(ek).hex())
    checks.claim("tpm.ak", ak.name.hex())
    result = checks.conclude(TECHNOLOGY, now, tpm_checks.KEYS)
    if result.status is not Status.TRUSTED:
        return result, None
    names = (ek.name, ak.name) if evidence.under_ek else (ak.name,)
    return result, AttestationKey(area=ak.area, qualified_name=tpm_public.qualified_name(names))


def _examine(evidence: KeyEvidence, trust: EkTrust, now: int, checks: Checks) -> tuple[PublicArea, PublicArea] | None:
    ek, ak = _area(evidence.ek, "ek", checks), _area(evidence.ak, "ak", checks)
    if ek is None or ak is None:
        return None
    _examine_ak(ak, evidence.ak_name, checks)
    wrong = ek.lacks(tpm_public.ENDORSEMENT_KEY) or not ek.cipher or ek.scheme is not None
    checks.demand(
        "tpm.ek.attributes",
        expected="fixedTPM fixedParent sensitiveDataOrigin restricted decrypt, not sign; AES, no scheme",
        actual=tpm_public.attribute_text(ek.attributes),
        holds=not wrong,
    )
    ek_certificate.examine(ek, evidence.certificates, trust, now, checks)
    return ek, ak


def _area(data: bytes, name: str, checks: Checks) -> PublicArea | None:
    try:
        area = tpm_public.parse(data, f"the public area of the {name.upper()}")
    except TamperingError as problem:
        checks.refuse(f"tpm.{name}.structure", problem, "an RSA or ECC key of enough strength")
        return None
    checks.demand(f"tpm.{name}.structure", expected="well-formed", actual=f"{len(data)} bytes", holds=True)
    return area


def _examine_ak(ak: PublicArea, name: bytes, checks: Checks) -> None:
    checks.demand(
        "tpm.ak.attributes",
        expected="fixedTPM fixedParent sensitiveDataOrigin restricted sign, not decrypt",
        actual=tpm_public.attribute_text(ak.attributes),
        holds=not ak.lacks(tpm_public.ATTESTATION_KEY),
    )
    checks.demand(
        "tpm.ak.scheme",
        expected="RSASSA, RSAPSS or ECDSA with SHA-256 or better",
        actual=ak.scheme_text(),
        holds=ak.scheme is not None,
    )
    checks.demand("tpm.ak.name", expected=ak.name.hex(), actual=name.hex(), holds=ak.name == name)
