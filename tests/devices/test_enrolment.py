# SPDX-License-Identifier: Apache-2.0
"""The life of an enrolled volume through the real command line: enrol, check, look, recover, take out, create."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest

from devices.bench import PASSPHRASE, Bench, cryptsetup, opens_with, snapshot
from devices.luks2_header import read_json
from keyquorum import settings
from keyquorum.envelope import wrapping
from keyquorum.holders.contract import Tuning
from keyquorum.linux.answers import LocalAnswers
from keyquorum.linux.private_header import copy_header
from keyquorum.secret import KeyEncryptionKey
from keyquorum.sharing import tree
from keyquorum.sharing.commitment import BLIND_SIZE
from keyquorum.unlock.gather import Context, Gathering, Limits
from keyquorum.unlock.verified_set import verify_enrolment

if TYPE_CHECKING:
    from collections.abc import Iterator

VERDICT_KEYS = {"index", "name", "kind", "verdict", "reason", "hint", "milliseconds"}
REPORT_KEYS = {
    "version",
    "command",
    "device",
    "volume",
    "name",
    "outcome",
    "exit_code",
    "missing",
    "holders",
    "message",
    "hint",
}


def verdicts(report: Any) -> list[str]:
    return [holder["verdict"] for holder in report["holders"]]


def tokens(volume: str) -> list[str]:
    return [token["type"] for token in read_json(volume)["tokens"].values()]


@contextlib.contextmanager
def gathered(volume: str) -> Iterator[Gathering]:
    """Ask a volume's holders as an unlock does."""
    configured = settings.load()
    context = Context(answers=LocalAnswers(), tuning=Tuning(), now=int(time.time()), tell=lambda _verdict: None)
    with copy_header(volume) as header:
        enrolment = verify_enrolment(header, configured.volumes)
    limits = Limits(holder=20.0, person=1.0, deadline=time.monotonic() + 20.0, everyone=True)
    with contextlib.closing(Gathering(enrolment, context, limits)) as gathering:
        gathering.ask_unattended()
        yield gathering


def test_enrol_says_what_it_does(bench: Bench) -> None:
    volume, disks = bench.volume(), [bench.disk(f"d{number}") for number in range(3)]
    said = bench.enroll(volume, bench.policy(disks), "--json")
    assert said.code == 0
    assert set(said.json) == {
        "version",
        "command",
        "device",
        "volume",
        "set",
        "epoch",
        "mode",
        "keyslot",
        "fragments",
        "exit_code",
    }
    uuid = cryptsetup("luksUUID", volume).strip()
    assert (said.json["command"], said.json["device"], said.json["volume"]) == ("enroll", volume, uuid)
    assert (said.json["mode"], said.json["keyslot"], said.json["epoch"]) == ("wrapped", -1, 1)
    assert [row["name"] for row in said.json["fragments"]] == ["disk-1", "disk-2", "disk-3"]
    steps = [line for line in said.lines if not line.startswith("warning: ")]
    assert steps[-8:-1] == [
        "fragment 1 of 3: disk-1 (disk)",
        "fragment 2 of 3: disk-2 (disk)",
        "fragment 3 of 3: disk-3 (disk)",
        "reading every fragment back",
        "writing the LUKS2 token",
        "reading the token back",
        f"{volume} is enrolled; its passphrases keep working",
    ]
    assert PASSPHRASE.decode() not in said.out + said.err


def test_what_is_there_afterwards(bench: Bench) -> None:
    volume, disks, _ = bench.enrolled()
    assert tokens(volume) == ["keyquorum"]
    assert "keyquorum" in cryptsetup("luksDump", volume)
    assert opens_with(volume, PASSPHRASE)
    assert [len(bench.entries(disk)) for disk in disks] == [1, 1, 1]
    assert stat.S_IMODE(os.stat(bench.path("owner.key")).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(bench.anchor(volume)).st_mode) == 0o644
    assert sorted(os.listdir(bench.root)) == sorted(
        ["key", "keyquorum.conf", "owner.key", "policy.toml", "vol.img", "volumes", *map(os.path.basename, disks)]
    )


