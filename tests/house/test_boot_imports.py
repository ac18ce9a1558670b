# SPDX-License-Identifier: Apache-2.0
"""What a boot imports is pinned: each module costs time in every boot and space in every image (decision 0003).

The list is what a clean interpreter says, by the function that also fills the boot image. A module that is missing
here is missing in the image, and one that comes in needs a reason.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

from guests.chroot import Chroot
from guests.root_tree import root_tree
from house.sources import ROOT, Import, imports_of, tree
from house.sources import modules as package
from keyquorum.initramfs import modules
from vectors.test_hpke_vectors import archive_of

ALL_KINDS = frozenset(modules._FOR_KIND)
ENCLAVE = frozenset({"enclave"})
PLAIN_KINDS = ALL_KINDS - ENCLAVE  # an enclave's image has `cryptography` in it, and what that imports (decision 0054)

# Of the standard library, as files (built-in and frozen modules cost nothing). Python's own start brings in encodings.
STANDARD = {
    "__future__",
    "_ctypes",
    "_json",
    "ctypes",
    "ctypes._endian",
    "encodings",
    "encodings.aliases",
    "encodings.utf_8",
    "importlib",
    "os",
    "struct",
    "termios",
    "types",
}
OF_VERSION = {(3, 11): {"warnings"}, (3, 13): {"linecache"}}
MAY_BE_BUILT_IN = {"_ctypes", "_json", "termios", "binascii", "fcntl", "select", "_socket"}
FORBIDDEN = {
    "argparse", "asyncio", "base64", "collections", "contextlib", "cryptography", "dataclasses", "enum", "functools",
    "hashlib", "inspect", "json", "logging", "multiprocessing", "pathlib", "pkcs11", "pyroute2", "queue", "random",
    "re", "secrets", "shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "tpm2_pytss",
    "traceback", "typing", "uuid",
}  # fmt: skip

# What our modules that a boot loads may name at all, at their top or in a function.
MAY_IMPORT = {
    "__future__", "_codecs", "_json", "_signal", "_socket", "_thread", "binascii", "ctypes", "errno", "fcntl",
    "importlib", "os", "select", "stat", "struct", "sys", "termios", "time",
}  # fmt: skip


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# Of ours: what every boot loads, and what measuring and each kind of holder add.
CORE = words("""
    deadline envelope envelope.dsse envelope.hpke envelope.wrapping errors holders holders.contract linux linux.answers
    linux.block linux.boot_record linux.cryptsetup linux.disk_reader linux.fragment_disk linux.pipes
    linux.private_header linux.prompt linux.prompt_withdrawal linux.run linux.uevents mailbox model model.anchor
    model.fields model.fragment model.fragment_disk model.header model.report model.strict_json model.token model.tree
    model.volume_set native native.crypto native.io_uring native.libc native.library native.sodium process record
    secret settings sharing sharing.additive_fft sharing.commitment sharing.field sharing.shamir sharing.tree speech
    unlock unlock.arguments unlock.check_fragment unlock.gather unlock.linger unlock.main unlock.open_volume
    unlock.proxy unlock.reconstruct unlock.standby unlock.telling unlock.verified_set
""")
TPM2 = words(
    "linux.tpm_device tpm2 tpm2.banks tpm2.client tpm2.commands tpm2.public tpm2.response_error tpm2.session tpm2.wire"
)
MEASUREMENT = TPM2 | words("linux.measurement_log tpm2.measurement")
_TPM_KIND = TPM2 | words("""
    evidence evidence.event_log holders.tpm holders.tpm_facts holders.tpm_pin holders.tpm_refusal
    holders.tpm_signatures holders.tpm_where linux.measurement_log linux.pcr_signature_files linux.platform_facts model.holder_options
    native.oaep tpm2.codes tpm2.pcr_signature tpm2.policy
