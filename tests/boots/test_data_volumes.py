# SPDX-License-Identifier: Apache-2.0
"""Data volumes under systemd, in real boots: opened before anybody asks, or else by whoever answers (docs/daemon.md).

Three boots: everything is there; only the TPM is; keyquorum=off. What needs no boot of its own is tested in the first.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from boots.data_volume import (
    CONTENT,
    CREDENTIAL,
    PIN,
    PROMPT,
    VOLUMES,
    DataScene,
    data_tree,
    journal,
)
from guests.chroot import Chroot
from guests.machine import Machine
from guests.places import REPOSITORY
from keyquorum.model import journal_entry

SLOW_SECONDS = 300.0
ASKING = "/run/systemd/ask-password"


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine with two of its fragment disks and its TPM, up for all tests that need no boot of their own."""
    with DataScene(str(tmp_path_factory.mktemp("booted"))).machine() as vm:
        yield vm


def stands(vm: Machine, unit: str) -> dict[str, str]:
    """How systemd says a unit stands."""
    wanted = "ActiveState,SubState,Result,InvocationID,NRestarts,StatusText,ExecMainStatus"
    shown = vm.run(["systemctl", "show", f"--property={wanted}", unit]).text
    return dict(line.split("=", 1) for line in shown.splitlines())


def systemctl(vm: Machine, words: str) -> None:
    """Run systemctl, which may wait for slow holders."""
    vm.run(f"systemctl {words}", timeout=SLOW_SECONDS)


def mapped(vm: Machine) -> set[str]:
    """The names in /dev/mapper."""
    return set(vm.run("ls /dev/mapper").text.split()) - {"control"}


def content(vm: Machine, name: str) -> bool:
    """Whether the volume is mounted where fstab says, and is the right one."""
    where = VOLUMES[name].where
    return vm.run(f"findmnt -no SOURCE {where}; cat {where}/content", check=False).text == (
        f"/dev/mapper/{name}\n{CONTENT.format(name)}".rstrip()
    )


def test_volumes_open_by_themselves_and_are_mounted(booted: Machine) -> None:
    assert booted.wait_boot() == "running", booted.run("systemctl --failed --no-legend").text
    assert not re.search(PROMPT, booted.console_text())
    assert mapped(booted) == {"data", "spare", "socket", "token"}  # not idle, which is noauto
    assert [name for name in ("data", "spare", "socket", "token") if not content(booted, name)] == []
    for name in ("data", "spare", "token"):
        luks = VOLUMES[name].luks
        assert f":64:logon:cryptsetup:{luks.uuid}-d0" in booted.run(f"dmsetup table {name}").text
        assert luks.volume_key.hex() not in booted.run(f"dmsetup table --showkeys {name}").text
        assert stands(booted, f"systemd-cryptsetup@{name}")["ActiveState"] == "active"
    assert "allow_discards" in booted.run("dmsetup table data").text
    assert "allow_discards" not in booted.run("dmsetup table spare").text


def test_what_happened_is_told_in_status_journal_and_report(booted: Machine) -> None:
    volume = VOLUMES["data"].luks.uuid
    booted.run("until systemctl show --value --property=StatusText keyquorumd | grep .; do sleep 0.5; done")
    status = booted.run("systemctl status --no-pager --full keyquorum-unlock@data keyquorumd").text
    for line in (
        "Open data from its key fragments",
        r"active \(exited\)",
        r"keyquorum\[\d+\]: (disk-a|tpm|disk-b) \((disk|tpm)\): valid in \d",
        r"keyquorum\[\d+\]: data is open, from [23] of 3 fragments",
        r'Status: "\d volumes, none waits"',
    ):
        assert re.search(line, status), f"{line}\n{status}"
    (opened,) = journal(booted, f"KEYQUORUM_VOLUME={volume}", f"MESSAGE_ID={journal_entry.OPENED_ID}")
    assert (opened["PRIORITY"], opened["KEYQUORUM_NAME"], opened["KEYQUORUM_OUTCOME"]) == ("5", "data", "opened")
    assert opened["_SYSTEMD_UNIT"] == "keyquorum-unlock@data.service"
    verdicts = journal(booted, f"KEYQUORUM_VOLUME={volume}", f"MESSAGE_ID={journal_entry.VERDICT_ID}")
    assert {(entry["KEYQUORUM_HOLDER"], entry["KEYQUORUM_KIND"]) for entry in verdicts} == {
        ("disk-a", "disk"),
        ("tpm", "tpm"),
        ("disk-b", "disk"),
    }
    assert sum(entry["KEYQUORUM_VERDICT"] == "valid" for entry in verdicts) >= 2
    (handed,) = journal(booted, f"MESSAGE_ID={journal_entry.HANDED_OUT_ID}")
    assert handed["KEYQUORUM_NAME"] == "socket"
    (status_of,) = json.loads(booted.run(f"keyquorum status UUID={volume} --json").output)["volumes"]
    assert status_of["last_unlock"]["outcome"] == "opened"