def test_check_in_words_and_as_data(bench: Bench) -> None:
    volume, _, _ = bench.enrolled()
    said = bench.run("check", volume)
    assert (said.code, said.out) == (0, "")
    assert said.lines[-1] == f"{volume} would open: 3 of 3 fragments are valid"
    assert sorted(line.split(":")[0].strip() for line in said.lines[:-1]) == [f"disk-{n} (disk)" for n in (1, 2, 3)]
    report = bench.run("check", volume, "--json").json
    assert set(report) == REPORT_KEYS
    assert all(set(holder) == VERDICT_KEYS for holder in report["holders"])
    assert (report["command"], report["outcome"], report["exit_code"], report["missing"]) == ("check", "quorum", 0, 0)
    assert verdicts(report) == ["valid"] * 3


def test_check_with_each_holder_missing_and_with_too_few(bench: Bench) -> None:
    volume, disks, _ = bench.enrolled()
    for disk in disks:
        os.rename(disk, f"{disk}.away")
        report = bench.run("check", volume, "--json").json
        assert (report["exit_code"], sorted(verdicts(report))) == (0, ["unavailable", "valid", "valid"])
        os.rename(f"{disk}.away", disk)
    for disk in disks[1:]:
        os.rename(disk, f"{disk}.away")
    said = bench.run("check", volume, "--json")
    assert (said.code, said.json["exit_code"], said.json["outcome"], said.json["missing"]) == (3, 3, "failed", 1)
    assert verdicts(said.json) == ["valid", "unavailable", "unavailable"]
    assert said.json["message"] == "the quorum is not reached: 1 more valid fragment is needed"


def test_check_changes_nothing(bench: Bench) -> None:
    volume, disks, _ = bench.enrolled()
    files = (volume, *disks, bench.anchor(volume))
    before = snapshot(*files)
    assert bench.run("check", volume).code == 0
    assert snapshot(*files) == before


def test_unlock_without_dm_crypt_names_its_holders(bench: Bench) -> None:
    """On a kernel that cannot map, the report still says what every holder gave (I8)."""
    volume, _, _ = bench.enrolled()
    said = bench.run("unlock", volume, "--name", "never-here", "--json")
    assert said.code == 1
    assert (said.json["outcome"], said.json["name"], said.json["volume"]) == (
        "failed",
        "never-here",
        cryptsetup("luksUUID", volume).strip(),
    )
    assert "cannot be mapped as never-here" in said.json["message"]
    assert sorted(verdicts(said.json)) in (["not needed", "valid", "valid"], ["valid"] * 3)


def test_status(bench: Bench) -> None:
    assert bench.run("status").out == "no volume is enrolled on this machine\n"
    volume, _, _ = bench.enrolled()
    said = bench.run("status", volume)
    uuid = cryptsetup("luksUUID", volume).strip()
    assert said.code == 0
    assert said.out.splitlines()[:2] == [
        f"{uuid} on {volume}",
        "  opens with any 2 of disk-1 (disk), disk-2 (disk), disk-3 (disk)",
    ]
    found = bench.run("status", volume, "--json").json
    assert (found["version"], found["command"], found["exit_code"]) == (1, "status", 0)
    assert set(found["volumes"][0]) == {
        "volume",
        "device",
        "set",
        "epoch",
        "mode",
        "issued",
        "keyslot",
        "measure_pcr",
        "policy",
        "fragments",
        "last_unlock",
        "test_roots",
    }
    everything = bench.run("status", "--json").json["volumes"]
    assert everything == [
        {
            "volume": uuid,
            "device": f"/dev/disk/by-uuid/{uuid}",
            "error": f"/dev/disk/by-uuid/{uuid} does not exist",
        }
    ]


@pytest.mark.parametrize(("option", "mode"), [(None, "wrapped"), ("--direct", "direct"), ("--with-keyslot", "wrapped")])
def test_ways_to_enrol(bench: Bench, option: str | None, mode: str) -> None:
    volume, disks, _ = bench.enrolled(3, 2, *([option] if option else []))
    assert bench.run("check", volume).code == 0
    assert bench.run("status", volume, "--json").json["volumes"][0]["mode"] == mode
    os.unlink(disks[0])
    assert bench.run("check", volume).code == 0
    os.unlink(disks[1])
    assert bench.run("check", volume).code == 3


