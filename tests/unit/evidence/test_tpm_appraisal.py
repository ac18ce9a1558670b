# SPDX-License-Identifier: Apache-2.0
"""The story of a quote: one machine as it should be, and one thing wrong at a time (docs/attestation.md §5)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.evidence import tpm_checks
from keyquorum.evidence.result import AttestationResult, Outcome, Status
from keyquorum.evidence.tpm_attest import ClockInfo
from keyquorum.evidence.tpm_quote import AttestationKey
from keyquorum.evidence.tpm_wire import NULL, RSAPSS, RSASSA
from unit.evidence import tpm_maker
from unit.evidence.tpm_maker import (
    BOOT,
    CLOCK,
    EXIT,
    NONCE,
    NOW,
    RSA_KEY,
    SEPARATORS,
    Key,
    Scene,
    secure_boot,
    selection,
)

Events = tuple[tuple[int, int, bytes], ...]


def clock(**changes: Any) -> ClockInfo:
    found: dict[str, Any] = {"reset_count": 5, "restart_count": 1, "clock": 1000, "safe": True} | changes
    return ClockInfo(**found)


@pytest.mark.parametrize(
    "key",
    [
        Key(),
        Key(kind="p384", hash="sha384"),
        Key(kind="p521", hash="sha512"),
        RSA_KEY,
        Key(kind="rsa2048", scheme=RSAPSS),
        Key(kind="rsa3072", scheme=RSASSA, hash="sha384"),
    ],
    ids=lambda key: f"{key.kind}-{key.scheme:#x}-{key.hash}",
)
def test_a_machine_as_it_should_be_is_trusted(key: Key) -> None:
    result, counters = Scene(key=key).appraise()
    assert (result.status, result.reason, result.failed) == (Status.TRUSTED, "", ())
    assert counters == CLOCK
    assert {check.name for check in result.checks} == tpm_checks.QUOTE
    assert [check.name for check in result.waived] == ["tpm.clock.forward", "tpm.clock.same-boot"]
    assert result.last_trusted == result.at == NOW
    assert result.claims["tpm.secure-boot"] == "on"
    assert result.claims["policy.serial"] == "7"
    result.demand()


# What is wrong in the quote itself: the scene's change, and the checks that fail.
QUOTES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "magic": ({"attest": {"magic": 0xFF544348}}, ["tpm.attest.magic"]),
    "certify": ({"attest": {"kind": 0x8017}}, ["tpm.attest.type"]),
    "long nonce": ({"attest": {"nonce": bytes(65)}}, ["tpm.attest.structure"]),
    "half a selection": ({"attest": {"selections": (b"\x00\x0b\x02\xff\x00",)}}, ["tpm.attest.structure"]),
    "other nonce": ({"attest": {"nonce": bytes(32)}}, ["tpm.attest.nonce"]),
    "no nonce": ({"attest": {"nonce": b""}}, ["tpm.attest.nonce"]),
    "nobody asked": (
        {"attest": {"nonce": b""}, "challenge": {"extra_data": b"", "min_nonce": 0}},
        ["tpm.attest.nonce-size"],
    ),
    "short nonce": (
        {"attest": {"nonce": bytes(16)}, "challenge": {"extra_data": bytes(16)}},
        ["tpm.attest.nonce-size"],
    ),
    "another place": ({"attest": {"signer": b"\x00\x0b" + bytes(32)}}, ["tpm.attest.signer"]),
    "no selection": ({"attest": {"selections": ()}}, ["tpm.quote.selections"]),
    "two selections": (
        {"attest": {"selections": (selection("sha256", *range(7)), selection("sha256", 16))}},
        ["tpm.quote.selections"],
    ),
    "other bank beside": (
        {"attest": {"selections": (selection("sha1", *range(8)), selection("sha256", *range(8)))}},
        ["tpm.quote.selections"],
    ),
    "sha1": ({"attest": {"selections": (selection("sha1", *range(8)),)}}, ["tpm.quote.bank"]),
    "one more": ({"attest": {"selections": (selection("sha256", *range(9)),)}}, ["tpm.quote.pcrs"]),
    "one less": ({"attest": {"selections": (selection("sha256", *range(7)),)}}, ["tpm.quote.pcrs"]),
    "sixteen": ({"attest": {"selections": (selection("sha256", *range(7), 16),)}}, ["tpm.quote.pcrs"]),
    "digest": ({"attest": {"digest": bytes(32)}}, ["tpm.quote.digest"]),
    "value missing": ({"evidence": {"pcrs": {}}}, ["tpm.quote.digest"]),
    "cut signature": ({"evidence": {"signature": b"\x00\x18\x00\x0b\x00\x20"}}, ["tpm.signature.structure"]),
    "hmac": ({"evidence": {"signature": b"\x00\x05\x00\x0b" + bytes(32)}}, ["tpm.signature.structure"]),
    "foreign attest": ({"evidence": {"attest": b"\xff\x54\x43\x47"}}, ["tpm.signature.value"]),
}  # fmt: skip


@pytest.mark.parametrize("case", QUOTES)
def test_a_wrong_quote_is_named(case: str) -> None:
    change, expected = QUOTES[case]
    assert Scene(**change).failed() == expected


def test_sha1_is_no_signature() -> None:
    assert Scene(signing={"hash_name": "sha1"}).failed() == ["tpm.signature.structure"]


def test_the_scheme_is_the_keys_and_not_the_signatures() -> None:
    assert Scene(key=RSA_KEY, signing={"scheme": RSAPSS}).failed() == ["tpm.signature.scheme"]
    assert Scene(key=RSA_KEY, signing={"hash_name": "sha384"}).failed() == ["tpm.signature.scheme"]
    pss = Key(kind="rsa2048", scheme=RSAPSS)
    assert Scene(key=pss, signing={"scheme": RSASSA}).failed() == ["tpm.signature.scheme"]


def test_another_key_signs_in_vain() -> None:
    enrolled = Key(number=7).enrolled
    assert Scene(challenge={"key": enrolled}).failed() == ["tpm.signature.value"]


@pytest.mark.parametrize("attributes", [0x40072, 0x70072, 0x50070, 0x50062, 0x50052, 0x10072])
def test_a_key_in_the_store_that_is_none_is_not_used(attributes: int) -> None:
    """Not restricted, decrypting, not fixed to its TPM or parent, imported, not signing."""
    assert Scene(key=Key(attributes=attributes)).failed() == ["tpm.ak.attributes"]


def test_a_key_without_a_scheme_is_not_used() -> None:
    assert Scene(key=Key(scheme=NULL), signing={"scheme": 0x18}).failed() == ["tpm.ak.attributes"]


def test_a_spoiled_key_is_not_used() -> None:
    spoiled = AttestationKey(area=Key().area[:-1], qualified_name=Key().enrolled.qualified_name)
    assert Scene(challenge={"key": spoiled}).failed() == ["tpm.ak.structure"]


CLOCKS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "same quote's counters": ({"last": CLOCK, "same_boot": True}, []),
    "later": ({"last": clock(clock=999), "same_boot": True}, []),
    "earlier": ({"last": clock(clock=1001)}, ["tpm.clock.forward"]),
    "fewer resets": ({"last": clock(reset_count=6, restart_count=0)}, ["tpm.clock.forward"]),
    "fewer restarts": ({"last": clock(restart_count=2)}, ["tpm.clock.forward"]),
    "cleared": ({"last": clock(reset_count=4, clock=1001)}, ["tpm.clock.forward"]),
    "another boot": ({"last": clock(reset_count=4, restart_count=9)}, []),
    "reboot": ({"last": clock(reset_count=4), "same_boot": True}, ["tpm.clock.same-boot"]),
    "slept": ({"last": clock(restart_count=0), "same_boot": True}, ["tpm.clock.same-boot"]),
    "same as what": ({"same_boot": True}, ["tpm.clock.same-boot"]),
}


@pytest.mark.parametrize("case", CLOCKS)
def test_counters_only_go_forward(case: str) -> None:
    change, expected = CLOCKS[case]
    assert Scene(challenge=change).failed() == expected


def test_a_clock_that_may_repeat_is_refused_unless_the_policy_takes_it() -> None:
    unsafe = {"clock": clock(safe=False, clock=10)}
    assert Scene(attest=unsafe).failed() == ["tpm.clock.safe"]
    result, _ = Scene(attest=unsafe, policy={"clock": "any"}, challenge={"last": CLOCK}).appraise()
    assert result.status == Status.TRUSTED, "an unsafe clock may stand before one that was seen"
    assert outcome(result, "tpm.clock.safe") is Outcome.WAIVED
    older = {"last": clock(reset_count=6)}
    assert Scene(attest=unsafe, policy={"clock": "any"}, challenge=older).failed() == ["tpm.clock.forward"]


def outcome(result: AttestationResult, name: str) -> Outcome:
    (found,) = [check.outcome for check in result.checks if check.name == name]
    return found


def test_old_firmware_of_the_tpm_is_refused() -> None:
    assert Scene(attest={"firmware": 0x0000FFFFFFFFFFFF}).failed() == ["tpm.firmware.floor"]
    result, _ = Scene(attest={"firmware": 0}, policy={"firmware": None}).appraise()
    assert outcome(result, "tpm.firmware.floor") is Outcome.WAIVED


# What is wrong in the log. A log that explains other values than those quoted is the evidence's; others are machines'.
LOGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "none": ({"evidence": {"log": b""}}, ["tpm.log.format"]),
    "torn": ({"evidence": {"log": tpm_maker.log(BOOT)[:-1]}}, ["tpm.log.format"]),
    "an event more": ({"evidence": {"log": tpm_maker.log((*BOOT, (4, 4, b"x")))}}, ["tpm.log.replay"]),
    "an event less": ({"evidence": {"log": tpm_maker.log(BOOT[1:])}}, ["tpm.log.replay"]),
    "another order": ({"evidence": {"log": tpm_maker.log((BOOT[8], *BOOT[:8], *BOOT[9:]))}}, ["tpm.log.replay"]),
    "two separators": ({"events": (*BOOT, SEPARATORS[0])}, ["tpm.log.separators"]),
    "no separator": ({"events": (secure_boot(), *SEPARATORS[1:], *EXIT)}, ["tpm.log.separators"]),
    "error separator": (
        {"events": (secure_boot(), *SEPARATORS[:7], (7, 4, b"\x01\x00\x00\x00"), *EXIT)},
        ["tpm.log.separators"],
    ),
    "off": ({"events": (secure_boot(b"\x00"), *BOOT[1:])}, ["tpm.log.secure-boot"]),
    "said twice": ({"events": (secure_boot(), *BOOT)}, ["tpm.log.secure-boot"]),
    "said late": ({"events": (*BOOT[1:], secure_boot())}, ["tpm.log.secure-boot"]),
    "never said": ({"events": BOOT[1:]}, ["tpm.log.secure-boot"]),
    "two bytes": ({"events": (secure_boot(b"\x01\x00"), *BOOT[1:])}, ["tpm.log.secure-boot"]),
    "another's variable": (
        {"events": ((7, 0x80000001, tpm_maker.variable("SecureBoot", b"\x01", "00" * 16)), *BOOT[1:])},
        ["tpm.log.secure-boot"],
    ),
    "debug": ({"events": ((7, 0x80000007, b"UEFI Debug Mode"), *BOOT)}, ["tpm.log.secure-boot"]),
    "never left": ({"events": BOOT[:-1]}, ["tpm.log.exit-boot-services"]),
}  # fmt: skip


@pytest.mark.parametrize("case", LOGS)
def test_a_log_that_does_not_hold_is_named(case: str) -> None:
    change, expected = LOGS[case]
    failed = Scene(**change).failed()
    assert failed[:1] == expected
    assert set(failed) <= {*expected, "tpm.pcr.values", "tpm.log.secure-boot"}


def test_a_description_without_its_digest_is_not_read() -> None:
    """Whoever writes the log may say what he likes beside a true digest."""
    off = Scene(events=(secure_boot(b"\x00"), *BOOT[1:]))
    told = tpm_maker.log(off.events).replace(secure_boot(b"\x00")[2], secure_boot(b"\x01")[2])
    assert told != tpm_maker.log(off.events)
    off.evidence = {"log": told}
    result, _ = off.appraise()
    (check,) = [check for check in result.checks if check.name == "tpm.log.secure-boot"]
    assert (check.actual, check.outcome) == ("off", Outcome.FAILED)


def renamed(events: Events, kinds: dict[int, int]) -> bytes:
    """Return a log whose writer calls some events something else: no PCR vouches for the kind of an event."""
    return tpm_maker.log(tuple((pcr, kinds.get(at, kind), data) for at, (pcr, kind, data) in enumerate(events)))


def test_secure_boot_cannot_be_switched_on_afterwards() -> None:
    """Who runs later measures a second beginning of PCR 7, and calls the events of the first something else."""
    events = (secure_boot(b"\x00"), *SEPARATORS, *EXIT, secure_boot(), SEPARATORS[7])
    for kinds in ({}, {0: 6, 8: 6}, {0: 0x80000009, 8: 0xD}, {8: 6}, {12: 6}):
        scene = Scene(events=events, evidence={"log": renamed(events, kinds)})
        assert scene.failed() == ["tpm.log.separators", "tpm.log.secure-boot"] if 8 in kinds else scene.failed()
        result, _ = scene.appraise()
        assert "on" not in {check.actual for check in result.checks if check.name == "tpm.log.secure-boot"}


def test_debugging_cannot_be_called_something_else() -> None:
    for words in (b"UEFI Debug Mode", b"UEFI Debug Mode\x00"):
        events = ((7, 0x80000007, words), *BOOT)
        assert Scene(events=events, evidence={"log": renamed(events, {0: 6})}).failed() == ["tpm.log.secure-boot"]


def test_real_firmware_measures_other_things_like_separators() -> None:
    """A boot order of two entries is 01 00 00 00, which an error separator is too; seen on machines of a cloud."""
    for data in (b"\x01\x00\x00\x00", bytes(4)):
        assert Scene(events=((1, 0x80000002, data), *BOOT)).failed() == []
        assert Scene(events=((7, 0x80000002, data), *BOOT)).failed()[0] == "tpm.log.separators"


def test_returning_comes_after_calling() -> None:
    assert Scene(events=(*BOOT[:-2], EXIT[1], EXIT[0])).failed() == ["tpm.log.exit-boot-services"]


def test_a_log_nobody_demands_is_not_read() -> None:
    values = {str(pcr): [value.hex()] for pcr, value in Scene().values.items()}
    scene = Scene(policy={"log": None, "pcrs": values}, evidence={"log": b"\x00" * 10})
    result, _ = scene.appraise()
    assert result.status == Status.TRUSTED
    assert outcome(result, "tpm.log.replay") is Outcome.WAIVED


def rules(scene: Scene, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {str(pcr): [value.hex()] for pcr, value in scene.values.items()}
    return {"pcrs": found | changes}


def test_every_pcr_is_judged_by_its_rule() -> None:
    scene = Scene()
    boot_loader = hashlib.sha256(b"a boot loader").hexdigest()
    separator = hashlib.sha256(bytes(4)).hexdigest()
    allowed = {"events": [boot_loader, separator]}
    for rule, trusted in (
        ([scene.values[4].hex()], True),
        (["00" * 32, scene.values[4].hex()], True),
        (["00" * 32], False),
        ("log", True),
        (allowed, True),
        ({"events": [separator]}, False),
        ("unjudged", True),
    ):
        scene.policy = rules(scene, **{"4": rule})
        assert scene.failed() == ([] if trusted else ["tpm.pcr.values"]), rule
    result, _ = scene.appraise()
    assert [check.actual for check in result.waived if check.name == "tpm.pcr.unjudged"] == [scene.values[4].hex()]


def test_a_pcr_judged_by_its_log_needs_one_that_explains_it() -> None:
    """PCR 0 to 7 must be explained anyway; of others a log may say nothing, and then nothing is believed."""
    scene = Scene()
    values = {**scene.values, 9: hashlib.sha256(b"of the kernel").digest()}
    digest = hashlib.sha256(b"".join(values.values())).digest()
    scene.attest = {"digest": digest, "selections": (selection("sha256", *values),)}
    scene.evidence = {"pcrs": values}
    for rule, trusted in (
        ("unjudged", True),
        ([values[9].hex()], True),
        ("log", False),
        ({"events": ["00" * 32]}, False),
    ):
        scene.policy = rules(scene, **{"9": rule})
        assert scene.failed() == ([] if trusted else ["tpm.pcr.values"])


POLICIES: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"now": NOW + 1000}, "policy.validity"),
    "of the future": ({"now": NOW - 1001}, "policy.validity"),
    "rolled back": ({"lowest_serial": 8}, "policy.serial"),
    "unknown field": ({"policy": {"also": 1}}, "policy.format"),
    "version": ({"policy": {"version": 2}}, "policy.format"),
}


@pytest.mark.parametrize("case", POLICIES)
def test_a_policy_that_does_not_count_is_a_denial(case: str) -> None:
    change, expected = POLICIES[case]
    assert Scene(**change).failed() == [expected]


@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7), part=st.sampled_from(["attest", "signature", "log", "pcr"]))
def test_no_flipped_bit_of_the_evidence_is_trusted(at: int, bit: int, part: str) -> None:
    """Except in what nobody vouches for and nobody believes: the descriptions of events in the log."""
    scene = Scene()
    attest = scene.quote()
    whole = {"attest": attest, "signature": scene.key.sign(attest), "log": tpm_maker.log(scene.events)}
    if part == "pcr":
        values = {pcr: bytearray(value) for pcr, value in scene.values.items()}
        values[at % 8][at % 32] ^= 1 << bit
        scene.evidence = whole | {"pcrs": {pcr: bytes(value) for pcr, value in values.items()}}
    else:
        spoiled = bytearray(whole[part])
        spoiled[at % len(spoiled)] ^= 1 << bit
        scene.evidence = whole | {part: bytes(spoiled)}
    failed = scene.failed()
    assert failed or part == "log"


def test_nonce_is_not_a_secret_and_the_reason_says_both() -> None:
    result, _ = Scene(attest={"nonce": bytes(32)}).appraise()
    assert result.reason == f"tpm.attest.nonce: expected {NONCE.hex()}, found {'00' * 32}"
