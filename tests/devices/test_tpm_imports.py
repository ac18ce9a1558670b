# SPDX-License-Identifier: Apache-2.0
"""What an unlock by the TPM imports: nothing that a boot would wait for, and no TSS library (docs/decisions/0010)."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from devices.tpm_emulator import Emulator
from devices.tpm_support import Enrolment, extend, pcr, signed_entry, signing_key
from keyquorum.holders import tpm_facts
from keyquorum.initramfs import modules
from keyquorum.model import strict_json
from keyquorum.model.holder_options import TpmOptions

AGENT = Path(__file__).resolve().parents[2] / "agent"
FORBIDDEN = {
    "argparse", "base64", "collections", "contextlib", "cryptography", "dataclasses", "enum", "functools", "hashlib",
    "json", "logging", "pathlib", "pkcs11", "re", "socket", "subprocess", "threading", "tpm2_pytss", "typing",
}  # fmt: skip
SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from keyquorum.holders import load, tpm_where
from keyquorum.holders.contract import OpenTask, Subject, Tuning
from keyquorum.errors import RefusedError, TamperingError
from keyquorum.model import strict_json
from keyquorum.secret import Secret
import keyquorum.tpm2.measurement

class Credential:
    def ready(self, name):
        return True
    def ask(self, name, question):
        return Secret.from_view(b"1234")

task = OpenTask(
    subject=Subject(volume="v", set_id=bytes(16), epoch=1, index=1, name="tpm"),
    where=strict_json.parse(sys.argv[3].encode(), "where", 8192, TamperingError),
    answers=Credential(),
    tuning=Tuning(tpm_device=sys.argv[2], pcr_signatures=(sys.argv[4],)),
    deadline=time.monotonic() + 10,
)
if sys.argv[5]:
    import keyquorum.holders.tpm_facts
    keyquorum.holders.tpm_facts.LOCK = sys.argv[5]
try:
    with load("tpm").open(task).identity as identity:
        outcome = "opened"
except RefusedError as error:
    outcome = error.message
print(outcome)
print(" ".join(sorted(sys.modules)))
"""


def run(tpm: Emulator, enrolment: Enrolment, signatures: str, lock: str = "") -> tuple[str, set[str]]:
    where = strict_json.serialise(enrolment.where).decode()
    arguments = [sys.executable, "-I", "-S", "-c", SCRIPT, str(AGENT), tpm.device, where, signatures, lock]
    done = subprocess.run(arguments, capture_output=True, check=True, timeout=60, text=True)
    outcome, modules = done.stdout.splitlines()
    return outcome, set(modules.split())


@pytest.mark.parametrize("how", ["plain", "everything", "refused"])
def test_an_unlock_imports_little(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = str(tmp_path / "facts.lock")
    monkeypatch.setattr(tpm_facts, "LOCK", lock)
    options: dict[str, Any] = {"pcrs": (7,)}
    if how == "everything":
        pem = tmp_path / "vendor.pem"
        pem.write_bytes(signing_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        options |= {"pin": True, "facts": ("cpu-model",), "signed_pcrs": (11,), "public_key": str(pem)}
    signatures = tmp_path / "signatures.json"
    with Emulator(str(tmp_path / "tpm")) as tpm:
        enrolment = Enrolment(tpm.device, str(tmp_path), TpmOptions(**options), b"1234")
        signatures.write_text(
            json.dumps({"sha256": [signed_entry(signing_key(), "sha256", {11: pcr(tpm.device, 11)})]})
        )
        if how == "refused":
            extend(tpm.device, 7)
        outcome, modules = run(tpm, enrolment, str(signatures), lock if how == "everything" else "")
    assert outcome == "opened" or (how == "refused" and outcome.startswith("PCR 7"))
    assert not {name.partition(".")[0] for name in modules} & FORBIDDEN
    if how == "plain":
        lazy = {"tpm_enrolment", "tpm_facts", "tpm_signatures", "tpm_refusal"}
        assert not {f"keyquorum.holders.{name}" for name in lazy} & modules
        assert not {"keyquorum.tpm2.codes", "keyquorum.tpm2.creation", "keyquorum.native.oaep"} & modules


def imported(name: str, but: str) -> set[str]:
    """Return every module of ours that a module can ever import, inside functions too, and what those can."""
    found, waiting = set[str](), [name]
    while waiting:
        module = waiting.pop()
        if module in found or module == but:
            continue
        path = AGENT.joinpath(*module.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not source.exists():
            continue
        found.add(module)
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("keyquorum"):
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def test_a_boot_image_carries_what_a_refusal_needs() -> None:
    """A module that only a refusal imports would otherwise be missed on the one boot that needs it."""
    carried = {module.name for module in modules.needed(frozenset({"tpm"}), measure=True)}
    wanted = imported("keyquorum.holders.tpm", but="keyquorum.holders.tpm_enrolment")
    assert "keyquorum.holders.tpm_refusal" in wanted
    assert wanted <= carried, wanted - carried
    assert "keyquorum.holders.tpm_enrolment" not in carried
    assert not {name.partition(".")[0] for name in carried} & FORBIDDEN
