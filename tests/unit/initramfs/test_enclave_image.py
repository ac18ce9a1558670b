# SPDX-License-Identifier: Apache-2.0
"""What an image carries for enclaves: modules that judge every technology, and the files to judge by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from keyquorum.evidence import bundle
from keyquorum.holders import enclave_where
from keyquorum.holders.enclave_where import Attested, PolicyFile
from keyquorum.initramfs import enclave_files, modules
from keyquorum.initramfs.wanted import BootVolume
from keyquorum.model import strict_json
from unit.evidence.bundle_maker import sample
from unit.holders.enclaves import Owner
from unit.model.objects import VOLUME_SET

AGENT = str(Path(modules.__file__).parents[2])
_JUDGE = """
import sys
image, dynamic, given, *paths = sys.argv[1:]
sys.path[:] = [*(image + path for path in paths), image + sys.path[1], dynamic]
import keyquorum.holders.enclave_proof
import _json, binascii
from keyquorum.envelope.dsse import PublicKey
from keyquorum.errors import TamperingError
from keyquorum.evidence import bundle, certificate, trial
from keyquorum.model import strict_json
assert keyquorum.holders.enclave_proof.__file__.startswith(image)
assert sys.modules["cryptography"].__file__.startswith(image)
with open(given, "rb") as file:
    for row in strict_json.parse(file.read(), "x", 1 << 24, TamperingError):
        roots = tuple(certificate.load(binascii.a2b_base64(one), "root") for one in row["roots"])
        known = trial.Known(
            policies=tuple(binascii.a2b_base64(one) for one in row["policies"]),
            signers=(PublicKey(raw=binascii.a2b_base64(row["signer"])),),
            nonce=binascii.a2b_base64(row["nonce"]),
            now=row["now"],
            roots=roots,
        )
        found = trial.judge(bundle.parse(binascii.a2b_base64(row["bundle"])), known)
        print(found.technology, found.status, found.reason)
"""


def rows(technologies: tuple[str, ...]) -> list[dict[str, Any]]:
    found = []
    for technology in technologies:
        made = sample(technology)
        known = made.known()
        octets = {"bundle": bundle.serialise(made.bundle), "nonce": known.nonce, "signer": known.signers[0].raw}
        row: dict[str, Any] = {name: strict_json.to_base64(data) for name, data in octets.items()}
        row |= {"roots": [strict_json.to_base64(one) for one in made.roots], "now": known.now}
        found.append(row | {"policies": [strict_json.to_base64(one) for one in known.policies]})
    return found


def test_what_an_image_has_judges_every_technology(tmp_path: Path) -> None:
    """Compiled code imports more when it is used than when it is loaded; all of that is in the image."""
    loaded = modules.needed(frozenset({"enclave"}), measure=False)
    image = tmp_path / "image"
    for path in modules.install(loaded, str(image)):
        target = Path(str(image) + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    technologies = ("snp", "tdx", "sgx", "nitro", "azure-snp", "azure-tdx")
    given = tmp_path / "given.json"
    given.write_text(json.dumps(rows(technologies)))
    dynamic = str(sysconfig.get_config_var("DESTSHARED"))
    words = [sys.executable, "-I", "-S", "-c", _JUDGE, str(image), dynamic, str(given), AGENT]
    done = subprocess.run([*words, *modules.roots(loaded)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{technology} trusted " for technology in technologies]


def test_a_plain_custodian_brings_none_of_it() -> None:
    names = {module.name.split(".")[0] for module in modules.needed(frozenset({"custodian"}), measure=False)}
    assert "cryptography" not in names
    assert modules.roots(modules.needed(frozenset({"custodian"}), measure=False)) == []


def volume(attested: Attested, owner: Owner) -> BootVolume:
    where = enclave_where.to_json(owner.where, attested)
    placement = VOLUME_SET.placements[0].with_(name="eu", kind="enclave", where=where)
    changed = VOLUME_SET.with_(placements=(placement, *VOLUME_SET.placements[1:]))
    return BootVolume(name="root", uuid=changed.volume, anchor="/a", volume_set=changed)


def announced(capsys: pytest.CaptureFixture[str], attested: Attested, owner: Owner) -> list[str]:
    enclave_files.announce([volume(attested, owner)] * 2)
    return capsys.readouterr().out.splitlines()


def test_policies_roots_and_store_are_put_in_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    owner = Owner(str(tmp_path), "snp")
    os.mkdir(owner.attested.collateral)
    kept = [owner.write(f"store/{name}", b"x") for name in ("amd.last", "snp-Milan.pem", "snp-Genoa.pem.4711.new")]
    paths = [owner.policies[0].path, owner.attested.test_roots, kept[1]]
    assert announced(capsys, owner.attested, owner) == [
        *(f"file {path} {path}" for path in paths),
        f"note eu of root is {enclave_where.LOUD}",
    ]
    assert announced(capsys, owner.attested.with_(test_roots=""), owner) == [
        f"file {p} {p}" for p in (paths[0], kept[1])
    ]


def test_what_would_fail_at_the_next_boot_is_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    owner = Owner(str(tmp_path), "snp", test_roots=False)
    os.mkdir(owner.attested.collateral)
    for number in range(70):
        owner.write(f"store/{number}", b"x")
    gone = owner.attested.with_(policies=(PolicyFile(path="/nonexistent", kind="x", serial=1),))
    found = announced(capsys, gone, owner)
    assert found[0] == "note eu of root: there is no /nonexistent"
    assert found[-1] == f"note {owner.attested.collateral} has more than 64 files; the others are left out"
    assert len(found) == 66


def test_a_set_that_cannot_be_read_is_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    owner = Owner(str(tmp_path), "snp")
    broken = volume(owner.attested, owner)
    first = broken.volume_set.placements[0]
    changed = broken.volume_set.with_(placements=(first.with_(where={"version": 1}),))
    enclave_files.announce([broken.with_(volume_set=changed)])
    assert capsys.readouterr().out.startswith("note eu of root will not be believed in the initramfs: ")


def test_a_name_with_white_space_is_noted_and_not_cut_in_two(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    owner = Owner(str(tmp_path), "snp", test_roots=False)
    os.mkdir(owner.attested.collateral)
    kept = owner.write("store/a\nb.pem", b"x")
    policy = owner.write("my policy.json", b"x")
    odd = owner.attested.with_(policies=(PolicyFile(path=policy, kind="x", serial=1),))
    assert announced(capsys, odd, owner) == [
        f"note eu of root: {path!r} is left out, for white space in its name" for path in (policy, kept)
    ]
