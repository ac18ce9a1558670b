# SPDX-License-Identifier: Apache-2.0
"""keyquorum-generator, beside systemd's own generator on the same crypttab (docs/daemon.md §1)."""

from __future__ import annotations

import configparser
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guests.places import REPOSITORY
from keyquorum.daemon.units import unescape
from keyquorum.linux import crypttab

if TYPE_CHECKING:
    from pathlib import Path

OURS = os.path.join(REPOSITORY, "systemd/system-generators/keyquorum-generator")
SYSTEMD = "/usr/lib/systemd/system-generators/systemd-cryptsetup-generator"
UNLOCK, PROMPT = "keyquorum-unlock@", "systemd-cryptsetup@"
UUID = "1115ab1f-8c7c-47bc-ac4f-59a59c31508e"


class Generated:
    """What a generator wrote for a crypttab, and what it said."""

    def __init__(self, program: str, directory: str, text: bytes, cmdline: str = "") -> None:
        self.directory = os.path.join(directory, os.path.basename(program))
        os.mkdir(self.directory)
        table = os.path.join(directory, "crypttab")
        with open(table, "wb") as file:
            file.write(text)
        environment = {"PATH": os.environ["PATH"], "SYSTEMD_CRYPTTAB": table, "SYSTEMD_PROC_CMDLINE": cmdline}
        done = subprocess.run(
            [program, *[self.directory] * 3],
            env=environment,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == b""
        self.said = done.stderr.decode("utf-8", "replace")

    def files(self) -> set[str]:
        return {
            os.path.relpath(os.path.join(folder, name), self.directory)
            for folder, _, names in os.walk(self.directory)
            for name in names
        }

    def text(self, path: str) -> str:
        with open(os.path.join(self.directory, path), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def values(self, path: str, name: str) -> list[str]:
        return [line.partition("=")[2] for line in self.text(path).splitlines() if line.startswith(f"{name}=")]

    def instances(self, prefix: str) -> set[str]:
        return {
            entry[len(prefix) :].partition(".service")[0]
            for entry in os.listdir(self.directory)
            if entry.startswith(prefix)
        }

    def environment(self, instance: str) -> dict[str, str]:
        """The variables as systemd would set them: quotes, escapes and %% undone."""
        found = {}
        for value in self.values(f"{UNLOCK}{instance}.service.d/50-crypttab.conf", "Environment"):
            text = value
            if text.startswith('"'):
                assert text.endswith('"')
                text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
            assert "%" not in text.replace("%%", "")
            name, _, setting = text.replace("%%", "%").partition("=")
            found[name] = setting
        return found


def ours(tmp_path: Path, text: str, cmdline: str = "") -> Generated:
    return Generated(OURS, str(tmp_path), text.encode(), cmdline)


def test_a_volume(tmp_path: Path) -> None:
    made = ours(tmp_path, f"# volumes\n\ndata UUID={UUID} none luks,x-keyquorum,discard\n")
    assert made.files() == {
        "keyquorum-unlock@data.service.d/50-crypttab.conf",
        "systemd-cryptsetup@data.service.d/50-keyquorum.conf",
    }
    device = "dev-disk-by\\x2duuid-1115ab1f\\x2d8c7c\\x2d47bc\\x2dac4f\\x2d59a59c31508e.device"
    drop_in = "keyquorum-unlock@data.service.d/50-crypttab.conf"
    assert made.values(drop_in, "BindsTo") == made.values(drop_in, "After") == [device]
    assert made.environment("data") == {
        "KEYQUORUM_DEVICE": f"/dev/disk/by-uuid/{UUID}",
        "KEYQUORUM_OPTIONS": "luks,x-keyquorum,discard",
        "KEYQUORUM_HEADER": "",
        "KEYQUORUM_WAIT": "10",
    }
    assert made.values(drop_in, "TimeoutStartSec") == ["150"]
    prompt = "systemd-cryptsetup@data.service.d/50-keyquorum.conf"
    assert made.values(prompt, "ExecStartPre") == ["-/usr/bin/systemctl start keyquorum-unlock@%i.service"]
    assert "Requires" not in made.text(prompt)
    assert made.said == ""


def test_systemd_reads_what_was_written(tmp_path: Path) -> None:
    made = ours(tmp_path, "data /dev/vdb none x-keyquorum\n")
    for path in made.files():
        parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
        parser.read_string(made.text(path))
        assert set(parser.sections()) <= {"Unit", "Service"}


@pytest.mark.parametrize(
    "line",
    [
        "data /dev/vdb none luks",
        "data /dev/vdb none luks,x-keyquorum.wait=3",
        "data /dev/vdb none luks,x-keyquorum-other",
        "data /dev/vdb x-keyquorum",
        "#data /dev/vdb none x-keyquorum",
        "data /dev/vdb none luks # x-keyquorum",
        "",
    ],
)
def test_volumes_without_the_option_are_not_ours(tmp_path: Path, line: str) -> None:
    assert ours(tmp_path, f"{line}\n").files() == set()


def test_several_volumes_and_the_last_line_without_its_end(tmp_path: Path) -> None:
    made = ours(
        tmp_path,
        "a /dev/vda none x-keyquorum\nb /dev/vdb none luks\r\nc /dev/vdc none x-keyquorum\r\nd /dev/d - x-keyquorum",
    )
    assert made.instances(UNLOCK) == {"a", "c", "d"}
    assert made.environment("c")["KEYQUORUM_OPTIONS"] == "x-keyquorum"


def test_a_key_file_goes_first(tmp_path: Path) -> None:
    made = ours(tmp_path, "data /dev/vdb /etc/key luks,x-keyquorum\n")
    assert made.files() == set()
    assert made.said == "keyquorum-generator: data has a key file, so x-keyquorum is ignored\n"


def test_the_key_socket_is_pulled_in(tmp_path: Path) -> None:
    made = ours(tmp_path, "data /dev/vdb /run/keyquorum/key.sock luks\n")
    drop_in = "systemd-cryptsetup@data.service.d/50-keyquorum.conf"
    assert made.files() == {drop_in}
    assert made.values(drop_in, "Wants") == made.values(drop_in, "After") == ["keyquorum-key.socket"]


@pytest.mark.parametrize(
    ("options", "wait", "limit"),
    [("x-keyquorum.wait=0", "0", "140"), ("x-keyquorum.wait=30,x-keyquorum.wait=45", "45", "185")],
)
def test_how_long_to_wait(tmp_path: Path, options: str, wait: str, limit: str) -> None:
    made = ours(tmp_path, f"data /dev/vdb none x-keyquorum,{options},nofail\n")
    assert made.environment("data")["KEYQUORUM_WAIT"] == wait
    assert made.values("keyquorum-unlock@data.service.d/50-crypttab.conf", "TimeoutStartSec") == [limit]


@pytest.mark.parametrize("wait", ["", "x", "-1", "1.5", "100000", "1;reboot", "$(reboot)"])
def test_a_time_that_is_none(tmp_path: Path, wait: str) -> None:
    made = ours(tmp_path, f"data /dev/vdb none x-keyquorum,x-keyquorum.wait={wait}\n")
    assert made.environment("data")["KEYQUORUM_WAIT"] == "10"
    assert "is no number of seconds" in made.said


def test_options_of_systemd(tmp_path: Path) -> None:
    made = ours(tmp_path, 'net /dev/vdb none x-keyquorum,_netdev,header=/etc/h"%d\\x\n')
    drop_in = "keyquorum-unlock@net.service.d/50-crypttab.conf"
    assert made.values(drop_in, "After") == ["dev-vdb.device", "remote-fs-pre.target network-online.target"]
    assert made.environment("net")["KEYQUORUM_HEADER"] == '/etc/h"%d\\x'


OPENED = {"PrivateNetwork": ["no"], "IPAddressDeny": [""], "RestrictAddressFamilies": ["AF_INET AF_INET6 AF_VSOCK"]}


@pytest.mark.parametrize(("options", "opened"), [("x-keyquorum,_netdev", True), ("x-keyquorum", False)])
def test_the_network_is_for_volumes_that_say_they_need_it(tmp_path: Path, options: str, opened: bool) -> None:
    made = ours(tmp_path, f"net /dev/vdb none {options}\n")
    drop_in = "keyquorum-unlock@net.service.d/50-crypttab.conf"
    text = made.text(drop_in)
    assert ("\n[Service]\nPrivateNetwork=no\n" in text) == opened
    for name, values in OPENED.items():
        assert made.values(drop_in, name) == (values if opened else [])
    assert made.values(drop_in, "Wants") == (["network-online.target"] if opened else [])
    assert made.values(drop_in, "JobTimeoutSec") == (["270"] if opened else []), "no network delays no prompt for ever"


def test_a_file_instead_of_a_device(tmp_path: Path) -> None:
    made = ours(tmp_path, "image /srv/image none x-keyquorum\n")
    drop_in = "keyquorum-unlock@image.service.d/50-crypttab.conf"
    assert made.values(drop_in, "RequiresMountsFor") == ['"/srv/image"']
    assert made.values(drop_in, "BindsTo") == []


@pytest.mark.parametrize(
    "word",
    [
        *("keyquorum=off", "rescue", "emergency", "single", "s", "S", "1", "-b"),
        *("systemd.unit=rescue.target", "systemd.unit=emergency.target"),
    ],
)
def test_a_boot_that_was_stopped_opens_nothing(tmp_path: Path, word: str) -> None:
    assert ours(tmp_path, "data /dev/vdb none x-keyquorum\n", f"root=/dev/vda {word} quiet").files() == set()


@pytest.mark.parametrize(
    "word", ["keyquorum=on", "rescued", "nosingle", "x=rescue", "*", "systemd.unit=graphical.target"]
)
def test_other_words_stop_nothing(tmp_path: Path, word: str) -> None:
    assert ours(tmp_path, "data /dev/vdb none x-keyquorum\n", f"root=/dev/vda {word} quiet").instances(UNLOCK) == {
        "data"
    }


def test_no_crypttab_at_all(tmp_path: Path) -> None:
    done = subprocess.run(
        [OURS, str(tmp_path)], env={"PATH": os.environ["PATH"], "SYSTEMD_CRYPTTAB": "/none"}, check=False, timeout=60
    )
    assert done.returncode == 0
    assert os.listdir(tmp_path) == []


def test_a_line_that_is_not_understood_hides_no_other(tmp_path: Path) -> None:
    made = ours(tmp_path, "x-keyquorum\nlonely\ndata /dev/vdb none x-keyquorum\n")
    assert made.instances(UNLOCK) == {"data"}


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    first = ours(tmp_path, "data /dev/vdb none x-keyquorum\n")
    before = {path: first.text(path) for path in first.files()}
    environment = {
        "PATH": os.environ["PATH"],
        "SYSTEMD_CRYPTTAB": str(tmp_path / "crypttab"),
        "SYSTEMD_PROC_CMDLINE": "",
    }
    subprocess.run([OURS, first.directory], env=environment, check=True, timeout=60)
    assert {path: first.text(path) for path in first.files()} == before


NAMES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x17F, exclude_characters="/#\x7f\x80\x85\xa0"),
    min_size=1,
    max_size=12,
)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
DEVICES = st.one_of(
    st.builds(
        "{}={}".format,
        st.sampled_from(["UUID", "LABEL", "PARTUUID", "PARTLABEL"]),
        VALUES.map(lambda v: v.replace('"', "_")),
    ),
    VALUES.map(lambda value: f"/dev/{value.replace('/', '_').replace('..', '__').strip('.') or 'x'}"),
)
BLANKS = st.sampled_from([" ", "\t", "  \t"])
LINES = st.lists(
    st.tuples(
        NAMES,
        BLANKS,
        DEVICES,
        BLANKS,
        st.sampled_from(["none", "-"]),
        BLANKS,
        st.sampled_from(["", "luks,", "nofail,"]),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda line: line[0],
)


@settings(deadline=None, max_examples=25)
@given(LINES)
def test_the_same_units_as_systemd_makes(lines: list[tuple[str, ...]]) -> None:
    text = "".join(f"{''.join(line)}x-keyquorum\n" for line in lines).encode()
    with tempfile.TemporaryDirectory() as directory:
        mine = Generated(OURS, directory, text)
        theirs = Generated(SYSTEMD, directory, text)
        assert mine.instances(UNLOCK) == mine.instances(PROMPT) == theirs.instances(PROMPT)
        assert {unescape(instance) for instance in mine.instances(UNLOCK)} == {e.name for e in crypttab.parse(text)}
        for instance in theirs.instances(PROMPT):
            devices = mine.values(f"{UNLOCK}{instance}.service.d/50-crypttab.conf", "BindsTo")
            assert devices == theirs.values(f"{PROMPT}{instance}.service", "BindsTo")
