# SPDX-License-Identifier: Apache-2.0
"""What is left in a guest's RAM once its root is open (I1): dm-crypt's key schedule, and nothing else that opens it.

The control is the same machine opened by passphrase, without us: each half of the volume key is there once, because
dm-crypt works with it, and the whole key nowhere.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from boots.enrolled import FRAGMENT_DISKS, OPENED, PROMPT, Scene
from boots.known_secrets import Whole, booted
from boots.plugged_volume import ANCHOR, DEVICE, ENROL, ENROL_SECONDS, VOLUME, blank_disks, plug_in, tree
from guests.hardware import Disk
from guests.luks_image import TEST_VOLUME
from guests.machine import Machine
from guests.memory import BASE64, HEX, INTEGER, RAW, copies
from guests.swtpm import TpmState
from guests.warm import warm_machine

FORGETTING_SECONDS = 60.0
MEMORY = 512  # MiB; enough for this guest, and quickly searched
FLOOR = {("first half", RAW): 1, ("second half", RAW): 1}
PLANTED = "planted in a guest"
# Keeps a key in the memory of a process, in all forms that are searched for.
PLANT = f"""\
import base64, hashlib, time
key = hashlib.sha512({PLANTED.encode()!r}).digest()
kept = [key.hex().encode(), key.hex().upper().encode(), *(base64.b64encode(bytes(n) + key) for n in range(3))]
number = int.from_bytes(key, "little")
print("planted", flush=True)
time.sleep(600)
"""

Found = Mapping[tuple[str, str], int]


def plant(vm: Machine) -> None:
    """Let a process of the guest hold what the search must find, so that finding nothing means something."""
    vm.put("/run/plant.py", PLANT.encode())
    vm.run("python3 /run/plant.py > /run/said & until grep -q planted /run/said; do sleep 0.1; done")


def counted(found: Found) -> dict[tuple[str, str], int]:
    """Without the digits of freed integers, which nobody can wipe (docs/threats.md §4)."""
    return {key: count for key, count in found.items() if key[1] != INTEGER}


def dump_once_forgotten(vm: Machine, path: str, key: bytes) -> None:
    """Dump memory when the kernel's garbage collector has come by: a key that was let go is freed a little later."""
    end = time.monotonic() + FORGETTING_SECONDS
    vm.dump_memory(path)
    while copies(path, {"volume key": key}) and time.monotonic() < end:
        time.sleep(0.5)
        vm.dump_memory(path)


def test_after_a_boot_only_dm_crypt_knows_the_key(
    scene: Scene, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    dumps = {moment: str(tmp_path / moment) for moment in ("opened", "running")}
    with scene.machine(memory=MEMORY) as vm:
        vm.wait_console(OPENED)
        dump_once_forgotten(vm, dumps["opened"], scene.luks.volume_key)
        vm.wait_boot()
        anchor = vm.get(f"/etc/keyquorum/volumes/{scene.luks.uuid}.json")
        plant(vm)
        vm.dump_memory(dumps["running"])
    disks = tuple(scene.enrolled.path(f"{disk}.img") for disk in FRAGMENT_DISKS)
    with booted(scene.enrolled.tpm) as tpm:
        secrets = Whole(scene.enrolled.path("root.img"), anchor, disks, tpm).secrets(scene.luks.volume_key)
    assert {"KEK", "share of disk-a", "share of tpm", "blind of disk-b", "identity of tpm"} <= set(secrets)
    for moment, dump in dumps.items():
        found = copies(dump, secrets)
        integers = {name: count for (name, form), count in found.items() if form == INTEGER}
        record_property(f"integers left when {moment}", str(integers))
        assert counted(found) == FLOOR, moment
    control = copies(dumps["running"], {PLANTED: hashlib.sha512(PLANTED.encode()).digest()})
    assert {form for _, form in control} == {RAW, HEX, BASE64, INTEGER}, control


def test_a_typed_passphrase_leaves_as_much(scene: Scene, tmp_path: Path) -> None:
    """The floor of the test above, by cryptsetup alone."""
    dump, key = str(tmp_path / "memory"), scene.luks.volume_key
    scene.cmdline += " keyquorum=off"
    with scene.machine(memory=MEMORY) as vm:
        vm.wait_console(PROMPT)
        vm.type(scene.luks.passphrase.decode() + "\n")
        vm.wait_boot()
        assert "switched off on the kernel command line" in vm.console_text()
        vm.dump_memory(dump)
    half = len(key) // 2
    assert copies(dump, {"volume key": key, "first half": key[:half], "second half": key[half:]}) == FLOOR


def test_an_enrolment_and_an_unlock_leave_nothing_in_a_running_system(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    dump, directory = str(tmp_path / "memory"), str(tmp_path)
    images = blank_disks(directory)
    with warm_machine(tree(), directory) as vm:
        plug_in(vm, {name: Disk(path, name) for name, path in images.items()}, new=True)
        vm.run(ENROL, timeout=ENROL_SECONDS)
        vm.run(f"keyquorum unlock {DEVICE} --name data --holder disk --holder tpm")
        anchor = vm.get(f"/etc/keyquorum{ANCHOR}")
        vm.run("sync")
        vm.dump_memory(dump)
    disks = tuple(images[name] for name in FRAGMENT_DISKS)
    with booted(TpmState(os.path.join(directory, "warm-tpm"))) as tpm:
        found = copies(dump, Whole(images[VOLUME], anchor, disks, tpm).secrets(TEST_VOLUME.volume_key))
    record_property("integers left", str({name: count for (name, form), count in found.items() if form == INTEGER}))
    assert counted(found) == FLOOR
