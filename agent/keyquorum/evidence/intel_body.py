# SPDX-License-Identifier: Apache-2.0
"""What a verified quote says of a trust domain or an enclave, by reference values (docs/attestation-intel.md §5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import tpm_log
from keyquorum.evidence.intel_reference import ENCLAVE_ATTRIBUTES, MEASUREMENTS, RTMRS, TD_ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.evidence.checks import Checks
    from keyquorum.evidence.intel_quote import EnclaveReport, TdReport
    from keyquorum.evidence.intel_reference import EnclaveRule, IntelReference
    from keyquorum.evidence.tpm_log import BelievedEvent

# TDX Module ABI, XFAM: bits that must be set, and all that may be. x87 and SSE are always there.
XFAM_FIXED_1, XFAM_FIXED_0 = 0x3, 0x6DBE7
_INIT, _MODE64 = 1 << 0, 1 << 2
_ENCLAVE_KNOWN = 0xF7 | 1 << 10  # INIT, DEBUG, MODE64BIT, PROVISIONKEY, EINITTOKEN_KEY, CET, KSS; AEXNOTIFY
_BANK = "sha384"  # of RTMRs
_SHOWN = 2


def judge_td(td: TdReport, log: bytes, reference: IntelReference, checks: Checks) -> None:
    """Judge a trust domain of which a verified quote speaks; `log` is its event log (CCEL), a stranger's text."""
    attributes = int.from_bytes(td.attributes, "little")
    known = sum(1 << bit for bit, _ in TD_ATTRIBUTES.values())
    unknown = attributes & ~known
    checks.demand("tdx.attributes.reserved", expected="zero", actual=f"{unknown:#x}", holds=not unknown)
    _judge_attributes("tdx", attributes, TD_ATTRIBUTES, reference, checks)
    xfam = int.from_bytes(td.xfam, "little")
    checks.demand(
        "tdx.xfam.fixed",
        expected=f"all of {XFAM_FIXED_1:#x}, none beyond {XFAM_FIXED_0:#x}",
        actual=f"{xfam:#x}",
        holds=xfam & XFAM_FIXED_1 == XFAM_FIXED_1 and not xfam & ~XFAM_FIXED_0,
    )
    if reference.xfam is None:
        checks.waive("tdx.xfam.allowed", "the policy takes all that the TDX module does", f"{xfam:#x}")
    else:
        holds = not xfam & ~reference.xfam
        checks.demand("tdx.xfam.allowed", expected=f"none beyond {reference.xfam:#x}", actual=f"{xfam:#x}", holds=holds)
    events = _judge_log(td, log, reference, checks)
    for name in MEASUREMENTS:
        if name in reference.events:
            _judge_events(name, getattr(td, name), events.get(name, ()), reference.events[name], checks)
        else:
            _judge_value("tdx", name, getattr(td, name), reference, checks)
    if td.mrservicetd:
        _judge_value("tdx", "mrservicetd", td.mrservicetd, reference, checks)
    else:
        checks.waive("tdx.mrservicetd", "a body of TDX 1.0 does not say it")


def _judge_log(
    td: TdReport, data: bytes, reference: IntelReference, checks: Checks
) -> dict[str, tuple[BelievedEvent, ...]]:
    """Return the events that RTMRs vouch for, of those that the policy judges by events; no log is read for others."""
    if not reference.events:
        for name in ("tdx.log.format", "tdx.log.replay"):
            checks.waive(name, "the policy demands no event log")
        return {}
    numbers = {RTMRS.index(name) + 1: name for name in reference.events}  # as the log numbers them; 0 is MRTD
    try:
        log = tpm_log.believe(data, _BANK, {number: getattr(td, name) for number, name in numbers.items()})
    except TamperingError as problem:
        checks.refuse("tdx.log.format", problem, "an event log as confidential computing has it")
        return {}
    checks.demand("tdx.log.format", expected="an event log", actual=f"{len(data)} bytes", holds=True)
    unlike = ", ".join(numbers[number] for number in log.unlike)
    checks.demand(
        "tdx.log.replay",
        expected=f"the quoted values of {', '.join(numbers.values())}",
        actual=f"another value of {unlike}" if unlike else "the quoted values",
        holds=not unlike,
    )
    return {name: log.of(number) for number, name in numbers.items()}


