# SPDX-License-Identifier: Apache-2.0
"""Each warning is given when it should be, and not otherwise (docs/policy.md §7)."""

from __future__ import annotations

import pytest

from keyquorum.model import explain
from keyquorum.model.policy import Policy
from keyquorum.model.policy_warnings import cautions
from unit.model.policies import short

SINGLE = "[volume]\nallow_single_holder = true\n"
SMALL = '[fragments]\nkem = "x25519"\n'
CASES: dict[str, list[tuple[Policy, str]]] = {
    "alone": [
        (short(1, "tpm-boot", SINGLE), "tpm-boot alone opens the volume"),
        (short(2, "disk-a disk-a disk-b", SINGLE), "disk-a alone opens the volume"),
    ],
    "all-needed": [
        (short(2, "tpm-boot disk-a"), "no holder may ever be missing: all 2 are needed"),
        (short(1, "g", g=(2, "tpm-boot disk-a")), "no holder may ever be missing: all 2 are needed"),
    ],
    "indispensable": [
        (short(2, "tpm-boot g", g=(1, "disk-a sheet")), "tpm-boot is indispensable: nothing opens without it"),
        (short(3, "disk-a disk-a disk-b tpm-t"), "disk-a is indispensable: nothing opens without it"),
    ],
    "idle": [(short(2, "disk-a disk-a disk-b", SINGLE), "disk-b decides nothing: no quorum needs it")],
    "passphrases-only": [
        (
            short(2, "phrase-alice phrase-bob sheet"),
            "passphrases alone open it (phrase-alice, phrase-bob): whoever has the header can guess them one by one",
        ),
        (
            short(2, "phrase-alice tpm-t phrase-alice", SINGLE),
            "passphrases alone open it (phrase-alice): whoever has the header can guess them one by one",
        ),
    ],
    "one-member": [
        (short(2, "disk-a disk-b g", g=(1, "sheet")), "group g has one member: it decides nothing"),
        (short(2, "disk-a disk-b g", g=(1, "h"), h=(1, "sheet disk-c")), "group g has one member: it decides nothing"),
    ],
    "same-place": [
        (
            short(3, "tpm-boot pin-x disk-a disk-b"),
            "tpm-boot and pin-x are in one place (the TPM of this machine): they count as one holder",
        )
    ],
    "several-fragments": [
        (short(3, "disk-a disk-a disk-b tpm-t"), "disk-a holds 2 fragments"),
        (short(3, "sheet sheet disk-b tpm-t"), "sheet holds 2 fragments and is asked for each"),
    ],
    "tpm-without-pcr": [
        (short(2, "bare disk-a"), "bare binds no PCR: whatever system is started on this machine can use it"),
        (
            short(2, "pin-x disk-a"),
            "pin-x asks for a PIN but binds no PCR: whatever system is started on this machine can use it",
        ),
    ],
    "binds-measured-pcr": [
        (short(2, "late disk-a"), "late binds PCR 15, which changes whenever a volume is opened"),
    ],
    "sha1": [(short(2, "sha1 disk-a"), "sha1 binds PCRs of the SHA-1 bank, which can be forged")],
    "one-label": [
        (
            short(2, "disk-a:site=x disk-b:site=X sheet"),
            'all of a quorum has site x (disk-a, disk-b); no_quorum_within = ["site"] under [rules] would refuse that',
        ),
    ],
    "x25519": [
        (
            short(2, "disk-a tpm-t", SMALL),
            "fragments are sealed by X25519 alone: a later quantum computer opens copies of them",
        )
    ],
    "expires": [
        (
            short(2, "disk-a tpm-t", "[fragments]\nvalid_days = 30\n"),
            (
                "all fragments expire 30 days after enrolment: rotate before, or only an ordinary keyslot still opens "
                "the volume"
            ),
        )
    ],
}
QUIET: dict[str, list[Policy]] = {
    "alone": [short(2, "tpm-boot disk-a")],
    "all-needed": [short(2, "tpm-boot disk-a disk-b"), short(1, "tpm-boot", SINGLE)],
    "indispensable": [short(2, "tpm-boot disk-a disk-b"), short(2, "tpm-boot disk-a"), short(1, "tpm-boot", SINGLE)],
    "idle": [short(3, "disk-a disk-a disk-b tpm-t")],
    "passphrases-only": [short(2, "phrase-a sheet"), short(2, "phrase-a sheet tpm-t")],
    "one-member": [short(2, "disk-a disk-b g", g=(1, "sheet tpm-t"))],
    "same-place": [short(2, "tpm-boot disk-a disk-b"), short(3, "disk-a disk-a disk-b tpm-t")],
    "several-fragments": [short(3, "tpm-boot pin-x disk-a disk-b")],
    "tpm-without-pcr": [short(2, "facts disk-a"), short(2, "signed disk-a")],
    "binds-measured-pcr": [short(2, "tpm-boot disk-a"), short(2, "late disk-a", "[volume]\nmeasure_pcr = -1\n")],
    "sha1": [short(2, "tpm-boot disk-a")],
    "one-label": [
        short(2, "disk-a:site=x disk-b:site=y sheet"),
        short(2, "disk-a:site=x disk-b:site=x", '[rules]\nno_quorum_within = ["site"]\n'),
        short(1, "disk-a:site=x", SINGLE),
    ],
    "x25519": [short(2, "disk-a tpm-t"), short(2, "disk-a tpm-t", "[fragments]\nkem = 'x-wing'\n")],
    "expires": [short(2, "disk-a tpm-t")],
}


def given(policy: Policy) -> list[tuple[str, str]]:
    return [(caution.code, caution.message) for caution in cautions(explain.analyse(policy))]


@pytest.mark.parametrize("code", CASES)
def test_warned(code: str) -> None:
    for policy, message in CASES[code]:
        assert (code, message) in given(policy)


@pytest.mark.parametrize("code", CASES)
def test_not_warned(code: str) -> None:
    for policy in QUIET[code]:
        assert code not in [found for found, _ in given(policy)]


def test_sizes() -> None:
    few = short(2, "tpm-t sheet phrase-x")
    codes = [code for code, _ in given(few)]
    assert codes == ["token-too-large"]
    assert 'write kem = "x25519"' in given(few)[0][1]
    assert "token-too-large" not in [code for code, _ in given(short(2, "tpm-t sheet phrase-x", SMALL))]
    many = short(2, " ".join(f"phrase-{number}" for number in range(12)), SMALL)
    (message,) = (message for code, message in given(many) if code == "token-too-large")
    assert message.endswith("format the volume with --luks2-metadata-size 64k")
    huge = short(2, " ".join(f"disk-{number}" for number in range(200)))
    codes = [code for code, _ in given(huge)]
    assert "set-too-large" in codes
    assert "token-too-large" not in codes


def test_a_good_policy_is_not_nagged() -> None:
    assert given(short(2, "tpm-boot disk-a:site=x disk-b:site=y")) == []
