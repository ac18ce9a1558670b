# SPDX-License-Identifier: Apache-2.0
"""Every piece of evidence in MANIFEST.json as a bundle, with what a verifier knows of it: policies, nonce, instant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from keyquorum.evidence import carried, nitro_policy, snp_policy
from keyquorum.evidence.bundle import Bundle, join_pcrs
from keyquorum.evidence.intel_reference import INTEL_TYPE
from keyquorum.evidence.recognise import wrap
from keyquorum.evidence.trial import Known
from unit.evidence.nitro_maker import TABLE
from unit.evidence.tpm_maker import NOW, OWNER, signed
from vectors import test_azure_evidence as azure
from vectors import test_intel_evidence as intel
from vectors import test_nitro_evidence as nitro
from vectors import test_snp_evidence as snp
from vectors import test_tpm_evidence as tpm

Vectors = Callable[[str], Path]


class Case(NamedTuple):
    """Evidence, what is known, and the names of the checks that fail."""

    bundle: Bundle
    known: Known
    failed: tuple[str, ...]


def _known(nonce: bytes, now: int, *policies: bytes) -> Known:
    return Known(policies=policies, signers=(OWNER.public,), nonce=nonce, now=now)


def _wrapped(data: bytes) -> Bundle:
    found = wrap(data)
    assert found is not None
    return found


def _snp(leaf: str, vectors: Vectors) -> Case:
    guest = snp.Guest(vectors, leaf)
    given = _wrapped(guest.data).with_part("certificates", b"".join(guest.evidence.certificates))
    policy = signed(guest.policy(), OWNER, snp_policy.REFERENCE_TYPE)
    return Case(given, _known(guest.report.report_data, guest.now, policy), tuple(snp.VERDICTS[leaf][2]))


def _intel(name: str, vectors: Vectors) -> Case:
    scene = intel.Scene(vectors, name)
    given = _wrapped(scene.data)
    if scene.case.collateral:
        given = given.with_part("collateral", vectors(f"attest/{scene.case.collateral}").read_bytes())
    policy = signed(scene.policy(), OWNER, INTEL_TYPE)
    return Case(given, _known(scene.report_data, scene.now, policy), scene.case.failed)


def _nitro(name: str, vectors: Vectors) -> Case:
    """Two of them have no nonce; whoever asks by a bundle cannot take so little."""
    enclave = nitro.Enclave(vectors, name)
    given = _wrapped(enclave.data)
    pcrs = {str(number): [enclave.document.pcrs[number].hex()] for number in (0, 1, 2, 3, 4, 8)}
    policy = signed(TABLE | {"pcrs": pcrs}, OWNER, nitro_policy.REFERENCE_TYPE)
    nonce = carried.nonce(given)
    wrong = [nitro.VERDICTS[name][1]] if nitro.VERDICTS[name][1] else []
    short = [] if len(nonce) >= 32 else ["nitro.nonce-size"]
    return Case(given, _known(nonce, enclave.now, policy), tuple(wrong + short))


def _azure(name: str, vectors: Vectors) -> Case:
    """Most of their nonces are the word "challenge"; whoever asks by a bundle cannot take so little."""
    machine = azure.machine_of(vectors, name)
    quote = machine.quote
    parts = {"attest": quote.attest, "signature": quote.signature, "pcrs": join_pcrs(quote.pcrs)}
    if isinstance(machine, azure.Domain):
        parts["td-quote"] = machine.td_quote
        parts["collateral"] = vectors(f"attest/{intel.CASES['azure'].collateral}").read_bytes()
    else:
        parts["certificates"] = b"".join(machine.certificates)
    given = _wrapped(machine.report)
    for part, data in parts.items():
        given = given.with_part(part, data)
    policies = machine.policies()
    envelopes = (one.envelope for one in (policies.hardware, policies.machine, policies.tpm))
    short = [] if len(machine.nonce) >= 32 else ["tpm.attest.nonce-size"]
    failed = azure.names(machine.appraise()) or short
    return Case(given, _known(machine.nonce, machine.now, *envelopes), tuple(failed))


def _tpm(name: str, vectors: Vectors) -> Case:
    emulator = tpm.SelfMade(vectors)
    pcrs = emulator.claimed(name)
    parts = {
        "attest": emulator.read(f"{name}.attest"),
        "signature": emulator.read(f"{name}.sig"),
        "pcrs": join_pcrs(pcrs),
        "log": emulator.log,
    }
    known = _known(emulator.challenge.extra_data, NOW, tpm.policy(pcrs).envelope)
    known = replace(known, ak=emulator.challenge.key.area)
    failed = [check.name for check in emulator.appraise(name).failed]
    return Case(Bundle(technology="tpm", parts=parts), known, tuple(failed))


def _cases() -> dict[str, Callable[[Vectors], Case]]:
    made: tuple[tuple[Any, Any], ...] = (
        (_snp, snp.VERDICTS),
        (_intel, (name for name, case in intel.CASES.items() if case.collateral != "trustee")),
        (_nitro, nitro.VERDICTS),
        (_azure, azure.VERDICTS),
        (_tpm, (name for name in tpm.VERDICTS if not name.startswith("gce"))),
    )
    return {name: partial(make, name) for make, names in made for name in names}


CASES = _cases()
