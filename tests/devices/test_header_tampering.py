# SPDX-License-Identifier: Apache-2.0
"""Whoever can write the volume's disk and the fragment disks, checksums made right: a refusal that names it, never more.

Exit code 4 for what the owner did not sign; 3 where only fragments were damaged and too few are left (I2, I5, I7).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devices.bench import PASSPHRASE, Bench, cryptsetup, opens_with, snapshot
from devices.luks2_header import read_json, rewrite
from keyquorum.envelope import dsse
from keyquorum.envelope.signing import Owner
from keyquorum.linux import fragment_disk
from keyquorum.linux.private_header import copy_header
from keyquorum.unlock.verified_set import verify_enrolment

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.model.fragment_disk import Entry

    Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def enrolled(bench: Bench) -> tuple[str, list[str]]:
    volume, disks, _ = bench.enrolled()
    return volume, disks


def token_of(metadata: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(t for t in metadata["tokens"].values() if t["type"] == "keyquorum")
    return found


def segment(metadata: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = metadata["segments"]["0"]
    return found


def refused(bench: Bench, volume: str, code: int = 4) -> str:
    """Every command that would use the set refuses alike; return the words."""
    words = set[str]()
    for command in ("check", "unlock"):
        said = bench.run(command, volume, "--json")
        assert said.code == said.json["exit_code"] == code, said.err
        assert said.json["outcome"] == "failed"
        words.add(said.json["message"])
    said = bench.run("status", volume)
    assert (said.code, said.out) == (code, "")
    said = bench.run("recover", volume, "--add-passphrase", "--new-key-file", bench.key_file)
    assert said.code == code
    assert len(words) == 1
    return words.pop()


HEADERS: dict[str, tuple[Change, str]] = {
    "null cipher": (
        lambda t: segment(t).update(encryption="cipher_null-ecb"),
        "LUKS2 header: segments.0.encryption: cipher_null-ecb encrypts nothing",
    ),
    "weaker cipher": (lambda t: segment(t).update(encryption="aes-ecb"), "LUKS2 header: segments: is "),
    "other IV": (lambda t: segment(t).update(iv_tweak="8"), "LUKS2 header: segments: is "),
    "other offset": (lambda t: segment(t).update(offset="16781312"), "LUKS2 header: segments: is "),
    "other size": (lambda t: segment(t).update(size="524288"), "LUKS2 header: segments: is "),
    "other sector size": (lambda t: segment(t).update(sector_size=512), "LUKS2 header: segments: is "),
    "other digest": (
        lambda t: t["digests"]["0"].update(digest=base64.b64encode(bytes(32)).decode()),
        "LUKS2 header: digest: is ",
    ),
    "weaker digest": (lambda t: t["digests"]["0"].update(iterations=1001), "LUKS2 header: digest: is "),
    "a feature nobody knows": (
        lambda t: t["config"].update(requirements={"mandatory": ["surprise"]}),
        "LUKS2 header: requirements: is surprise",
    ),
    "a feature with an escape sequence": (
        lambda t: t["config"].update(requirements={"mandatory": ["\x1b[2J\x1b[H"]}),
        "LUKS2 header: requirements: is ",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_the_header(bench: Bench, enrolled: tuple[str, list[str]], name: str) -> None:
    change, words = HEADERS[name]
    volume, disks = enrolled
    before = snapshot(*disks)
    rewrite(volume, change)
    assert refused(bench, volume).startswith(words)
    assert snapshot(*before) == before
    for line in bench.run("check", volume).err.splitlines():
        assert line.isprintable()


def test_what_an_administrator_may_change(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    volume, _ = enrolled
    cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", bench.key_file)
    cryptsetup("luksAddKey", *cheap, volume, bench.write("second", b"second"))
    cryptsetup("config", volume, "--label", "mine", "--subsystem", "any")
    cryptsetup("config", volume, "--priority", "prefer", "--key-slot", "1")
    cryptsetup("luksKillSlot", volume, "0", "--key-file", bench.path("second"))
    cryptsetup("token", "import", "--json-file", "-", volume, data=b'{"type":"other","keyslots":["1"]}')
    assert bench.run("check", volume).code == 0


def test_another_uuid(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    volume, _ = enrolled
    anchor, other = bench.anchor(volume), "11111111-2222-4333-8444-555555555555"
    rewrite(volume, uuid=other.encode())
    assert refused(bench, volume, 2) == f"this machine knows no owner of volume {other}"
    shutil.copy(anchor, bench.path(f"volumes/{other}.json"))
    assert refused(bench, volume, 2).endswith(f"{other}.json is about volume {os.path.basename(anchor)[:-5]}")
    text = snapshot(anchor)[anchor].decode().replace(os.path.basename(anchor)[:-5], other)
    bench.write(f"volumes/{other}.json", text)
    assert refused(bench, volume).startswith("set: volume: is for ")


def test_another_enrolled_volume_in_its_place(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    """What a boot image says: this name is that volume, whichever others this machine may open."""
    volume, _ = enrolled
    uuid, other = os.path.basename(bench.anchor(volume))[:-5], "11111111-2222-4333-8444-555555555555"
    said = bench.run("unlock", volume, "--volume", other, "--json")
    assert (said.code, said.json["message"]) == (4, f"LUKS2 header: uuid: is {uuid}, this boot image opens {other}")
    assert bench.run("unlock", volume, "--volume", uuid).code != 4


@pytest.mark.parametrize("uuid", [b"../../../../tmp/x", b"/etc/passwd", b"", b"a\nb", b"\xff\xfe", b"x" * 40, b"a/b"])
def test_a_uuid_that_is_none(bench: Bench, enrolled: tuple[str, list[str]], uuid: bytes) -> None:
    """The header names files (lock, anchor, report): whoever writes it must not choose their directories."""
    volume, disks = enrolled
    rewrite(volume, uuid=uuid)
    before = snapshot(volume, *disks)
    files = {directory: sorted(names) for directory, _, names in os.walk(bench.root)}
    for words in (
        ("check", volume),
        ("unlock", volume),
        ("status", volume),
        ("unenroll", volume, "--yes"),
        ("enroll", volume, "--policy", bench.path("policy.toml"), "--key-file", bench.key_file, "--yes"),
        ("recover", volume, "--name", "x"),
    ):
        said = bench.run(*words)
        assert (said.code, "LUKS2 header: uuid: is not a UUID" in said.err) == (4, True), (words, said.err)
    assert snapshot(*before) == before
    assert {directory: sorted(names) for directory, _, names in os.walk(bench.root)} == files


def test_no_anchor_and_a_wrong_one(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    volume, _ = enrolled
    path = bench.anchor(volume)
    anchor = json.loads(snapshot(path)[path])
    uuid = anchor["volume"]
    os.unlink(path)
    assert refused(bench, volume, 2) == f"this machine knows no owner of volume {uuid}"
    stranger = Owner(Ed25519PrivateKey.generate()).public
    wrong = anchor | {"owners": [base64.b64encode(stranger.raw).decode()]}
    bench.write(f"volumes/{uuid}.json", json.dumps(wrong))
    assert refused(bench, volume).startswith("set: signatures: signed by ")
    bench.write(f"volumes/{uuid}.json", json.dumps(anchor | {"epoch": 2}))
    assert refused(bench, volume) == "set: epoch: is 1, this machine accepts 2 and later"
    bench.write(f"volumes/{uuid}.json", "{")
    assert refused(bench, volume, 2).endswith(f"{uuid}.json: not JSON")
    bench.write(f"volumes/{uuid}.json", json.dumps(anchor | {"owners": [*wrong["owners"], *anchor["owners"]]}))
    assert bench.run("check", volume).code == 0


def test_the_token_of_another_volume(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    volume, disks = enrolled
    other = bench.volume("other.img")
    assert bench.enroll(other, bench.policy(disks, name="p")).code == 0
    foreign = token_of(read_json(other))
    rewrite(volume, lambda t: t["tokens"].update({"0": foreign}))
    assert refused(bench, volume).startswith("set: volume: is for ")


def test_the_token_of_another_owner(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    """The attacker knows the format and signs a set of his own, for this very volume."""
    volume, _ = enrolled
    mallory = Owner(Ed25519PrivateKey.generate())

    def change(metadata: dict[str, Any]) -> None:
        token = token_of(metadata)
        payload = dsse.parse(token["set"], "set").payload
        token["set"] = mallory.sign(dsse.SET_TYPE, payload)

    rewrite(volume, change)
    assert refused(bench, volume).startswith(f"set: signatures: signed by {mallory.public.key_id}, trusted are ")


TOKENS: dict[str, tuple[Change, str]] = {
    "no set": (lambda t: t.pop("set"), "LUKS2 token: set: is missing"),
    "set is a list": (lambda t: t.update(set=[]), "LUKS2 token: set: must be a table"),
    "unknown version": (lambda t: t.update(version=2), "LUKS2 token: version: 2 is not known here"),
    "a field more": (lambda t: t.update(surprise=1), "LUKS2 token: surprise: is not known here"),
    "no signature": (lambda t: t["set"].update(signatures=[]), "set: signatures: signed by nobody"),
    "other type": (lambda t: t["set"].update(payloadType=dsse.FRAGMENT_TYPE), "set: payloadType: is "),
    "empty payload": (lambda t: t["set"].update(payload=""), "set: signatures: the signature of owner "),
    "deep": (lambda t: t.update(set=json.loads("[" * 20 + "]" * 20)), "LUKS2 token: set: must be a table"),
}


@pytest.mark.parametrize("name", TOKENS)
def test_the_token(bench: Bench, enrolled: tuple[str, list[str]], name: str) -> None:
    change, words = TOKENS[name]
    volume, _ = enrolled
    rewrite(volume, lambda metadata: change(token_of(metadata)))
    assert refused(bench, volume).startswith(words)


def test_two_tokens(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    volume, _ = enrolled
    rewrite(volume, lambda t: t["tokens"].update({"7": token_of(t)}))
    assert refused(bench, volume) == "LUKS2 token: type: 2 tokens are of type keyquorum (numbers 0, 7), not 1"


def test_every_byte_of_the_set(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    """One byte of the signed payload turned over at a time, header checksums right, on the real reader."""
    volume, _ = enrolled
    volumes = bench.path("volumes")
    payload = dsse.parse(token_of(read_json(volume))["set"], "set").payload

    def put(changed: bytes) -> None:
        rewrite(volume, lambda t: token_of(t)["set"].update(payload=base64.b64encode(changed).decode()))

    for at in range(len(payload)):
        put(payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :])
        with (
            copy_header(volume) as header,
            pytest.raises(
                Exception, match=r"^set: signatures: the signature of owner [0-9a-f]{32} does not match$"
            ) as caught,
        ):
            verify_enrolment(header, volumes)
        assert getattr(caught.value, "exit_code", 0) == 4, f"byte {at}"
    put(payload)
    assert bench.run("check", volume).code == 0


def fragments(bench: Bench, disks: list[str]) -> list[Entry]:
    return [bench.entries(disk)[0] for disk in disks]


def put_entries(disk: str, *entries: Entry) -> None:
    fragment_disk.change(disk, lambda _before: entries)


def holders(bench: Bench, volume: str) -> tuple[int, list[str], list[str]]:
    found = bench.run("check", volume, "--json").json
    return found["exit_code"], [h["verdict"] for h in found["holders"]], [h["reason"] for h in found["holders"]]


def test_swapped_fragments(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    """Disk 1 has fragment 2 and disk 2 fragment 1, each filed under the number that is looked for."""
    volume, disks = enrolled
    first, second, _ = fragments(bench, disks)
    put_entries(disks[0], second.with_(index=1))
    put_entries(disks[1], first.with_(index=2))
    code, verdicts, reasons = holders(bench, volume)
    assert (code, verdicts) == (3, ["tampered", "tampered", "valid"])
    assert reasons[0] == "its fragment is not of this set: index is 2, the set says 1"


def test_swapped_disks(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    """Whole disks in each other's place: every disk is asked for its own id."""
    volume, disks = enrolled
    os.rename(disks[0], bench.path("x"))
    os.rename(disks[1], disks[0])
    os.rename(bench.path("x"), disks[1])
    code, verdicts, reasons = holders(bench, volume)
    assert (code, verdicts) == (3, ["tampered", "tampered", "valid"])
    assert " is fragment disk " in reasons[0]