""")
OF_KIND = {
    "disk": words("holders.disk"),
    "tpm": _TPM_KIND,
    "pkcs11": words("""
        envelope.identity_wrapping holders.pkcs11 holders.pkcs11_agreement holders.pkcs11_token model.pkcs11_key
        model.pkcs11_uri native.cryptoki native.cryptoki_abi
    """),
    "passphrase": words("envelope.identity_wrapping holders.passphrase"),
    "custodian": _TPM_KIND
    | words("""
        envelope.one_time_key evidence.binding holders.custodian holders.custodian_answer holders.custodian_call
        holders.custodian_exchange
        holders.custodian_where linux.atomic_file linux.boot_network linux.resolve linux.tls_connection model.fragment_name
        model.http_answer model.machine_identity model.message_fields model.network_address model.release_messages
        native.tls native.tls_library tpm2.attestation unlock.remote
    """),
    "sheet": words("holders.sheet model.sheet_text"),
}
# An enclave's: to ask it, and, imported when it is asked, to judge it. All of `evidence` is pinned by what judging loads.
OF_KIND["enclave"] = OF_KIND["custodian"] | words("""
    evidence.bundle evidence.cbor evidence.certificate evidence.certificates evidence.chain_checks evidence.checks
    evidence.der evidence.distinguished_name evidence.enclave_binding evidence.hcl_appraisal evidence.hcl_policy
    evidence.hcl_report evidence.instants evidence.intel_appraisal evidence.intel_body evidence.intel_bundle evidence.intel_certificates
    evidence.intel_checks evidence.intel_collateral evidence.intel_quote evidence.intel_reference
    evidence.intel_signature evidence.intel_standing evidence.intel_tcb evidence.intel_verify evidence.nitro_appraisal
    evidence.nitro_document evidence.nitro_policy evidence.reference_values evidence.result evidence.signed_policy
    evidence.snp_appraisal evidence.snp_certificates evidence.snp_chain evidence.snp_checks evidence.snp_policy
    evidence.snp_report evidence.snp_verify evidence.tpm_appraisal evidence.tpm_attest evidence.tpm_checks
    evidence.tpm_log evidence.tpm_public evidence.tpm_quote evidence.tpm_signature evidence.tpm_wire evidence.trial
    evidence.wanted holders.enclave holders.enclave_proof holders.enclave_where linux.collateral_store
    model.enclave_messages
""")

# Imports in functions of boot modules that no boot reaches: sealing is enrolment's, a journal is a running system's.
NOT_REACHED = {
    ("keyquorum.holders.pkcs11", "keyquorum.holders.pkcs11_sealing"),
    ("keyquorum.holders.sheet", "keyquorum.holders.sheet_print"),
    ("keyquorum.holders.custodian", "keyquorum.holders.custodian_enrolment"),
    ("keyquorum.holders.tpm", "keyquorum.holders.tpm_enrolment"),
    ("keyquorum.unlock.telling", "keyquorum.linux.journal"),
    ("keyquorum.unlock.telling", "keyquorum.model.journal_entry"),
}


def loaded(kinds: frozenset[str], *, measure: bool = False) -> set[str]:
    return {module.name for module in modules.needed(kinds, measure=measure)}


def ours(names: set[str]) -> set[str]:
    return {name.removeprefix("keyquorum.") for name in names if name.startswith("keyquorum.")}


def standard(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] != "keyquorum"}


@pytest.fixture(scope="module")
def everything() -> set[str]:
    return loaded(PLAIN_KINDS, measure=True)


def test_the_kinds_are_all_there() -> None:
    from keyquorum.holders import KINDS

    assert set(KINDS) == set(OF_KIND) == ALL_KINDS


@pytest.mark.parametrize("kind", ["", *sorted(ALL_KINDS)])
def test_our_own_modules(kind: str) -> None:
    found = ours(loaded(frozenset({kind} if kind else ())))
    expected = CORE | OF_KIND.get(kind, frozenset())
    assert found - expected == set(), "a boot imports more than before: is that worth its time?"
    assert expected - found == set(), "a boot imports less than before: shorten the list"


def test_measuring_what_was_opened() -> None:
    assert ours(loaded(frozenset(), measure=True)) == CORE | MEASUREMENT


def check_standard(names: set[str], version: tuple[int, int]) -> None:
    allowed = STANDARD | OF_VERSION.get(version, set()) | MAY_BE_BUILT_IN
    assert standard(names) - allowed == set(), "a boot imports more of the standard library than before"
    assert STANDARD - MAY_BE_BUILT_IN - names == set()


def test_the_standard_library_here(everything: set[str]) -> None:
    check_standard(everything, sys.version_info[:2])


def test_the_standard_library_of_debian_13() -> None:
    script = (
        "import json, sys; from keyquorum.initramfs import modules;"
        "names = [m.name for m in modules.needed(frozenset(modules._FOR_KIND) - {'enclave'}, measure=True)];"
        "print(json.dumps([sys.version_info[:2], names]))"
    )
    chroot = Chroot(root_tree("trixie").path)
    unpack = (
        "import sys, tarfile;"
        "tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/tmp/check', filter='data');"
        "sys.path.insert(0, '/tmp/check/agent');"
    )
    version, names = json.loads(chroot.run(["python3", "-c", unpack + script], data=archive_of({})))
    assert version == [3, 13]
    check_standard(set(names), (3, 13))
    assert ours(set(names)) == CORE.union(MEASUREMENT, *(OF_KIND[kind] for kind in PLAIN_KINDS))


def test_what_never_comes_in(everything: set[str]) -> None:
    assert not FORBIDDEN & {name.split(".")[0] for name in everything}
    assert not any(name.split(".")[1:2] in (["enroll"], ["cli"], ["daemon"], ["custodian"]) for name in everything)


def test_an_enclave_is_judged_by_what_is_imported_when_it_is_asked() -> None:
    """Whoever only loads the holder loads none of it: a boot that has its quorum elsewhere pays nothing."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import keyquorum.holders.enclave, keyquorum.unlock.main;"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, f"{ROOT}/agent"], capture_output=True, text=True, check=True
    )
    names = done.stdout.split()
    assert "keyquorum.holders.enclave_where" in names
    assert not {"keyquorum.holders.enclave_proof", "keyquorum.evidence.trial", "cryptography"} & set(names)


