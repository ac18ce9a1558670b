# SPDX-License-Identifier: Apache-2.0
"""Verifying a TPM quote: parse, then verify; what is appraised later are verified values only (docs/attestation.md §5).

Pure: the key, the nonce, what is known of the machine and what must be quoted are arguments.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from keyquorum.errors import TamperingError
from keyquorum.evidence import tpm_attest, tpm_public, tpm_signature
from keyquorum.evidence.tpm_wire import BANKS, SIZES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.evidence.checks import Checks
    from keyquorum.evidence.tpm_attest import ClockInfo, Quote
    from keyquorum.evidence.tpm_signature import Signature

MIN_NONCE = 32
_REMEMBERED = 512  # enrolled keys that were read, by their bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationKey:
    """A key that was accepted at enrolment (`tpm_keys`): its public area and its place, the Qualified Name."""

    area: bytes
    qualified_name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteEvidence:
    """What a machine sent: TPMS_ATTEST, TPMT_SIGNATURE, the PCR values it claims, and its event log ("" for none)."""

    attest: bytes
    signature: bytes
    pcrs: Mapping[int, bytes]
    log: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What the verifier knows and asked for.

    `extra_data` is the nonce or what binds it (`binding.qualifying_data`), of at least `min_nonce` bytes. `last` are
    the counters of the machine's last accepted quote; with `same_boot` it must still be in the boot of that quote.
    """

    key: AttestationKey
    extra_data: bytes
    last: ClockInfo | None = None
    same_boot: bool = False
    min_nonce: int = MIN_NONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedQuote:
    """PCR values that a TPM vouches for, in `bank`, with its counters and firmware version."""

    bank: str
    pcrs: Mapping[int, bytes]
    clock: ClockInfo
    firmware: int


class _Wanted(NamedTuple):
    """What must be quoted; the digest's hash is that of the signing scheme (Part 3 §18.4)."""

    bank: str
    pcrs: tuple[int, ...]
    digest_hash: str


def verify(
    evidence: QuoteEvidence, challenge: Challenge, bank: str, pcrs: tuple[int, ...], checks: Checks
) -> VerifiedQuote | None:
    """Return what the quote proves if it is of exactly `pcrs` in `bank`, or None; every step is noted in `checks`."""
    area = _key(challenge.key, checks)
    signature = _signature(evidence, checks)
    if area is None or signature is None or not _signed(evidence, signature, area, checks):
        return None
    quote = _parse(evidence, checks)
    if quote is None:
        return None
    _check_origin(quote, challenge, checks)
    values = _values(quote, evidence, _Wanted(bank, pcrs, signature.hash), checks)
    if values is None or checks.failed:
        return None
    checks.claim("tpm.ak", area.name.hex())
    checks.claim("tpm.firmware", f"{quote.firmware:#018x}")
    checks.claim("tpm.reset-count", str(quote.clock.reset_count))
    checks.claim("tpm.restart-count", str(quote.clock.restart_count))
    checks.claim("tpm.clock", str(quote.clock.clock))
    return VerifiedQuote(bank=bank, pcrs=values, clock=quote.clock, firmware=quote.firmware)


@lru_cache(_REMEMBERED)
def _read_key(area: bytes) -> tpm_public.PublicArea:
    return tpm_public.parse(area, "the attestation key")


def _key(key: AttestationKey, checks: Checks) -> tpm_public.PublicArea | None:
    """Read the enrolled key once more: a store that was altered must not make another key an attestation key."""
    try:
        area = _read_key(key.area)
    except TamperingError as problem:
        checks.refuse("tpm.ak.structure", problem)
        return None
    if area.scheme is None or area.lacks(tpm_public.ATTESTATION_KEY):
        checks.demand(
            "tpm.ak.attributes",
            expected="a restricted signing key",
            actual=tpm_public.attribute_text(area.attributes),
            holds=False,
        )
        return None
    return area


def _signature(evidence: QuoteEvidence, checks: Checks) -> Signature | None:
    try:
        found = tpm_signature.parse(evidence.signature, "the signature")
    except TamperingError as problem:
        checks.refuse("tpm.signature.structure", problem, "RSASSA, RSAPSS or ECDSA with SHA-256 or better")
        return None
    checks.demand("tpm.signature.structure", expected="well-formed", actual="well-formed", holds=True)
    return found