def test_fragments_of_an_earlier_enrolment(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    volume, disks = enrolled
    old = fragments(bench, disks)
    assert bench.run("unenroll", volume, "--yes").code == 0
    assert bench.enroll(volume, bench.path("policy.toml")).code == 0
    new = fragments(bench, disks)
    put_entries(disks[0], old[0])
    put_entries(disks[1], old[1].with_(set_id=new[1].set_id))
    code, verdicts, reasons = holders(bench, volume)
    assert (code, verdicts) == (3, ["tampered", "tampered", "valid"])
    assert "holds only fragments of another set of this volume" in reasons[0]
    assert reasons[1].startswith("its fragment is not of this set: set id is ")


def test_one_bad_fragment_does_not_stop_the_others(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    volume, disks = enrolled
    good = fragments(bench, disks)
    envelope = good[0].envelope
    bad: list[Any] = [
        {},
        {"x": [[[[]]]]},
        envelope | {"payload": envelope["payload"][:-4] + "AAAA"},
        envelope | {"signatures": []},
        good[1].envelope,
    ]
    for wrong in bad:
        put_entries(disks[0], good[0].with_(envelope=wrong))
        code, verdicts, _ = holders(bench, volume)
        assert (code, verdicts) == (0, ["tampered", "valid", "valid"]), wrong


def test_a_disk_full_of_noise_does_not_stop_the_others(bench: Bench, enrolled: tuple[str, list[str]]) -> None:
    volume, _ = enrolled
    for content in (b"", bytes(1 << 20), os.urandom(1 << 20), b"KEYQUORUM DISK\0\1" * 65536):
        bench.write("disk-1", content)
        assert holders(bench, volume)[:2] == (0, ["tampered", "valid", "valid"])


def test_unenrolling_believes_no_unsigned_word(bench: Bench) -> None:
    """The token claims the user's keyslot as keyquorum's own: it is not removed."""
    volume, _, _ = bench.enrolled(3, 2, "--with-keyslot")
    rewrite(volume, lambda t: token_of(t).update(keyslots=["0", "1"]))
    said = bench.run("unenroll", volume, "--yes")
    assert said.code == 0, said.err
    assert sorted(read_json(volume)["keyslots"]) == ["0"]
    assert opens_with(volume, PASSPHRASE)


def test_unenrolling_what_cannot_be_verified_removes_no_keyslot(bench: Bench) -> None:
    volume, _, _ = bench.enrolled(3, 2, "--with-keyslot")
    os.unlink(bench.anchor(volume))
    said = bench.run("unenroll", volume, "--yes")
    assert said.code == 0
    assert any("its fragments and keyslots are left where they are" in line for line in said.lines)
    assert sorted(read_json(volume)["keyslots"]) == ["0", "1"]


def test_a_keyslot_number_that_belongs_to_somebody_else_now(bench: Bench) -> None:
    """The administrator removed our keyslot and added a passphrase, which got its number."""
    volume, _, _ = bench.enrolled(3, 2, "--with-keyslot")
    cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", bench.key_file)
    cryptsetup("luksKillSlot", volume, "1", "--key-file", bench.key_file)
    cryptsetup("luksAddKey", "--key-slot", "1", *cheap, volume, bench.write("second", b"second"))
    assert bench.run("check", volume).code == 0
    assert bench.run("unenroll", volume, "--yes").code == 0
    assert opens_with(volume, b"second")
