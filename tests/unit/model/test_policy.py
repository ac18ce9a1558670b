# SPDX-License-Identifier: Apache-2.0
"""Policies that are accepted, and what the reader makes of them (docs/policy.md §1 to §5)."""

from __future__ import annotations

import tomllib

import pytest

from keyquorum.model import policy
from keyquorum.model.holder_options import DiskOptions, PassphraseOptions, SheetOptions, TpmOptions
from keyquorum.model.policy import Policy, Rules
from keyquorum.model.tree import Leaf, Node, leaves, satisfied

NESTED = """
version = 1
threshold = 2
of = ["boot-tpm", "disk-a", "people"]
[holder.boot-tpm]
kind = "tpm"
pcrs = [7]
[holder.disk-a]
kind = "disk"
device = "PARTUUID=AB"
labels = { site = "rack-3", country = "DE" }
[holder.sheet]
kind = "sheet"
[holder.alice]
kind = "passphrase"
[group.people]
threshold = 1
of = ["sheet", "alice"]
"""


def read(text: str) -> Policy:
    return policy.parse(tomllib.loads(text), "policy.toml")


def disks(*names: str) -> str:
    return "".join(f'[holder.{name}]\nkind = "disk"\ndevice = "/dev/{name}"\n' for name in names)


def test_the_tree_is_numbered_in_reading_order() -> None:
    found = read(NESTED)
    people = Node(threshold=1, children=(Leaf(index=3), Leaf(index=4)))
    assert found.tree == Node(threshold=2, children=(Leaf(index=1), Leaf(index=2), people))
    assert [spec.index for spec in found.holders] == [index for index, _, _ in leaves(found.tree)] == [1, 2, 3, 4]
    assert [spec.name for spec in found.holders] == ["boot-tpm", "disk-a", "sheet", "alice"]
    assert found.groups == (((3,), "people"),)


def test_each_holder_has_its_options_and_labels() -> None:
    found = read(NESTED)
    assert [spec.options for spec in found.holders] == [
        TpmOptions(pcrs=(7,)),
        DiskOptions(device="PARTUUID=AB"),
        SheetOptions(),
        PassphraseOptions(),
    ]
    disk = found.holders[1]
    assert disk.label("country") == "DE"
    assert disk.label("kind") == "disk"
    assert disk.label("device") == "disk PARTUUID=ab"
    assert disk.label("operator") == found.holders[0].label("country") == ""


def test_defaults() -> None:
    found = read(NESTED)
    assert found.rules == Rules()
    assert (found.kem, found.valid_days, found.measure_pcr, found.allow_single_holder) == ("", 0, 15, False)


def test_every_setting() -> None:
    found = read(
        NESTED + '[rules]\ndistinct = ["country", "kind"]\nno_quorum_within = ["operator"]\nsurvives = 2\n'
        '[fragments]\nkem = "x25519"\nvalid_days = 365\n'
        "[volume]\nmeasure_pcr = -1\nallow_single_holder = true\n"
    )
    assert found.rules == Rules(distinct=("country", "kind"), no_quorum_within=("operator",), survives=2)
    assert (found.kem, found.valid_days, found.measure_pcr, found.allow_single_holder) == ("x25519", 365, -1, True)


def test_a_holder_may_stand_in_several_places() -> None:
    found = read(
        'version = 1\nthreshold = 4\nof = ["a", "a", "b", "g"]\n'
        '[group.g]\nthreshold = 1\nof = ["a", "c"]\n' + disks("a", "b", "c")
    )
    assert [spec.name for spec in found.holders] == ["a", "a.2", "b", "a.3", "c"]
    assert [spec.holder for spec in found.holders] == ["a", "a", "b", "a", "c"]
    assert found.places() == ("disk /dev/a", "disk /dev/b", "disk /dev/c")
    assert [index for index, _, _ in leaves(found.place_tree())] == [0, 0, 1, 0, 2]
    assert [index for index, _, _ in leaves(found.holder_tree())] == [1, 1, 3, 1, 5]


def test_holders_in_one_tpm_token_or_disk_are_in_one_place() -> None:
    found = read(
        'version = 1\nthreshold = 4\nof = ["t", "u", "h", "i", "j", "d", "e", "s", "r"]\n'
        '[holder.t]\nkind = "tpm"\npcrs = [7]\n[holder.u]\nkind = "tpm"\npin = true\n'
        '[holder.h]\nkind = "pkcs11"\nuri = "pkcs11:token=x;object=one"\n'
        '[holder.i]\nkind = "pkcs11"\nuri = "pkcs11:id=%01;token=x?module-name=p11"\n'
        '[holder.j]\nkind = "pkcs11"\nuri = "pkcs11:object=one"\n'
        '[holder.d]\nkind = "disk"\ndevice = "PARTUUID=aB"\n[holder.e]\nkind = "disk"\ndevice = "PARTUUID=Ab"\n'
        '[holder.s]\nkind = "sheet"\n[holder.r]\nkind = "sheet"\n'
    )
    assert [found.places().index(spec.place) for spec in found.holders] == [0, 0, 1, 1, 2, 3, 3, 4, 5]
    assert found.names_at(0) == "t+u"


def test_the_largest_policies() -> None:
    names = [f"d{number}" for number in range(255)]
    found = read(f"version = 1\nthreshold = 128\nof = {names}\n" + disks(*names))
    assert len(found.holders) == 255
    text = 'version = 1\nthreshold = 2\nof = ["a", "g1"]\n'
    for depth in (1, 2, 3):
        inner = f'"g{depth + 1}"' if depth < 3 else '"c"'
        text += f'[group.g{depth}]\nthreshold = 1\nof = ["b{depth}", {inner}]\n' + disks(f"b{depth}")
    found = read(text + disks("a", "c"))
    assert satisfied(found.tree, {1, len(found.holders)})


def test_the_longest_name_leaves_room_for_a_number() -> None:
    name = "n" * policy.MAX_NAME
    found = read(
        f"version = 1\nthreshold = 200\nof = {[name] * 254 + ['b']}\n[volume]\nallow_single_holder = true\n"
        + disks(name, "b")
    )
    assert max(len(spec.name) for spec in found.holders) == 32
    assert len({spec.name for spec in found.holders}) == 255


@pytest.mark.parametrize("of", ['["t"]', '["t", "u"]'])
def test_one_holder_alone_needs_leave(of: str) -> None:
    text = f"version = 1\nthreshold = {of.count(',') + 1}\nof = {of}\n" + '[holder.t]\nkind = "tpm"\npcrs = [7]\n'
    text += '[holder.u]\nkind = "tpm"\npin = true\n' if "u" in of else ""
    assert read(text + "[volume]\nallow_single_holder = true\n").allow_single_holder
