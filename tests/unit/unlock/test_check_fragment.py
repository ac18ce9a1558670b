# SPDX-License-Identifier: Apache-2.0
"""When a fragment counts: the seven checks of docs/fragment.md §4, each broken alone, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from keyquorum.envelope import dsse, hpke
from keyquorum.envelope.sealing import Recipient
from keyquorum.errors import KeyquorumError, RefusedError, TamperingError
from keyquorum.holders.contract import Held
from keyquorum.model import fragment, report
from keyquorum.secret import Identity, Share
from keyquorum.unlock.check_fragment import check_fragment
from unit.sharing.test_tree import grow
from unit.unlock.scene import DAY, DRAWER, NOW, OWNER, STRANGER, Scene, free_memory, payload_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyquorum.model.fragment import Description, Fragment

THREE = grow((2, [None, None, None]))
INDEX = 2


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(monkeypatch, THREE, kinds={3: DRAWER}, valid_days=30)
    yield made
    made.close()


def check(scene: Scene, envelope: Any, *, index: int = INDEX, now: int = NOW, identity: bytes = b"") -> bytes:
    """Check a fragment as the proxy does; return the share. Nothing may stay in protected memory."""
    before = free_memory()
    own = Identity.from_view(identity) if identity else scene.identity(index)
    try:
        with (
            own,
            check_fragment(
                scene.enrolment, scene.volume_set.placement(index), Held(identity=own, envelope=envelope), now
            ) as share,
        ):
            return bytes(share.view)
    finally:
        assert free_memory() == before


def refusal(scene: Scene, envelope: Any, **options: Any) -> KeyquorumError:
    with pytest.raises((RefusedError, TamperingError)) as caught:
        check(scene, envelope, **options)
    return caught.value


def tampered(scene: Scene, envelope: Any, **options: Any) -> str:
    error = refusal(scene, envelope, **options)
    assert isinstance(error, TamperingError) or (isinstance(error, RefusedError) and error.tampered)
    return error.message


def parsed(scene: Scene, index: int = INDEX) -> Fragment:
    return fragment.parse(payload_of(scene.fragments[index].envelope), "fragment")


def forged(scene: Scene, plain: bytes | None = None, **changes: Any) -> dict[str, Any]:
    """What only the owner could make: another description or another share, sealed and signed as it should be."""
    found = parsed(scene)
    description: Description = found.description.with_(**changes)
    if plain is None:
        plain = check(scene, scene.fragments[INDEX].envelope)
    with scene.identity(INDEX) as own, Share.from_view(plain) as share:
        enc, ciphertext = Recipient.of(own, hpke.X25519).seal(share, description.info())
    payload = found.with_(description=description, enc=enc, ciphertext=ciphertext).payload()
    return OWNER.sign(dsse.FRAGMENT_TYPE, payload)


def test_a_good_fragment(scene: Scene) -> None:
    share = check(scene, scene.fragments[INDEX].envelope)
    assert len(share) == 32 + 32
    assert check(scene, forged(scene)) == share


def test_the_token_keeps_the_envelopes_of_others(scene: Scene) -> None:
    assert len(check(scene, None, index=3)) == 64
    assert tampered(scene, None) == "its fragment is not in the token"


def test_what_a_holder_brings_along_goes_before_the_token(scene: Scene) -> None:
    assert "is not of this set" in tampered(scene, scene.fragments[1].envelope, index=3)


@pytest.mark.parametrize("junk", [5, "x", [], {}, {"payload": "x"}, True, {"payloadType": {}}, {"x": {"y": []}}])
def test_1_shape(scene: Scene, junk: Any) -> None:
    assert tampered(scene, junk).startswith("fragment holder-2: ")


def test_2_signature(scene: Scene) -> None:
    good = scene.fragments[INDEX].envelope
    stranger = STRANGER.sign(dsse.FRAGMENT_TYPE, payload_of(good))
    assert "trusted are" in tampered(scene, stranger)
    as_set = OWNER.sign(dsse.SET_TYPE, payload_of(good))
    assert "payloadType" in tampered(scene, as_set)
    assert "does not match" in tampered(scene, good | {"payload": as_set["payload"][:-4] + "AAAA"})


def test_3_payload(scene: Scene) -> None:
    for payload in (
        b"",
        b"[]",
        b"{}",
        payload_of(scene.fragments[INDEX].envelope).replace(b'"version":1', b'"version":2'),
    ):
        assert tampered(scene, OWNER.sign(dsse.FRAGMENT_TYPE, payload)).startswith("fragment holder-2: ")


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another volume": ({"volume": "f" * 36}, "volume is ffffffff"),
    "another set": ({"set_id": bytes(16)}, "set id is 0000"),
    "a past epoch": ({"epoch": 7}, "epoch is 7, the set says 1"),
    "another place": ({"index": 1}, "index is 1, the set says 2"),
    "a place outside": ({"index": 9}, "index is 9, the set says 2"),
    "another total": ({"total": 4}, "total is 4, the set says 3"),
    "another threshold": ({"threshold": 1}, "threshold is 1, the set says 2"),
    "another path": ({"path": (3,)}, "path is (3,), the set says (2,)"),
    "another name": ({"name": "x"}, "name is x, the set says holder-2"),
    "another kind": ({"kind": "drawer"}, "kind is drawer, the set says shelf"),
    "another recipient": ({"recipient": bytes(16)}, "recipient is 0000"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_4_every_field_of_the_description(scene: Scene, name: str) -> None:
    changes, words = CHANGES[name]
    assert tampered(scene, forged(scene, **changes)).startswith(f"its fragment is not of this set: {words}")


def test_4_a_good_fragment_of_somebody_else(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tampered(scene, scene.fragments[1].envelope).endswith("index is 1, the set says 2")
    other = Scene(monkeypatch, THREE)
    assert "set id is" in tampered(scene, other.fragments[INDEX].envelope)
    other.close()


def test_5_expiry(scene: Scene) -> None:
    good, end = scene.fragments[INDEX].envelope, NOW + 30 * DAY
    check(scene, good, now=end - 1)
    error = refusal(scene, good, now=end)
    assert isinstance(error, RefusedError)
    assert not error.tampered
    assert error.message == "its fragment expired on 2025-07-15 15:06 UTC"
    assert error.hint == "enrol again to issue new fragments"


def test_5_a_clock_before_the_enrolment_judges_nothing(scene: Scene) -> None:
    good = scene.fragments[INDEX].envelope
    for now in (0, NOW - 1):
        check(scene, good, now=now)
    with pytest.raises(RefusedError, match="expired"):
        check(scene, good, now=NOW + 400 * DAY)


def test_5_and_the_verdict_says_so(scene: Scene) -> None:
    gathering = scene.gathering(now=0, everyone=True)
    gathering.ask_unattended()
    reasons = {v.reason for v in gathering.verdicts if v.verdict == report.VALID}  # whichever answered first
    assert reasons == {"the clock is before the enrolment, so expiry was not judged"}
    gathering.close()


def test_5_never_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    forever = Scene(monkeypatch, THREE)
    check(forever, forever.fragments[INDEX].envelope, now=1 << 39)
    forever.close()


def test_6_seal(scene: Scene) -> None:
    good = scene.fragments[INDEX].envelope
    words = "the fragment was sealed to another key, or altered"
    assert tampered(scene, good, identity=bytes(32)) == words
    assert tampered(scene, good, identity=bytes(scene.fragments[1].identity.view)) == words
    found = parsed(scene)
    for changes in (
        {"ciphertext": found.ciphertext[:-1]},
        {"ciphertext": b""},
        {"enc": bytes(32)},
        {"enc": found.enc[:31]},
        {"kem": "x-wing"},
        {"kem": "x448"},
        {"description": found.description.with_(issued=1)},
    ):
        payload = found.with_(**changes).payload()
        assert tampered(scene, OWNER.sign(dsse.FRAGMENT_TYPE, payload)).startswith("the fragment")


def test_7_commitment(scene: Scene) -> None:
    share = check(scene, scene.fragments[INDEX].envelope)
    words = "its share is not the one committed to"
    for at in (0, 31, 32, 63):
        assert tampered(scene, forged(scene, share[:at] + bytes([share[at] ^ 1]) + share[at + 1 :])) == words
    other = check(scene, scene.fragments[1].envelope, index=1)
    assert tampered(scene, forged(scene, other)) == words


def test_7_size(scene: Scene) -> None:
    share = check(scene, scene.fragments[INDEX].envelope)
    for plain in (share[:-1], share + b"\0", share[:32], b"x"):
        assert tampered(scene, forged(scene, plain)) == "its share has a wrong size"


def test_the_order_of_the_checks(scene: Scene) -> None:
    """A fragment in which everything is wrong is refused for the first thing that is wrong, and so on."""
    share = check(scene, scene.fragments[INDEX].envelope)
    wrong_share = bytes(64)
    late = NOW + 31 * DAY
    stale = forged(scene, wrong_share, epoch=9)
    assert "trusted are" in tampered(scene, STRANGER.sign(dsse.FRAGMENT_TYPE, payload_of(stale)), now=late)
    assert "epoch is 9" in tampered(scene, stale, now=late)
    assert "expired" in refusal(scene, forged(scene, wrong_share), now=late).message
    assert "sealed to another key" in tampered(scene, forged(scene, wrong_share), identity=bytes(32))
    assert "committed to" in tampered(scene, forged(scene, wrong_share))
    assert check(scene, forged(scene, share)) == share
