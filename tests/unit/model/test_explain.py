# SPDX-License-Identifier: Apache-2.0
"""What `policy check` says a policy means (docs/policy.md §6)."""

from __future__ import annotations

from itertools import chain, combinations

import pytest

from keyquorum.model import explain
from keyquorum.model.holder_options import Pkcs11Options, TpmOptions
from keyquorum.model.policy import Policy
from keyquorum.model.tree import satisfied
from unit.model.policies import short


def said(policy: Policy, beginning: str) -> str:
    """Return the one line that begins so."""
    (line,) = (line for line in explain.words(policy) if line.startswith(beginning) or f" {beginning}" in line[:40])
    return line


def lost_holders_survived(policy: Policy) -> int:
    """Try it: the largest number of places of which any may be lost."""
    places = policy.places()
    for count in range(1, len(places) + 1):
        for lost in combinations(places, count):
            if not satisfied(policy.tree, {spec.index for spec in policy.holders if spec.place not in lost}):
                return count - 1
    return len(places)


NESTED = short(2, "tpm-boot disk-a people", people=(1, "sheet phrase-alice"))
POLICIES = {
    "flat": short(2, "tpm-boot disk-a disk-b"),
    "nested": NESTED,
    "all": short(3, "tpm-boot disk-a disk-b"),
    "all_of_two": short(2, "tpm-boot disk-a"),
    "deep": short(
        2, "tpm-boot one", one=(2, "disk-a two sheet"), two=(1, "disk-b three"), three=(2, "phrase-x phrase-y hsm-z")
    ),
    "weighted": short(3, "disk-a disk-a disk-b tpm-boot"),
    "wide_group": short(2, "disk-a people disk-b", people=(3, "phrase-a phrase-b phrase-c phrase-d phrase-e")),
    "same_place": short(3, "tpm-boot pin-x disk-a disk-b"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_survives_is_true_by_trying(name: str) -> None:
    assert explain.analyse(POLICIES[name]).survives == lost_holders_survived(POLICIES[name])


@pytest.mark.parametrize("name", POLICIES)
def test_needs_a_person_is_true_by_trying(name: str) -> None:
    policy = POLICIES[name]
    meaning = explain.analyse(policy)
    silent = {spec.index for spec in policy.holders if not explain.asks_person(spec)}
    assert (meaning.unattended is not None) is satisfied(policy.tree, silent)
    fewest = next(
        len(people)
        for people in chain.from_iterable(combinations(meaning.people, size) for size in range(len(meaning.people) + 1))
        if satisfied(policy.tree, silent | {spec.index for spec in policy.holders if spec.holder in people})
    )
    assert meaning.people_needed == fewest


def test_the_words_of_a_nested_policy() -> None:
    assert explain.words(NESTED) == (
        (
            "opens with any 2 of: tpm-boot (TPM 2.0, PCR 7), disk-a (fragment disk /dev/disk-a), "
            "and any 1 of people (sheet, phrase-alice)"
        ),
        (
            "5 ways to open it: tpm-boot + disk-a; tpm-boot + sheet; tpm-boot + phrase-alice; disk-a + sheet; "
            "disk-a + phrase-alice"
        ),
        "opens unattended with: tpm-boot + disk-a",
        "survives the loss of any 1 holder",
        "fails if any 2 of these are missing: tpm-boot, disk-a, and both of people (sheet, phrase-alice)",
        "fragments: 4, sealed by X-Wing, or X25519 where this machine cannot open X-Wing, valid for ever",
        "LUKS2 token: about 12 KiB; a stock header has room for 11 KiB",
    )


def test_the_amounts_in_words() -> None:
    assert said(POLICIES["all"], "opens with").startswith("opens with all 3 of: ")
    assert said(POLICIES["all_of_two"], "opens with").startswith("opens with both of: tpm-boot (TPM 2.0, PCR 7) and ")
    assert said(POLICIES["all"], "fails if") == "fails if any of these is missing: tpm-boot, disk-a, and disk-b"
    single = short(1, "tpm-boot", "[volume]\nallow_single_holder = true")
    assert said(single, "opens with") == "opens with tpm-boot (TPM 2.0, PCR 7)"
    assert said(single, "fails if") == "fails if tpm-boot is missing"
    assert said(single, "survives") == "survives the loss of no holder"
    either = short(1, "tpm-boot disk-a disk-b", "[volume]\nallow_single_holder = true")
    assert said(either, "opens with").startswith("opens with any 1 of: ")
    assert said(either, "fails if").startswith("fails if all 3 of these are missing: ")
    assert said(either, "survives") == "survives the loss of any 2 holders"


def test_a_group_of_one_is_only_named() -> None:
    assert said(short(2, "tpm-boot people", people=(1, "sheet")), "fails if").endswith("tpm-boot and people (sheet)")


def test_people_in_words() -> None:
    assert said(short(2, "tpm-boot disk-a"), "opens unattended") == "opens unattended: no holder asks a person"
    assert said(short(2, "tpm-boot sheet"), "needs a person") == "needs a person: no quorum without sheet"
    assert said(short(2, "tpm-boot sheet phrase-x"), "needs") == "needs a person: no quorum without sheet or phrase-x"
    assert said(short(2, "sheet phrase-x"), "needs") == "needs a person: no quorum without sheet and phrase-x"
    three = short(3, "tpm-boot sheet phrase-x hsm-y")
    assert said(three, "needs") == "needs a person: no quorum without 2 of: sheet, phrase-x, and hsm-y"
    assert "pin-x" in said(short(2, "pin-x disk-a"), "needs a person")


def test_what_is_lost_together_counts_once() -> None:
    weighted = POLICIES["weighted"]
    assert said(weighted, "survives") == "survives the loss of no holder; the loss of disk-a is fatal"
    assert said(weighted, "fails if") == (
        "fails if any 2 of these fragments are missing: disk-a, disk-a.2, disk-b, and tpm-boot"
    )
    assert said(POLICIES["same_place"], "ways") == "2 ways to open it: tpm-boot+pin-x + disk-a; tpm-boot+pin-x + disk-b"


def test_large_policies_are_counted_and_not_listed() -> None:
    policy = short(128, " ".join(f"disk-{number}" for number in range(255)))
    lines = explain.words(policy)
    assert lines[0].startswith("opens with any 128 of: disk-0 (fragment disk /dev/disk-0), disk-1 ")
    assert lines[0].endswith("disk-14 (fragment disk /dev/disk-14), and 240 more")
    assert lines[1] == "about 2.8e75 ways to open it, each with at least 128 holders"
    assert "survives the loss of any 127 holders" in lines
    assert all(len(line) < 1000 for line in lines)


def test_holders_in_words() -> None:
    policy = short(
        1,
        "bare pin-x phrase-a hsm-long signed",
        "[volume]\nallow_single_holder = true\n[fragments]\nkem = 'x-wing'\nvalid_days = 1\n",
    )
    shown = [explain.describe(spec) for spec in policy.holders]
    assert shown == [
        "TPM 2.0, no PCR",
        "TPM 2.0, no PCR, PIN",
        "passphrase, Argon2id 128 MiB",
        "token key pkcs11:token=hsm-long;object=key",
        "TPM 2.0, signed PCR 11",
    ]
    assert said(policy, "fragments: ") == "fragments: 5, sealed by X-Wing, valid for 1 day"


def test_every_tpm_condition_is_said() -> None:
    spec = (
        POLICIES["flat"]
        .holders[0]
        .with_(
            options=TpmOptions(
                pcrs=(0, 4, 7), signed_pcrs=(11,), public_key="/k", facts=("bios-version", "cpu-model"), pin=True
            )
        )
    )
    assert explain.describe(spec) == "TPM 2.0, PCRs 0, 4, and 7, signed PCR 11, BIOS version and CPU model, PIN"


def test_long_uris_are_cut() -> None:
    spec = POLICIES["flat"].holders[0].with_(options=Pkcs11Options(uri="pkcs11:" + "x" * 900))
    assert len(explain.describe(spec)) == 70
    assert explain.describe(spec).endswith("x...")