def imports_of_boot(everything: set[str]) -> list[Import]:
    return [found for name in sorted(everything) if name in package() for found in imports_of(package()[name])]


def test_our_boot_modules_name_nothing_else(everything: set[str]) -> None:
    wrong = {
        f"{found.importer}:{found.line} {found.imported}"
        for found in imports_of_boot(everything)
        if found.imported.split(".")[0] not in {*MAY_IMPORT, "keyquorum"}
    }
    assert not wrong


def test_what_a_function_imports_later_is_in_the_image(everything: set[str]) -> None:
    """An import that happens only in one case fails only in that case, in somebody's boot."""
    missing = {
        (found.importer, found.imported)
        for found in imports_of_boot(everything)
        if found.imported.startswith("keyquorum.") and found.imported not in everything
    }
    assert missing - NOT_REACHED == set()
    assert NOT_REACHED - missing == set(), "no longer needed as an exception"


def codecs_of(call: ast.Call) -> set[str]:
    """Return the names of encodings that a call may look up; text files look up every one, methods know three."""
    named = [keyword.value for keyword in call.keywords if keyword.arg == "encoding"]
    known = {"utf-8"}
    if isinstance(call.func, ast.Attribute) and call.func.attr in {"encode", "decode"}:
        named, known = [*named, *call.args[:1]], {"utf-8", "ascii", "latin-1"}
    parts = [part for expression in named for part in ast.walk(expression)]
    return {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)} - known


def test_no_codec_is_looked_up(everything: set[str]) -> None:
    """An encoding that is looked up loads a module that an image lacks."""
    for name in sorted(everything & set(package())):
        for node in ast.walk(tree(package()[name])):
            if isinstance(node, ast.Call):
                assert not codecs_of(node), f"{name}:{node.lineno}"


def test_the_codecs_that_judging_an_enclave_looks_up_are_in_its_image() -> None:
    names, looked_up = loaded(ENCLAVE), set[str]()
    for name in sorted(names & set(package())):
        for node in ast.walk(tree(package()[name])):
            if isinstance(node, ast.Call):
                looked_up |= {codec for codec in codecs_of(node) if codec.startswith("utf-16")}
    assert {f"encodings.{codec.replace('-', '_')}" for codec in looked_up} <= names
    assert "utf-16-be" in looked_up, "no longer needed in the image"


def test_the_list_is_made_by_a_clean_interpreter() -> None:
    """Nothing of this process' own imports is in it."""
    assert "pytest" in sys.modules
    assert not {"pytest", "site", "json"} & loaded(ALL_KINDS)
    assert ROOT in next(
        m.origin for m in modules.needed(frozenset(), measure=False) if m.name == "keyquorum.unlock.main"
    )