def _judge_events(
    name: str, value: bytes, events: tuple[BelievedEvent, ...], wanted: frozenset[bytes], checks: Checks
) -> None:
    """An RTMR of which nothing is known, or into which nothing was measured, meets no rule of events."""
    foreign = [event.digest.hex() for event in events if event.digest not in wanted]
    checks.demand(
        f"tdx.{name}",
        expected=f"made of the {len(wanted)} events of the policy",
        actual=f"event {foreign[0]}" if foreign else f"{len(events)} events, all of the policy" if events else "none",
        holds=bool(events) and not foreign,
    )
    checks.claim(f"tdx.{name}", value.hex())


def _judge_attributes(
    tee: str, value: int, known: Mapping[str, tuple[int, bool]], reference: IntelReference, checks: Checks
) -> None:
    for name, (bit, safe) in known.items():
        found = bool(value >> bit & 1)
        word = "on" if found else "off"
        if name in reference.any_attributes:
            checks.waive(f"{tee}.attributes.{name}", "the policy takes any value", word)
        else:
            expected = "on" if safe else "off"
            checks.demand(f"{tee}.attributes.{name}", expected=expected, actual=word, holds=found == safe)


def _judge_value(tee: str, name: str, value: bytes, reference: IntelReference, checks: Checks) -> None:
    wanted = reference.values.get(name)
    if wanted is None:
        checks.waive(f"{tee}.{name}", "the policy takes any value", value.hex())
    else:
        shown = ", ".join(one.hex() for one in sorted(wanted)[:_SHOWN])
        expected = shown if len(wanted) <= _SHOWN else f"one of {len(wanted)} values of the policy"
        checks.demand(f"{tee}.{name}", expected=expected, actual=value.hex(), holds=value in wanted)
    checks.claim(f"{tee}.{name}", value.hex())


def judge_enclave(enclave: EnclaveReport, reference: IntelReference, checks: Checks) -> None:
    """Judge an enclave of which a verified quote speaks."""
    flags = enclave.flags
    for name, bit in (("init", _INIT), ("mode64", _MODE64)):
        word = "on" if flags & bit else "off"
        checks.demand(f"sgx.attributes.{name}", expected="on", actual=word, holds=word == "on")
    unknown = flags & ~_ENCLAVE_KNOWN
    checks.demand("sgx.attributes.reserved", expected="zero", actual=f"{unknown:#x}", holds=not unknown)
    _judge_attributes("sgx", flags, ENCLAVE_ATTRIBUTES, reference, checks)
    shown = f"MRENCLAVE {enclave.mrenclave.hex()}"
    checks.demand(
        "sgx.identity",
        expected=f"one of {len(reference.enclaves)} enclaves of the policy",
        actual=f"{shown}, MRSIGNER {enclave.mrsigner.hex()}, {enclave.product}, {enclave.security_version}",
        holds=any(_is_enclave(rule, enclave) for rule in reference.enclaves),
    )
    for name in ("configid", "isvextprodid", "isvfamilyid"):
        _judge_value("sgx", name, getattr(enclave, name), reference, checks)
    for name in ("mrenclave", "mrsigner"):
        checks.claim(f"sgx.{name}", getattr(enclave, name).hex())
    checks.claim("sgx.isvprodid", str(enclave.product))
    checks.claim("sgx.isvsvn", str(enclave.security_version))


def _is_enclave(rule: EnclaveRule, enclave: EnclaveReport) -> bool:
    if rule.mrenclave:
        return enclave.mrenclave == rule.mrenclave
    same = (enclave.mrsigner, enclave.product) == (rule.mrsigner, rule.isvprodid)
    return same and enclave.security_version >= rule.isvsvn
