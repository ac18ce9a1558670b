# SPDX-License-Identifier: Apache-2.0
"""A machine that is not what it was: another TPM, other firmware measurements, BIOS version, CPU model, or year.

One enrolment under OVMF serves most of it: the TPM's fragment is bound to PCR 7, BIOS version and CPU model, and all
fragments expire.
"""

import os
import shutil
from pathlib import Path

import pytest

from boots import fragment_image
from boots.aftermath import (
    NOT_NEEDED,
    REFUSED,
    STAYS_CLOSED,
    UNAVAILABLE,
    VALID,
    ask_everyone,
    nothing_left,
    opened_by_itself,
    opened_by_passphrase,
    wait_for_verdict,
)
from boots.enrolled import PATIENT, PROMPT, TWO_OF_THREE, Recipe, Scene, enrolled_root
from guests import hardware
from guests.swtpm import TpmState

ENROLLED_BIOS, OTHER_BIOS = "1.14.0", "1.15.2"
OTHER_CPU = "Example CPU 2 at 3.00GHz"
VALID_DAYS = 3650
EXPIRED = "2040-01-01T00:00:00"
MEASURED = Recipe(
    "measured",
    TWO_OF_THREE.replace("pcrs = [7]", 'pcrs = [7]\nfacts = ["bios-version", "cpu-model"]')
    + f"[fragments]\nvalid_days = {VALID_DAYS}\n",
    prepare=PATIENT,
    hardware=(("ovmf", True), ("smbios", (f"type=0,version={ENROLLED_BIOS}",))),
)
# Debian's variable store with Microsoft's keys in it, so that Secure Boot is on; in an empty one it is off.
OTHER_VARIABLES = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"


@pytest.fixture
def measured(tmp_path: Path) -> Scene:
    """Throw-away copies of the machine that is bound to what it is."""
    return Scene(enrolled_root(MEASURED), str(tmp_path))


def test_another_tpm(measured: Scene) -> None:
    measured.tpm = TpmState.create(os.path.join(measured.directory, "another-tpm"))
    with measured.machine() as vm:
        told = opened_by_itself(vm)
        assert (told["disk-a"].verdict, told["disk-b"].verdict) == (VALID, VALID)
        assert told["tpm"].verdict in {REFUSED, NOT_NEEDED}
        asked = ask_everyone(vm, measured.luks)["tpm"]
        assert asked.verdict == REFUSED
        assert asked.reason.startswith("this is another TPM, or it was cleared: its storage root key is ")
        nothing_left(vm)


def test_the_machine_that_was_enrolled_opens_although_a_disk_rotted(measured: Scene) -> None:
    fragment_image.rot(measured.raw("frag-b"))
    with measured.machine() as vm:
        told = opened_by_itself(vm)
        assert (told["disk-a"].verdict, told["tpm"].verdict) == (VALID, VALID)
        rotten = ask_everyone(vm, measured.luks)["disk-b"]
        assert rotten.verdict == REFUSED
        assert "one of its two slots is damaged" in rotten.reason
        assert "enrol again" in rotten.hint
        nothing_left(vm)


def test_another_bios_version(measured: Scene) -> None:
    del measured.disks["frag-b"]
    with measured.machine(smbios=(f"type=0,version={OTHER_BIOS}",)) as vm:
        told = opened_by_passphrase(vm, measured.luks)
        words = f"the BIOS version changed: enrolled '{ENROLLED_BIOS}', now '{OTHER_BIOS}'"
        assert (told["tpm"].verdict, told["tpm"].reason) == (REFUSED, words)
        wait_for_verdict(vm, "tpm", REFUSED, words)
        assert (told["disk-a"].verdict, told["disk-b"].verdict) == (VALID, UNAVAILABLE)
        nothing_left(vm)


def test_another_cpu_model_and_another_decade(measured: Scene) -> None:
    with measured.machine(cpu=f"{hardware.CPU},model-id={OTHER_CPU}", clock=EXPIRED) as vm:
        told = opened_by_passphrase(vm, measured.luks)
        assert told["tpm"].verdict == REFUSED
        assert told["tpm"].reason.startswith("the CPU model changed: enrolled 'QEMU TCG CPU")
        assert told["tpm"].reason.endswith(f"now '{OTHER_CPU}'")
        for disk in ("disk-a", "disk-b"):
            assert told[disk].verdict == REFUSED
            assert told[disk].reason.startswith("its fragment expired on 20")
            wait_for_verdict(vm, disk, REFUSED, told[disk].reason)
        nothing_left(vm)


def test_another_secure_boot_policy(measured: Scene) -> None:
    """The refusal names PCR and event, and the prompt comes."""
    variables = shutil.copy(OTHER_VARIABLES, os.path.join(measured.directory, "variables.fd"))
    del measured.disks["frag-b"]
    with measured.machine(ovmf_variables=variables) as vm:
        line = wait_for_verdict(vm, "tpm", REFUSED, "PCR 7 (Secure Boot policy) differs: enrolled ")
        assert (
            ", from EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot on, now EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot" in line
        )
        vm.wait_console(STAYS_CLOSED)
        vm.wait_console(PROMPT)
