# SPDX-License-Identifier: Apache-2.0
"""Placement rules: kept, broken, and what is said about it (docs/policy.md §4)."""

from __future__ import annotations

import pytest

from keyquorum.errors import MalformedError
from keyquorum.model import placement
from keyquorum.model.policy import Policy
from unit.model.policies import short


def rules(**rules: object) -> str:
    return "[rules]\n" + "\n".join(f"{name} = {value}" for name, value in rules.items()) + "\n"


def broken(policy: Policy) -> list[str]:
    return [violation.sentence() for violation in placement.violations(policy)]


TWO = "disk-a:country=DE disk-b:country={} tpm-t:country=FR"


def test_distinct_kept() -> None:
    assert broken(short(2, TWO.format("IT"), rules(distinct=["country", "device"]))) == []


def test_distinct_broken() -> None:
    assert broken(short(2, TWO.format("DE"), rules(distinct=["country"]))) == [
        "rule distinct country: disk-a and disk-b both have DE"
    ]
    assert broken(short(2, TWO.format("IT"), rules(distinct=["kind"]))) == [
        "rule distinct kind: disk-a and disk-b both have disk"
    ]


def test_distinct_names_every_pair_and_every_label() -> None:
    policy = short(
        2,
        "disk-a:c=DE:o=x disk-b:c=DE:o=y disk-c:c=DE:o=x hsm-d:c=FR:o=z hsm-e:c=FR:o=y",
        rules(distinct=["c", "o"]),
    )
    assert broken(policy) == [
        "rule distinct c: disk-a, disk-b and disk-c all have DE",
        "rule distinct c: hsm-d and hsm-e both have FR",
        "rule distinct o: disk-a and disk-c both have x",
        "rule distinct o: disk-b and hsm-e both have y",
    ]


@pytest.mark.parametrize("other", ["de", "De", " DE", "DE "])
def test_values_are_compared_without_case_and_outer_spaces(other: str) -> None:
    policy = short(2, "disk-a:country=DE tpm-t:country=FR sheet", rules(distinct=["country"]))
    third = policy.holders[2].with_(labels=(("country", other),))
    assert broken(policy.with_(holders=(*policy.holders[:2], third))) == [
        "rule distinct country: disk-a and sheet both have DE"
    ]


def test_a_holder_without_the_label_breaks_the_rule() -> None:
    policy = short(2, "disk-a:country=DE sheet tpm-t", rules(distinct=["country"], no_quorum_within=["country"]))
    assert broken(policy) == [
        "rule distinct country: sheet and tpm-t have no label country",
        "rule no_quorum_within country: sheet and tpm-t have no label country",
    ]
    assert broken(short(2, "disk-a:c=DE sheet", rules(distinct=["c"]))) == ["rule distinct c: sheet has no label c"]


def test_two_fragments_of_one_holder_are_not_distinct() -> None:
    policy = short(3, "disk-a:c=DE disk-a tpm-t:c=FR", rules(distinct=["c", "device"]))
    assert broken(policy) == [
        "rule distinct c: disk-a and disk-a.2 both have DE",
        "rule distinct device: disk-a and disk-a.2 both have disk /dev/disk-a",
    ]


def test_two_fragments_in_one_tpm_are_not_distinct() -> None:
    policy = short(3, "tpm-a pin-b disk-c", rules(distinct=["device"]))
    assert broken(policy) == ["rule distinct device: tpm-a and pin-b both have the TPM of this machine"]


def test_no_quorum_within_kept() -> None:
    text = "disk-a:o=x disk-b:o=x tpm-t:o=y sheet:o=z"
    assert broken(short(3, text, rules(no_quorum_within=["o", "kind", "device"]))) == []


def test_no_quorum_within_broken() -> None:
    text = "disk-a:o=x disk-b:o=X tpm-t:o=y sheet:o=z"
    assert broken(short(2, text, rules(no_quorum_within=["o", "kind"]))) == [
        "rule no_quorum_within o: x reaches the quorum by itself, with disk-a and disk-b",
        "rule no_quorum_within kind: disk reaches the quorum by itself, with disk-a and disk-b",
    ]


def test_no_quorum_within_looks_at_the_tree_and_not_at_numbers() -> None:
    # three of five fragments are x's, but they are in one group and count once
    policy = short(2, "disk-a:o=y tpm-t:o=z g", rules(no_quorum_within=["o"]), g=(2, "hsm-a:o=x hsm-b:o=x hsm-c:o=x"))
    assert broken(policy) == []


@pytest.mark.parametrize(("survives", "kept"), [(0, True), (1, True), (2, False), (254, False)])
def test_survives(survives: int, kept: bool) -> None:
    found = broken(short(2, "disk-a disk-b tpm-t", rules(survives=survives)))
    expected = f"rule survives {survives}: the quorum is lost without disk-a and disk-b"
    assert found == ([] if kept else [expected])


def test_survives_counts_holders_and_not_fragments() -> None:
    assert broken(short(3, "disk-a disk-a disk-b tpm-t", rules(survives=1))) == [
        "rule survives 1: the quorum is lost without disk-a"
    ]
    assert broken(short(3, "tpm-a pin-b disk-c disk-d", rules(survives=1))) == [
        "rule survives 1: the quorum is lost without tpm-a+pin-b"
    ]


def test_violations_are_data() -> None:
    (violation,) = placement.violations(short(2, TWO.format("DE"), rules(distinct=["country"])))
    assert (violation.rule, violation.label, violation.value) == ("distinct", "country", "DE")
    assert violation.names == ("disk-a", "disk-b")


def test_refuse_names_the_file_and_all_rules() -> None:
    policy = short(2, TWO.format("DE"), rules(distinct=["country", "kind"]))
    with pytest.raises(MalformedError) as caught:
        placement.refuse(policy, "policy.toml")
    assert caught.value.message == (
        "policy.toml: rules: rule distinct country: disk-a and disk-b both have DE; "
        "rule distinct kind: disk-a and disk-b both have disk"
    )
    placement.refuse(short(2, TWO.format("IT"), rules(distinct=["country"])), "policy.toml")


LEAST = rules(minimum_trust=2)


def test_custodians_of_enough_trust() -> None:
    assert broken(short(2, "net-a:trust=2 net-b:trust=9 disk-c", LEAST)) == []


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ("net-a:trust=1 net-b:trust=2", "net-a: has trust 1"),
        ("net-a:trust=1 net-b:trust=1", "net-a and net-b: have trust 1"),
        ("net-a net-b:trust=2", "net-a has no label trust"),
        ("net-a:trust=high net-b:trust=2", "net-a: high is no level from 0 to 9"),
        ("net-a:trust=10 net-b:trust=2", "net-a: 10 is no level from 0 to 9"),
    ],
)
def test_custodians_of_too_little_trust_are_named(of: str, said: str) -> None:
    assert broken(short(2, of, LEAST)) == [f"rule minimum_trust 2: {said}"]


def test_two_custodians_in_one_country_are_named() -> None:
    assert broken(short(2, "net-a:country=FR net-b:country=fr tpm:country=DE", rules(distinct=["country"]))) == [
        "rule distinct country: net-a and net-b both have FR"
    ]


def test_one_custodian_under_two_names_is_one_place() -> None:
    policy = short(2, "net-a net-b tpm", rules(distinct=["device"]))
    second = policy.holders[1].with_(place=policy.holders[0].place)
    assert broken(policy.with_(holders=(policy.holders[0], second, policy.holders[2]))) == [
        "rule distinct device: net-a and net-b both have custodian net-a.example"
    ]