def test_the_keyslot_opens_with_what_the_fragments_give(bench: Bench) -> None:
    volume, _, _ = bench.enrolled(3, 2, "--with-keyslot")
    assert sorted(read_json(volume)["keyslots"]) == ["0", "1"]
    token = next(iter(read_json(volume)["tokens"].values()))
    assert token["keyslots"] == ["1"]
    with gathered(volume) as gathering:
        volume_set, points = gathering.enrolment.volume_set, {}
        for index, share in gathering.shares.items():
            with share.part(BLIND_SIZE, 32) as point:
                points[index] = point.integer()
        with (
            KeyEncryptionKey.from_integer(tree.combine(volume_set.policy, points, 32), 32) as kek,
            wrapping.keyslot_passphrase(kek) as passphrase,
        ):
            typed = bytes(passphrase.view)
    assert volume_set.keyslot == 1
    assert opens_with(volume, typed, "--key-slot", "1")
    assert not opens_with(volume, typed, "--key-slot", "0")


def test_unenrol_gives_a_plain_volume_back(bench: Bench) -> None:
    volume = bench.volume()
    header = read_json(volume)
    disks = [bench.disk(f"d{number}") for number in range(3)]
    for options in ((), ("--with-keyslot",), ("--direct",)):
        assert bench.enroll(volume, bench.policy(disks), *options).code == 0
        said = bench.run("unenroll", volume, "--yes", "--json")
        assert said.code == 0
        assert set(said.json) == {"version", "command", "device", "volume", "exit_code"}
        assert said.lines[-1] == f"{volume} is a plain LUKS2 volume again"
        assert read_json(volume) == header
        assert [bench.entries(disk) for disk in disks] == [(), (), ()]
        assert os.listdir(bench.path("volumes")) == [f"{cryptsetup('luksUUID', volume).strip()}.last-epoch"]
        assert opens_with(volume, PASSPHRASE)
        assert bench.run("check", volume).code == 2


def test_unenrol_while_a_disk_is_away(bench: Bench) -> None:
    volume, disks, _ = bench.enrolled()
    os.rename(disks[0], bench.path("away"))
    said = bench.run("unenroll", volume, "--yes")
    assert said.code == 0
    assert any(line.startswith("warning: disk-1 keeps a fragment that opens nothing any more") for line in said.lines)
    assert (tokens(volume), bench.entries(disks[1])) == ([], ())


def test_enrolling_again_cleans_up(bench: Bench) -> None:
    volume, disks, policy = bench.enrolled()
    os.rename(disks[0], bench.path("away"))
    assert bench.run("unenroll", volume, "--yes").code == 0
    os.rename(bench.path("away"), disks[0])
    assert len(bench.entries(disks[0])) == 1
    assert bench.enroll(volume, policy).code == 0
    assert [len(bench.entries(disk)) for disk in disks] == [1, 1, 1]
    assert bench.run("check", volume).code == 0


def test_one_disk_serves_many_volumes(bench: Bench) -> None:
    disks = [bench.disk(f"d{number}") for number in range(2)]
    policy = bench.policy(disks)
    volumes = [bench.volume(f"vol-{number}") for number in range(4)]
    for volume in volumes:
        assert bench.enroll(volume, policy).code == 0
    assert [len(bench.entries(disk)) for disk in disks] == [4, 4]
    assert bench.run("unenroll", volumes[1], "--yes").code == 0
    assert [bench.run("check", volume).code for volume in volumes] == [0, 2, 0, 0]
    listed = bench.run("holder", "list-disk", disks[0], "--json").json
    assert set(listed) == {"version", "command", "device", "fragments", "disk", "exit_code"}
    assert len(listed["fragments"]) == 3
    words = bench.run("holder", "list-disk", disks[0]).out.splitlines()
    assert words[0].endswith(", 3 fragments")
    assert all(line.startswith("  volume ") for line in words[1:])