def test_daemon_reload_and_new_jobs_change_nothing(booted: Machine) -> None:
    before = {name: stands(booted, f"keyquorum-unlock@{name}") for name in ("data", "spare", "token")}
    files = "cd /run/systemd/generator && find . -path '*keyquorum*' -type f -exec sha256sum {} + | sort"
    generated = booted.run(files).text
    assert generated.count("50-crypttab.conf") == 4
    systemctl(booted, "daemon-reload")
    systemctl(booted, "daemon-reload")
    systemctl(booted, "start sysinit.target cryptsetup.target")
    systemctl(booted, "start systemd-cryptsetup@data remote-cryptsetup.target multi-user.target")
    assert booted.run(files).text == generated
    assert {name: stands(booted, f"keyquorum-unlock@{name}") for name in before} == before
    assert stands(booted, "keyquorumd")["NRestarts"] == "0"
    assert content(booted, "data")


def test_a_noauto_volume_opens_when_it_is_started_and_again_after_it_was_stopped(booted: Machine) -> None:
    for _ in range(2):
        systemctl(booted, "start systemd-cryptsetup@idle")
        assert "idle" in mapped(booted)
        assert stands(booted, "keyquorum-unlock@idle")["SubState"] == "exited"
        systemctl(booted, "stop systemd-cryptsetup@idle keyquorum-unlock@idle")  # named, so that both are waited for
        assert "idle" not in mapped(booted)
        assert stands(booted, "keyquorum-unlock@idle")["SubState"] == "dead"
    assert booted.run("cryptsetup status idle", check=False).code != 0