def _signed(evidence: QuoteEvidence, signature: Signature, area: tpm_public.PublicArea, checks: Checks) -> bool:
    pinned = (signature.scheme, signature.hash) == area.scheme
    if not checks.demand(
        "tpm.signature.scheme", expected=area.scheme_text(), actual=signature.scheme_text(), holds=pinned
    ):
        return False
    expected = f"by the key with the Name {area.name.hex()}"
    try:
        tpm_signature.verify(signature, area, evidence.attest, "the signature")
    except TamperingError as problem:
        checks.refuse("tpm.signature.value", problem, expected)
        return False
    return checks.demand("tpm.signature.value", expected=expected, actual=expected, holds=True)


def _parse(evidence: QuoteEvidence, checks: Checks) -> Quote | None:
    magic, kind = f"{tpm_attest.MAGIC:08x}", f"{tpm_attest.ATTEST_QUOTE:#06x}"
    whole = "every field within its bounds, and nothing after the last"
    try:
        quote = tpm_attest.parse(evidence.attest, "the quote")
    except TamperingError as problem:
        names = {"magic": ("tpm.attest.magic", magic), "type": ("tpm.attest.type", kind)}
        name, expected = names.get(problem.where, ("tpm.attest.structure", whole))
        where = f"{problem.where}: " if name not in {"tpm.attest.magic", "tpm.attest.type"} else ""
        checks.demand(name, expected=expected, actual=where + problem.problem, holds=False)
        return None
    checks.demand("tpm.attest.magic", expected=magic, actual=magic, holds=True)
    checks.demand("tpm.attest.type", expected=kind, actual=kind, holds=True)
    checks.demand("tpm.attest.structure", expected=whole, actual=f"{len(evidence.attest)} bytes", holds=True)
    return quote


def _check_origin(quote: Quote, challenge: Challenge, checks: Checks) -> None:
    size = len(challenge.extra_data)
    checks.demand(
        "tpm.attest.nonce-size",
        expected=f"a nonce of at least {challenge.min_nonce} bytes",
        actual=f"{size} bytes",
        holds=size >= max(challenge.min_nonce, 1),
    )
    checks.demand(
        "tpm.attest.nonce",
        expected=challenge.extra_data.hex(),
        actual=quote.extra_data.hex() or "no nonce",
        holds=hmac.compare_digest(quote.extra_data, challenge.extra_data),
    )
    checks.demand(
        "tpm.attest.signer",
        expected=challenge.key.qualified_name.hex(),
        actual=quote.signer.hex(),
        holds=quote.signer == challenge.key.qualified_name,
    )


def _values(quote: Quote, evidence: QuoteEvidence, wanted: _Wanted, checks: Checks) -> dict[int, bytes] | None:
    """Return the PCR values if the signed selection is the demanded one and their digest is the signed one.

    The digest says nothing about which PCRs it is of. Only the selection does, and only if there is one: with several
    of one bank, somebody may present the value of PCR 16, which anybody can set, as that of PCR 7.
    """
    shown = " + ".join(map(tpm_attest.selection_text, quote.selections)) or "none"
    if not checks.demand(
        "tpm.quote.selections", expected="exactly one PCR selection", actual=shown, holds=len(quote.selections) == 1
    ):
        return None
    algorithm, quoted = quote.selections[0]
    number = BANKS[wanted.bank]
    right_bank = checks.demand("tpm.quote.bank", expected=wanted.bank, actual=shown, holds=algorithm == number)
    exactly = tpm_attest.selection_text((number, wanted.pcrs))
    right_pcrs = checks.demand("tpm.quote.pcrs", expected=exactly, actual=shown, holds=quoted == wanted.pcrs)
    if not (right_bank and right_pcrs):
        return None
    values = {pcr: bytes(evidence.pcrs.get(pcr, b"")) for pcr in wanted.pcrs}
    missing = [pcr for pcr, value in values.items() if len(value) != SIZES[wanted.bank]]
    found = b"" if missing else tpm_attest.pcr_digest(values, wanted.digest_hash)
    same = not missing and hmac.compare_digest(found, quote.pcr_digest)
    actual = f"no value of PCR {missing[0]}" if missing else found.hex()
    holds = checks.demand("tpm.quote.digest", expected=quote.pcr_digest.hex(), actual=actual, holds=same)
    return values if holds else None