def test_recover_adds_a_passphrase_from_the_quorum(bench: Bench) -> None:
    volume, disks, _ = bench.enrolled()
    bench.write("new", b"brand new")
    os.unlink(disks[2])
    said = bench.run("recover", volume, "--add-passphrase", "--new-key-file", bench.path("new"), "--json")
    assert (said.code, said.json["exit_code"], said.json["command"]) == (0, 0, "recover")
    assert opens_with(volume, b"brand new")
    assert opens_with(volume, PASSPHRASE)
    os.unlink(disks[1])
    said = bench.run("recover", volume, "--add-passphrase", "--new-key-file", bench.path("new"))
    assert said.code == 3


def test_recover_must_know_what_for(bench: Bench) -> None:
    volume, _, _ = bench.enrolled()
    assert bench.run("recover", volume).code == 2


def test_a_detached_header(bench: Bench) -> None:
    header = bench.volume("header.img")
    data = bench.write("data.img", b"")
    os.truncate(data, 1 << 20)
    disks = [bench.disk(f"d{number}") for number in range(2)]
    assert bench.enroll(data, bench.policy(disks), "--header", header).code == 0
    assert snapshot(data) == {data: bytes(1 << 20)}
    assert bench.run("check", data, "--header", header).code == 0
    assert bench.run("check", data).code == 2
    assert bench.run("unenroll", data, "--header", header, "--yes").code == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--luks2-keyslots-size", "8M"),
        ("--luks2-metadata-size", "64k"),
        ("--luks2-metadata-size", "4m", "--luks2-keyslots-size", "4M"),
        ("--sector-size", "4096"),
        ("--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"),
        ("--cipher", "aes-xts-plain64", "--key-size", "256"),
        ("--hash", "sha512"),
        ("--label", "largest", "--subsystem", "any"),
    ],
)
def test_headers_of_every_shape(bench: Bench, options: tuple[str, ...]) -> None:
    volume, disks = bench.volume("vol.img", *options), [bench.disk(f"d{number}") for number in range(2)]
    for option in ("--with-keyslot", "--direct"):
        assert bench.enroll(volume, bench.policy(disks), option).code == 0
        assert bench.run("check", volume).code == 0
        assert bench.run("unenroll", volume, "--yes").code == 0


def test_a_header_with_a_large_area_for_keyslots(bench: Bench) -> None:
    path = bench.write("vol.img", b"")
    os.truncate(path, 200 << 20)
    options = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--luks2-keyslots-size", "128M")
    cryptsetup("luksFormat", "--type", "luks2", *options, "--key-file", "-", path, data=PASSPHRASE)
    disks = [bench.disk(f"d{number}") for number in range(2)]
    assert bench.enroll(path, bench.policy(disks)).code == 0
    assert bench.run("check", path).code == 0


def test_the_volume_key_itself(bench: Bench) -> None:
    volume, disks = bench.volume(), [bench.disk(f"d{number}") for number in range(2)]
    key = bench.path("volume.key")
    cryptsetup("luksDump", "--dump-volume-key", "--volume-key-file", key, "--key-file", bench.key_file, volume)
    words = ("enroll", volume, "--policy", bench.policy(disks), "--volume-key-file", key, "--yes")
    assert bench.run(*words).code == 0
    assert bench.run("check", volume).code == 0


def test_init_disk(bench: Bench) -> None:
    path = bench.write("disk", bytes(2 << 20))
    said = bench.run("holder", "init-disk", path, "--yes", "--json")
    assert said.code == 0
    assert set(said.json) == {"version", "command", "device", "disk", "exit_code"}
    assert bench.run("holder", "list-disk", path).out == f"fragment disk {said.json['disk']}, 0 fragments\n"
    again = bench.run("holder", "init-disk", path, "--yes")
    assert (again.code, again.lines[0]) == (2, f"{path} is not empty")
    forced = bench.run("holder", "init-disk", path, "--yes", "--force")
    assert (forced.code, forced.out) == (0, f'device = "{path}"\n')
