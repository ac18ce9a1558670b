# SPDX-License-Identifier: Apache-2.0
"""Policies that are refused: one defect each, the object and the field named (docs/policy.md §9)."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.errors import MalformedError
from keyquorum.model import policy

GOOD: dict[str, Any] = tomllib.loads("""
version = 1
threshold = 2
of = ["boot-tpm", "disk-a", "people"]
[holder.boot-tpm]
kind = "tpm"
pcrs = [7]
facts = ["cpu-model"]
[holder.disk-a]
kind = "disk"
device = "PARTUUID=1"
labels = { country = "DE" }
[holder.hsm]
kind = "pkcs11"
uri = "pkcs11:token=x;object=y"
[holder.alice]
kind = "passphrase"
[group.people]
threshold = 1
of = ["hsm", "alice"]
[rules]
distinct = ["country"]
survives = 1
[fragments]
valid_days = 10
[volume]
measure_pcr = 15
""")
GONE = object()


def changed(path: str, value: object) -> dict[str, Any]:
    """Return the good policy with one value set, or removed."""
    table: dict[str, Any] = tomllib.loads("")
    table.update(_copy(GOOD))
    *parents, last = path.split("/")
    inner = table
    for parent in parents:
        inner = inner.setdefault(parent, {})
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return table


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, list) else value


CASES = {
    "version_missing": ("version", GONE, "version: is missing"),
    "version_other": ("version", 2, "version: 2 is not known here (this program knows 1)"),
    "version_text": ("version", "1", "version: must be a whole number"),
    "version_true": ("version", True, "version: must be a whole number"),
    "version_fraction": ("version", 1.0, "version: must be a whole number"),
    "threshold_missing": ("threshold", GONE, "threshold: is missing"),
    "threshold_zero": ("threshold", 0, "threshold: 0 is not from 1 to 255"),
    "threshold_negative": ("threshold", -1, "threshold: -1 is not from 1 to 255"),
    "threshold_above_members": ("threshold", 4, "threshold: 4 of 3 can never be reached"),
    "threshold_true": ("threshold", True, "threshold: must be a whole number"),
    "threshold_fraction": ("threshold", 2.0, "threshold: must be a whole number"),
    "of_missing": ("of", GONE, "of: is missing"),
    "of_empty": ("of", [], "of: is empty"),
    "of_text": ("of", "disk-a", "of: must be a list"),
    "of_number": ("of", ["boot-tpm", 7], "of[1]: must be a name in quotes"),
    "of_nested_list": ("of", [["boot-tpm", "disk-a"]], "of[0]: must be a name in quotes"),
    "of_too_many": ("of", ["disk-a"] * 256, "of: has 256 items, more than 255"),
    "of_control_character": ("of", ["disk-a\x1b[31m", "alice"], "of[0]: must be a name in quotes"),
    "of_unknown": ("of", ["boot-tpm", "disk-a", "peple"], "of[2]: peple is neither a holder nor a group"),
    "of_empty_name": ("of", ["boot-tpm", "disk-a", ""], "of[2]: '' is neither a holder nor a group"),
    "top_unknown": ("treshold", 2, "treshold: is not known here"),
    "top_unknown_control_character": ("a\x1b", 2, "'a\\x1b': is not known here"),
    "holder_unused": ("holder/bob", {"kind": "sheet"}, "holder.bob: is used nowhere"),
    "holder_no_table": ("holder/bob", 3, "holder.bob: must be a table"),
    "holders_no_table": ("holder", [], "holder: must be a table"),
    "holder_dot": ("holder/a.b", {"kind": "sheet"}, "holder.a.b: names are 1 to 28 of a-z, 0-9, dash, underscore"),
    "holder_upper_case": ("holder/Bob", {"kind": "sheet"}, "holder.Bob: names are 1 to 28"),
    "holder_long_name": ("holder/" + "b" * 29, {"kind": "sheet"}, ": names are 1 to 28"),
    "holder_empty_name": ("holder/", {"kind": "sheet"}, "holder.'': names are 1 to 28"),
    "holder_terminal_escape": ("holder/\x1b[2J", {"kind": "sheet"}, "holder.'\\x1b[2J': names are 1 to 28"),
    "kind_missing": ("holder/alice/kind", GONE, "holder.alice.kind: is missing"),
    "kind_unknown": ("holder/alice/kind", "cloud", "holder.alice.kind: 'cloud' is none of disk, tpm, pkcs11"),
    "kind_list": ("holder/alice/kind", ["tpm"], "holder.alice.kind: must be a non-empty text"),
    "option_unknown": ("holder/alice/pcrs", [7], "holder.alice.pcrs: is not known here"),
    "disk_without_device": ("holder/disk-a/device", GONE, "holder.disk-a.device: is missing"),
    "device_number": ("holder/disk-a/device", 7, "holder.disk-a.device: must be a non-empty text"),
    "pcr_too_high": ("holder/boot-tpm/pcrs", [24], "holder.boot-tpm.pcrs: must be PCR numbers from 0 to 23"),
    "pcr_twice": ("holder/boot-tpm/pcrs", [7, 7], "holder.boot-tpm.pcrs: names a PCR twice"),
    "pcr_text": ("holder/boot-tpm/pcrs", ["7"], "holder.boot-tpm.pcrs: must be PCR numbers"),
    "facts_unknown": ("holder/boot-tpm/facts", ["colour"], "holder.boot-tpm.facts: may name each of"),
    "facts_nested": ("holder/boot-tpm/facts", [["cpu-model"]], "holder.boot-tpm.facts: may name each of"),
    "facts_in_measured_pcr": ("holder/boot-tpm/facts_pcr", 15, "holder.boot-tpm.facts_pcr: 15 is the PCR that opened"),
    "public_key_alone": ("holder/boot-tpm/public_key", "/k.pem", "holder.boot-tpm.signed_pcrs: and public_key go"),
    "uri_with_pin": ("holder/hsm/uri", "pkcs11:token=x?pin-value=1", "holder.hsm.uri: may not hold pin-value"),
    "uri_no_uri": ("holder/hsm/uri", "http://x", "holder.hsm.uri: must start with pkcs11:"),
    "labels_no_table": ("holder/alice/labels", "DE", "holder.alice.labels: must be a table"),
    "label_number": ("holder/alice/labels", {"site": 3}, "holder.alice.labels.site: must be a non-empty text"),
    "label_empty": ("holder/alice/labels", {"site": ""}, "holder.alice.labels.site: must be a non-empty text"),
    "label_long": ("holder/alice/labels", {"site": "x" * 65}, "holder.alice.labels.site: is longer than 64"),
    "label_control": ("holder/alice/labels", {"site": "a\nb"}, "holder.alice.labels.site: holds characters that"),
    "label_name": ("holder/alice/labels", {"Si te": "x"}, "holder.alice.labels.Si te: labels are 1 to 32 of"),
    "label_kind": ("holder/alice/labels", {"kind": "x"}, "holder.alice.labels.kind: is given by the holder itself"),
    "label_device": ("holder/alice/labels", {"device": "x"}, "holder.alice.labels.device: is given by the holder"),
    "labels_too_many": (
        "holder/alice/labels",
        {f"l{number}": "x" for number in range(17)},
        "holder.alice.labels: has 17 labels, more than 16",
    ),
    "group_unused": ("group/more", {"threshold": 1, "of": ["alice"]}, "group.more: is used nowhere"),
    "group_and_holder": ("group/alice", {"threshold": 1, "of": ["hsm"]}, "group.alice: is the name of a holder"),
    "group_empty": ("group/people/of", [], "group.people.of: is empty"),
    "group_threshold": ("group/people/threshold", 3, "group.people.threshold: 3 of 2 can never be reached"),
    "group_unknown_member": ("group/people/of", ["hsm", "alise"], "group.people.of[1]: alise is neither"),
    "group_unknown_key": ("group/people/kind", "tpm", "group.people.kind: is not known here"),
    "group_in_itself": ("group/people/of", ["hsm", "alice", "people"], "circle: people -> people"),
    "group_twice": ("of", ["boot-tpm", "disk-a", "people", "people"], "of[3]: group people is used already"),
    "rules_unknown": ("rules/distict", ["kind"], "rules.distict: is not known here"),
    "rules_no_table": ("rules", 3, "rules: must be a table"),
    "rules_text": ("rules/distinct", "country", "rules.distinct: must be a list"),
    "rules_number": ("rules/distinct", [3], "rules.distinct[0]: must be a name in quotes"),
    "rules_twice": ("rules/distinct", ["country", "country"], "rules.distinct: names a label twice"),
    "survives_negative": ("rules/survives", -1, "rules.survives: -1 is not from 0 to 254"),
    "kem_unknown": ("fragments/kem", "rsa", "fragments.kem: 'rsa' is none of x-wing, x25519"),
    "days_negative": ("fragments/valid_days", -1, "fragments.valid_days: -1 is not from 0 to 36500"),
    "fragments_unknown": ("fragments/k", 1, "fragments.k: is not known here"),
    "measure_too_high": ("volume/measure_pcr", 16, "volume.measure_pcr: 16 is not from -1 to 15"),
    "measure_firmware": ("volume/measure_pcr", 7, "volume.measure_pcr: PCR 7 belongs to the firmware"),
    "single_text": ("volume/allow_single_holder", "yes", "volume.allow_single_holder: must be true or false"),
    "volume_unknown": ("volume/name", "root", "volume.name: is not known here"),
    "single_holder": ("threshold", 1, "threshold: boot-tpm alone opens the volume"),
}


@pytest.mark.parametrize("defect", CASES)
def test_refused(defect: str) -> None:
    path, value, expected = CASES[defect]
    with pytest.raises(MalformedError) as caught:
        policy.parse(changed(path, value), "policy.toml")
    assert caught.value.message.startswith("policy.toml: ")
    assert expected in caught.value.message
    assert caught.value.exit_code == 2
    assert caught.value.message.isprintable()


def test_the_policy_without_a_defect_is_accepted() -> None:
    assert len(policy.parse(_copy(GOOD), "policy.toml").holders) == 4


@pytest.mark.parametrize("table", [None, [], 3, "x"])
def test_no_table(table: object) -> None:
    with pytest.raises(MalformedError, match=r"policy\.toml: must be a table"):
        policy.parse(table, "policy.toml")


def test_slips_are_answered_with_a_hint() -> None:
    for path, value, hint in (
        ("of", ["boot-tpm", "disk-a", "peple"], 'did you mean "people"?'),
        ("treshold", 2, 'did you mean "threshold"?'),
        ("threshold", 1, "raise the threshold"),
    ):
        with pytest.raises(MalformedError) as caught:
            policy.parse(changed(path, value), "policy.toml")
        assert hint in caught.value.hint


def test_a_circle_of_groups() -> None:
    table = changed("group/people/of", ["hsm", "alice", "b"])
    table["group"]["b"] = {"threshold": 1, "of": ["c"]}
    table["group"]["c"] = {"threshold": 1, "of": ["people"]}
    with pytest.raises(MalformedError, match="circle: people -> b -> c -> people"):
        policy.parse(table, "policy.toml")


def test_nested_too_deep() -> None:
    table = changed("group/people/of", ["hsm", "alice", "b"])
    table["group"]["b"] = {"threshold": 1, "of": ["c"]}
    table["group"]["c"] = {"threshold": 1, "of": ["d"]}
    table["group"]["d"] = {"threshold": 1, "of": ["alice"]}
    with pytest.raises(MalformedError, match=r"group\.c\.of\[0\]: is nested more than 4 deep"):
        policy.parse(table, "policy.toml")


def test_too_many_fragments() -> None:
    table = changed("of", ["disk-a"] * 254 + ["boot-tpm", "people"][:1])
    table["threshold"] = 255
    table["of"][0] = "people"
    with pytest.raises(MalformedError, match=r"of\[254\]: is fragment number 256; a policy has at most 255"):
        policy.parse(table, "policy.toml")


def test_one_disk_with_two_fragments_is_one_holder() -> None:
    table = changed("of", ["disk-a", "disk-a", "boot-tpm", "people"])
    with pytest.raises(MalformedError, match="disk-a alone opens the volume"):
        policy.parse(table, "policy.toml")


def test_two_names_for_one_tpm_are_one_holder() -> None:
    table = changed("holder/other", {"kind": "tpm", "pin": True})
    table["of"] = ["boot-tpm", "other", "disk-a", "people"]
    with pytest.raises(MalformedError, match=r"boot-tpm\+other alone opens the volume"):
        policy.parse(table, "policy.toml")


def test_entangled_holders() -> None:
    names = [f"d{number}" for number in range(13)]
    table = {
        "version": 1,
        "threshold": 13,
        "of": [f"g{number}" for number in range(13)],
        "group": {f"g{n}": {"threshold": 1, "of": [names[n], names[(n + 1) % 13]]} for n in range(13)},
        "holder": {name: {"kind": "disk", "device": f"/dev/{name}"} for name in names},
    }
    with pytest.raises(MalformedError, match="too many holders keep several fragments"):
        policy.parse(table, "policy.toml")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.dates()
VALUES = st.recursive(
    SCALARS | st.sampled_from(["boot-tpm", "alice", "people", "tpm", "disk"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
PATHS = [
    "version", "threshold", "of", "holder", "group", "rules", "fragments", "volume", "new",
    *(f"holder/{name}/{key}" for name in GOOD["holder"] for key in (*GOOD["holder"][name], "labels", "pin", "signed_pcrs")),
    "holder/boot-tpm/public_key", "holder/boot-tpm/bank", "holder/alice/memory", "group/people/of",
    "group/people/threshold", "rules/no_quorum_within", "rules/survives", "fragments/kem", "volume/measure_pcr",
]  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_nothing_but_our_error_leaves_the_reader(path: str, value: object) -> None:
    with suppress(MalformedError):
        policy.parse(changed(path, value), "policy.toml")
