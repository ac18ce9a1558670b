# SPDX-License-Identifier: Apache-2.0
"""The log's tree: published roots and proofs, a naive tree beside it, and proofs that must not pass."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.custodian import merkle
from keyquorum.errors import MalformedError, TamperingError
from unit.custodian.naive_tree import Stored, path, subproof, tree_hash

# The test data of Certificate Transparency: eight leaves, the root after each of them, and some proofs.
DATA = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
LEAVES = [merkle.leaf_hash(bytes.fromhex(text)) for text in DATA]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 8): PATHS[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): PATHS[1, 5][1:],
    (6, 7): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
MANY = [hashlib.sha256(bytes((number,))).digest() for number in range(70)]
TREE = Stored(MANY)
SIZES = st.integers(1, len(MANY))


def raw(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def test_published_roots_and_proofs() -> None:
    stored, growing = Stored(LEAVES), merkle.Growing()
    for size, expected in enumerate(ROOTS):
        assert merkle.root(size, stored.read).hex() == growing.root.hex() == expected
        if size < len(LEAVES):
            growing.append(LEAVES[size])
    for (index, size), proof in PATHS.items():
        assert merkle.inclusion_proof(index, size, stored.read) == raw(proof)
        merkle.verify_inclusion(LEAVES[index], index, size, raw(proof), bytes.fromhex(ROOTS[size]))
    for (old, new), proof in CONSISTENCY.items():
        assert merkle.consistency_proof(old, new, stored.read) == raw(proof)
        merkle.verify_consistency(old, bytes.fromhex(ROOTS[old]), new, bytes.fromhex(ROOTS[new]), raw(proof))


def test_every_tree_is_the_naive_one() -> None:
    growing = merkle.Growing()
    for size in range(len(MANY) + 1):
        assert merkle.root(size, TREE.read) == growing.root == tree_hash(MANY[:size])
        if size < len(MANY):
            growing.append(MANY[size])


def test_every_proof_is_the_naive_one_and_passes() -> None:
    for size in range(1, 34):
        top = merkle.root(size, TREE.read)
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, TREE.read)
            assert proof == path(index, MANY[:size])
            merkle.verify_inclusion(MANY[index], index, size, proof, top)
            proof = merkle.consistency_proof(index + 1, size, TREE.read)
            assert proof == subproof(index + 1, MANY[:size])
            merkle.verify_consistency(index + 1, merkle.root(index + 1, TREE.read), size, top, proof)


@settings(deadline=None, max_examples=150)
@given(size=SIZES, data=st.data())
def test_no_other_inclusion_passes(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(index, size, TREE.read)
    top = merkle.root(size, TREE.read)
    wrong: list[tuple[bytes, int, int, list[bytes], bytes]] = [
        *((MANY[index], other, size, proof, top) for other in range(-1, size + 1) if other != index),
        *((leaf, index, size, proof, top) for number, leaf in enumerate(MANY) if number != index),
        (MANY[index], index, size, [*proof, top], top),
        (MANY[index], index, size, [top, *proof], top),
        (MANY[index], index, size, proof, merkle.EMPTY_ROOT),
        (MANY[index][:31], index, size, proof, top),
        *((MANY[index], index, size, [*proof[:at], *proof[at + 1 :]], top) for at in range(len(proof))),
        *((MANY[index], index, size, [*proof[:at], bytes(32), *proof[at + 1 :]], top) for at in range(len(proof))),
    ]
    for case in wrong:
        with pytest.raises(TamperingError):
            merkle.verify_inclusion(*case)


@settings(deadline=None, max_examples=150)
@given(sizes=st.tuples(SIZES, SIZES).map(sorted).filter(lambda pair: pair[0] < pair[1]))
def test_no_other_consistency_passes(sizes: list[int]) -> None:
    old, new = sizes
    proof = merkle.consistency_proof(old, new, TREE.read)
    was, now = merkle.root(old, TREE.read), merkle.root(new, TREE.read)
    merkle.verify_consistency(old, was, new, now, proof)
    wrong: list[tuple[int, bytes, int, bytes, list[bytes]]] = [
        (old, now, new, now, proof),
        (old, was, new, was, proof),
        (old, now, new, was, proof),
        (new, was, old, now, proof),
        (old, was, new, now, []),
        (old, was, new, now, [*proof, now]),
        (old, was, new, now, [was, *proof]),
        (old - 1, was, new, now, proof),
        (old, was, new * 2 + 1, now, proof),
        *((old, was, new, now, [*proof[:at], *proof[at + 1 :]]) for at in range(len(proof))),
        *((old, was, new, now, [*proof[:at], bytes(32), *proof[at + 1 :]]) for at in range(len(proof))),
    ]
    for case in wrong:
        with pytest.raises(TamperingError):
            merkle.verify_consistency(*case)


def test_trivial_consistency() -> None:
    one = merkle.root(1, TREE.read)
    merkle.verify_consistency(0, merkle.EMPTY_ROOT, 0, merkle.EMPTY_ROOT, [])
    merkle.verify_consistency(0, merkle.EMPTY_ROOT, 1, one, [])
    merkle.verify_consistency(1, one, 1, one, [])
    for case in (
        (0, one, 1, one, []),
        (0, merkle.EMPTY_ROOT, 1, one, [one]),
        (1, one, 1, MANY[3], []),
        (1, one, 1, one, [one]),
        (2, one, 1, one, []),
        (3, one, 4, one, []),
        (1, one, 2, one, [one[:5]]),
        (1, one, 1 << 53, one, [one] * 200),
    ):
        with pytest.raises(TamperingError):
            merkle.verify_consistency(*case)


def test_an_entry_cannot_pass_for_a_node() -> None:
    """The prefixes of RFC 6962: without them a pair of hashes would be an entry with a proof."""
    two = Stored(MANY[:2])
    top = merkle.root(2, two.read)
    assert merkle.leaf_hash(MANY[0] + MANY[1]) != top
    with pytest.raises(TamperingError):
        merkle.verify_inclusion(merkle.leaf_hash(MANY[0] + MANY[1]), 0, 1, [], top)


def test_questions_about_what_is_not_there() -> None:
    for index, size in ((-1, 5), (5, 5), (0, 0)):
        with pytest.raises(MalformedError):
            merkle.inclusion_proof(index, size, TREE.read)
    for old, new in ((-1, 5), (6, 5)):
        with pytest.raises(MalformedError):
            merkle.consistency_proof(old, new, TREE.read)