@pytest.mark.parametrize(("suite", "column"), [("trixie", 1), ("bookworm", 2)])
def test_units_are_correct_and_exposed_no_more_than_documented(suite: str, column: int) -> None:
    """All of these units do their work in the boots of this file."""
    system = Chroot(data_tree(suite).path)
    page = Path(REPOSITORY, "docs/daemon.md").read_text("utf-8")
    rows = re.findall(r"^\| (keyquorum\S+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert {row[0] for row in rows} == {"keyquorum-unlock@", "keyquorum-key@", "keyquorumd"}
    for row in rows:
        unit = row[0] + ("x.service" if row[0].endswith("@") else ".service")
        said = system.run(["systemd-analyze", "security", "--offline=yes", "--no-pager", unit]).decode()
        exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
        assert exposure, said
        assert exposure[1] == row[column], said
    verify = "systemd-analyze verify --man=no /usr/lib/systemd/system/keyquorum* 2>&1"
    complaints = system.run(["sh", "-ec", verify]).decode().splitlines()
    assert [line for line in complaints if "Unknown key 'ImportCredential'" not in line] == []  # older systemd


def test_a_pin_comes_from_a_credential_or_from_a_password_agent(booted: Machine) -> None:
    """The boot had the credential; without it somebody is asked, and a wrong PIN leads to the ordinary prompt."""
    (verdict,) = journal(booted, "KEYQUORUM_HOLDER=token", f"MESSAGE_ID={journal_entry.VERDICT_ID}")
    assert (verdict["KEYQUORUM_VERDICT"], verdict["KEYQUORUM_KIND"]) == ("valid", "pkcs11")
    booted.run(f"rm {CREDENTIAL}")
    systemctl(booted, "stop srv-token.mount")  # one stop for both: systemd lets umount and detach race
    systemctl(booted, "stop systemd-cryptsetup@token keyquorum-unlock@token")
    assert "token" not in mapped(booted)
    systemctl(booted, "start --no-block srv-token.mount")
    answer(booted, "PIN.*vault", PIN)
    systemctl(booted, "start srv-token.mount")
    assert content(booted, "token")
    assert not questions(booted)


def questions(vm: Machine) -> list[str]:
    """The questions that are open; sockets of withdrawn ones may lie beside them."""
    return [name for name in vm.run(f"ls {ASKING}").text.split() if name.startswith("ask.")]


def answer(vm: Machine, question: str, text: str) -> None:
    """Answer a question as systemd's password agents do, once it is asked."""
    script = f"""\
for try in $(seq 1000); do
    file=$(grep -lE '^Message=.*{question}' {ASKING}/ask.* 2>/dev/null | head -n 1)
    [ -z "$file" ] || exec /usr/lib/systemd/systemd-reply-password 1 "$(sed -n 's/^Socket=//p' "$file")"
    sleep 0.2
done
cat {ASKING}/ask.* >&2
exit 1
"""
    vm.run(script, data=text.encode(), timeout=SLOW_SECONDS)


def answer_prompts(vm: Machine, *, leave: str = "", never: str = "") -> set[str]:
    """Type the passphrase of each volume that the console asks for, until somebody can log in or `leave` is asked for.

    That of `never` is not typed, however often it is asked for.

    A volume may be asked for more than once: systemd tries what was typed for one volume for the others too, and asks
    anew when it does not fit; what was typed meanwhile is lost.
    """
    asked: set[str] = set()
    while name := vm.wait_console(rf"{PROMPT}|login: ")[1]:
        asked.add(name)
        if name == leave:
            break
        if name != never:
            vm.type(VOLUMES[name].luks.passphrase.decode() + "\n")
    return asked


def test_what_waits_opens_by_a_typed_passphrase_or_by_a_disk_that_comes_late(tmp_path: Path) -> None:
    scene = DataScene(str(tmp_path))
    scene.fragment_disks = ()
    with scene.machine() as vm:
        assert "data" in answer_prompts(vm, leave="data")
        vm.plug(scene.disk("frag-a"))  # nobody types anything for this one
        answer_prompts(vm, never="data")
        vm.wait_boot()
        assert [name for name in ("data", "socket", "spare") if not content(vm, name)] == []
        assert content(vm, "token")  # from the TPM and the token
        failed = vm.run("systemctl --failed --no-legend --plain").text.split()
        # What gave up first may find it open at its next attempt, and is well again then.
        assert journal(vm, f"MESSAGE_ID={journal_entry.CLOSED_ID}", "KEYQUORUM_NAME=spare")
        assert {word for word in failed if "@" in word} <= {"keyquorum-unlock@spare.service"}
        assert not questions(vm)
        _told_of_withdrawal(vm)


def _told_of_withdrawal(vm: Machine) -> None:
    (withdrawn,) = journal(vm, f"MESSAGE_ID={journal_entry.WITHDRAWN_ID}")
    assert withdrawn["KEYQUORUM_NAME"] == "data"
    assert withdrawn["_SYSTEMD_UNIT"] == "keyquorumd.service"
    tried = journal(vm, f"MESSAGE_ID={journal_entry.RETRY_ID}", "KEYQUORUM_NAME=data")
    # Which of them it was is the clock's affair: a slow machine is at a timed attempt when the disk comes.
    assert re.fullmatch("data is tried again, (a device came|without asking anybody)", tried[-1]["MESSAGE"])
    closed, *_ = journal(vm, f"MESSAGE_ID={journal_entry.CLOSED_ID}", "KEYQUORUM_NAME=data")
    assert (closed["KEYQUORUM_MISSING"], closed["KEYQUORUM_EXIT_CODE"]) == ("1", "3")
    (opened,) = journal(vm, f"MESSAGE_ID={journal_entry.OPENED_ID}", "KEYQUORUM_NAME=data")
    assert opened["_SYSTEMD_UNIT"] == "keyquorum-unlock@data.service"


def test_keyquorum_off_leaves_everything_to_the_prompts(tmp_path: Path) -> None:
    scene = DataScene(str(tmp_path))
    scene.cmdline = "keyquorum=off"
    with scene.machine() as vm:
        assert answer_prompts(vm) >= {"data", "spare", "socket"}
        assert content(vm, "data")
        assert stands(vm, "keyquorum-unlock@data")["ActiveState"] == "inactive"
        assert stands(vm, "keyquorumd")["ActiveState"] == "inactive"
        assert not vm.run("find /run/systemd/generator -name '*keyquorum*'; ls /run/keyquorum 2>/dev/null || true").text
        assert not journal(vm, "SYSLOG_IDENTIFIER=keyquorum")
        vm.run("systemctl start keyquorumd keyquorum-unlock@data", check=False)
        assert stands(vm, "keyquorumd")["ActiveState"] == "inactive"
