# SPDX-License-Identifier: Apache-2.0
"""Signed notes, checkpoints and cosignatures: other people's, ours, and what a witness must not sign."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from keyquorum.custodian import checkpoint, merkle, note
from keyquorum.custodian.checkpoint import Checkpoint, ForkError, Verified
from keyquorum.custodian.note import NoteSigner
from keyquorum.errors import MalformedError, TamperingError
from unit.custodian.notes import KEYS, LOG, NOW, ORIGIN, WITNESSES, bodies, private, signed, tree, verified

ENTRIES = bodies(12)
FIVE = signed(ENTRIES, 5)

# The example in the documentation of Go's package golang.org/x/mod/sumdb/note: key, text, signature.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SECRET = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_LINE = (
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# A checkpoint that Go's checksum database signed, with its published key.
SUM_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
SUM_NOTE = (
    "go.sum database tree\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 sum.golang.org Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)


def cosigned(data: bytes, *signers: NoteSigner, at: int = NOW) -> bytes:
    for witness in signers:
        data = checkpoint.cosign(checkpoint.verify(data, LOG.key), witness, at)
    return data


def test_a_note_of_another_implementation_is_read_and_made_alike() -> None:
    key = note.parse_key(GO_KEY)
    assert (key.name, key.kind, str(key)) == ("PeterNeumann", note.ED25519, GO_KEY)
    note.parse(f"{GO_TEXT}\n{GO_LINE}".encode()).signed_by(key)
    secret = Ed25519PrivateKey.from_private_bytes(base64.b64decode(GO_SECRET)[1:])
    assert NoteSigner("PeterNeumann", note.ED25519, secret).line(GO_TEXT.encode()) == GO_LINE


def test_a_checkpoint_of_a_public_log_is_read() -> None:
    key, found = note.parse_key(SUM_KEY), note.parse(SUM_NOTE.encode())
    found.signed_by(key)
    assert checkpoint.parse_text(found.text).size == 20852163
    with pytest.raises(TamperingError, match="origin"):  # that log's key has another name than the log
        checkpoint.verify(SUM_NOTE.encode(), key)
    with pytest.raises(TamperingError, match="does not match"):
        note.parse(SUM_NOTE.replace("163", "164").encode()).signed_by(key)


def test_ours() -> None:
    found = checkpoint.verify(FIVE, LOG.key)
    assert (found.checkpoint.origin, found.checkpoint.size) == (ORIGIN, 5)
    assert found.checkpoint.root == merkle.root(5, tree(ENTRIES).read)
    assert found.witnesses == {}
    assert FIVE.decode().splitlines()[:2] == [ORIGIN, "5"]


@pytest.mark.parametrize("key", [LOG.key, *KEYS], ids=str)
def test_keys_are_one_line(key: note.VerifierKey) -> None:
    assert note.parse_key(str(key)) == key


@pytest.mark.parametrize(
    "text",
    ["", "a+b", GO_KEY + "+", GO_KEY[:-4], GO_KEY.replace("c74f20a3", "c74f20a4"), GO_KEY.replace("+ARp", "+AhP"),
     GO_KEY.replace("Peter", "Peter "), GO_KEY.replace("+ARp", "+AVp"), GO_KEY.upper(), "+" + GO_KEY],
)  # fmt: skip
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(MalformedError):
        note.parse_key(text)


def test_one_key_has_another_id_under_another_name_or_type() -> None:
    ids = {NoteSigner(name, kind, private(1)).key.key_id for name in ("a", "b") for kind in (1, 4)}
    assert len(ids) == 4


@settings(deadline=None, max_examples=300)
@given(at=st.integers(0, 4000), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_cosigned_checkpoint_is_believed(at: int, bit: int) -> None:
    data = bytearray(cosigned(FIVE, *WITNESSES))
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(TamperingError):
        checkpoint.verify(bytes(data), LOG.key, KEYS, 2)


LINE = FIVE.decode().partition("\n\n")[2]
TEXT = FIVE.decode().partition("\n\n")[0] + "\n"
SHAPES = {
    "empty": b"",
    "no signature": TEXT.encode(),
    "no line after the gap": f"{TEXT}\n".encode(),
    "no last newline": FIVE[:-1],
    "nul": FIVE.replace(b"paris", b"par\0s"),
    "tab": FIVE.replace(b"paris", b"par\ts"),
    "not utf-8": FIVE + b"\xff\n",
    "hyphen": FIVE.replace("\u2014".encode(), b"-"),
    "two spaces": FIVE.replace(b"paris A", b"paris  A").replace(b"paris ", b"paris  ", 1),
    "not base64": FIVE[:-3] + b"!\n",
    "short": f"{TEXT}\n\u2014 {ORIGIN} AAAA\n".encode(),
    "many": f"{TEXT}\n{LINE * 33}".encode(),
    "long": FIVE + f"\u2014 stranger {'AAAA' * 4096}\n".encode(),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_no_note(shape: str) -> None:
    with pytest.raises(TamperingError):
        checkpoint.verify(SHAPES[shape], LOG.key)


def test_control_characters_are_refused_also_if_signed() -> None:
    text = "a\tb\n"
    with pytest.raises(TamperingError, match="control"):
        note.parse(f"{text}\n{LOG.line(text.encode())}".encode())


ROOT = base64.b64encode(bytes(32)).decode()
TEXTS = {
    "two lines": f"{ORIGIN}\n5\n",
    "extension": f"{ORIGIN}\n5\n{ROOT}\nmore\n",
    "empty line": f"{ORIGIN}\n5\n{ROOT}\n\n",
    "no origin": f"\n5\n{ROOT}\n",
    "leading zero": f"{ORIGIN}\n05\n{ROOT}\n",
    "sign": f"{ORIGIN}\n+5\n{ROOT}\n",
    "minus": f"{ORIGIN}\n-5\n{ROOT}\n",
    "other digits": f"{ORIGIN}\n\u0665\n{ROOT}\n",
    "huge": f"{ORIGIN}\n{1 << 60}\n{ROOT}\n",
    "short root": f"{ORIGIN}\n5\nAAAA\n",
    "loose root": f"{ORIGIN}\n5\n{ROOT[:-2]}B=\n",
    "no base64": f"{ORIGIN}\n5\n{ROOT[:-1]}\n",
    "empty log": f"{ORIGIN}\n0\n{ROOT}\n",
}


@pytest.mark.parametrize("case", TEXTS)
def test_what_is_no_checkpoint(case: str) -> None:
    with pytest.raises(TamperingError):
        checkpoint.parse_text(TEXTS[case])
    data = f"{TEXTS[case]}\n{LOG.line(TEXTS[case].encode())}".encode()
    with pytest.raises(TamperingError):
        checkpoint.verify(data, LOG.key)


def test_signatures_of_strangers_are_passed_over() -> None:
    stranger = NoteSigner("custodian.example/else", note.COSIGNATURE, private(9))
    named_alike = NoteSigner("custodian.example/oslo", note.COSIGNATURE, private(9))
    found = checkpoint.verify(cosigned(FIVE, stranger, named_alike, WITNESSES[0]), LOG.key, KEYS, 1)
    assert found.witnesses == {KEYS[0].name: NOW}
    with pytest.raises(TamperingError, match="2 witnesses are needed"):
        checkpoint.verify(found.signed, LOG.key, KEYS, 2)
    with pytest.raises(TamperingError, match="not by"):
        checkpoint.verify(signed(ENTRIES, 5, NoteSigner(ORIGIN, note.ED25519, private(9))), LOG.key)


def test_a_witness_counts_once_and_the_log_not_at_all() -> None:
    again = cosigned(cosigned(FIVE, WITNESSES[0]), WITNESSES[0], at=NOW + 5)
    assert checkpoint.verify(again, LOG.key, KEYS, 1).witnesses == {KEYS[0].name: NOW + 5}
    alias = NoteSigner("custodian.example/alias", note.COSIGNATURE, private(2))
    own = NoteSigner("custodian.example/own", note.COSIGNATURE, private(1))
    for other in (alias, own):
        data = cosigned(FIVE, WITNESSES[0], other)
        with pytest.raises(TamperingError, match="2 witnesses are needed"):
            checkpoint.verify(data, LOG.key, (KEYS[0], other.key), 2)


def test_a_cosignature_is_for_one_time_and_one_text() -> None:
    line = cosigned(FIVE, WITNESSES[0]).decode().splitlines(keepends=True)[-1]
    six = signed(ENTRIES, 6) + line.encode()
    with pytest.raises(TamperingError, match="does not match"):
        checkpoint.verify(six, LOG.key, KEYS)
    raw = bytearray(base64.b64decode(line.split(" ")[2]))
    raw[11] ^= 1
    later = FIVE + f"\u2014 {KEYS[0].name} {base64.b64encode(raw).decode()}\n".encode()
    with pytest.raises(TamperingError, match="does not match"):
        checkpoint.verify(later, LOG.key, KEYS)


def test_programmers_errors() -> None:
    five = checkpoint.verify(FIVE, LOG.key)
    with pytest.raises(ValueError, match="own name"):
        checkpoint.sign(five.checkpoint, NoteSigner("other", note.ED25519, private(1)))
    with pytest.raises(ValueError, match="cosignature type"):
        checkpoint.cosign(five, LOG, NOW)
    with pytest.raises(ValueError, match="no instant"):
        checkpoint.cosign(five, WITNESSES[0], 0)
    assert "private" not in repr(LOG).lower()


def proof(old: int, new: int) -> list[bytes]:
    return merkle.consistency_proof(old, new, tree(ENTRIES).read)


def test_a_witness_signs_what_goes_on() -> None:
    checkpoint.follows(None, verified(ENTRIES, 5), [])
    checkpoint.follows(verified(ENTRIES, 5), verified(ENTRIES, 12), proof(5, 12))
    checkpoint.follows(verified(ENTRIES, 5), verified(ENTRIES, 5), [])
    checkpoint.follows(verified(ENTRIES, 0), verified(ENTRIES, 5), [])


def test_a_witness_signs_nothing_else() -> None:
    other = [*ENTRIES[:3], ENTRIES[4], ENTRIES[3], *ENTRIES[5:]]
    with pytest.raises(TamperingError):
        checkpoint.follows(verified(ENTRIES, 5), verified(other, 12), proof(5, 12))
    with pytest.raises(TamperingError):
        checkpoint.follows(verified(ENTRIES, 5), verified(ENTRIES, 12), [])
    with pytest.raises(TamperingError, match="went back"):
        checkpoint.follows(verified(ENTRIES, 12), verified(ENTRIES, 5), proof(5, 12))
    with pytest.raises(TamperingError, match="none is needed"):
        checkpoint.follows(None, verified(ENTRIES, 5), [bytes(32)])
    elsewhere = NoteSigner("custodian.example/else", note.ED25519, private(1))
    foreign = checkpoint.verify(signed(ENTRIES, 12, elsewhere), elsewhere.key)
    with pytest.raises(TamperingError, match="origin"):
        checkpoint.follows(verified(ENTRIES, 5), foreign, proof(5, 12))


def test_two_roots_for_one_size_are_a_fork_and_prove_it() -> None:
    other = [*bodies(4), b"{}"]
    one, two = verified(ENTRIES, 5), verified(other, 5)
    with pytest.raises(ForkError, match="forked") as caught:
        checkpoint.follows(one, two, [])
    pair = [checkpoint.verify(kept, LOG.key).checkpoint for kept in caught.value.notes]
    assert pair[0].size == pair[1].size
    assert pair[0].root != pair[1].root
    empty = Verified(checkpoint=Checkpoint(origin="x", size=5, root=bytes(32)), witnesses={}, signed=b"")
    checkpoint.compare(one, empty)
