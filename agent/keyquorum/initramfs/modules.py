# SPDX-License-Identifier: Apache-2.0
"""The Python part of a boot image: the interpreter, and compiled modules for exactly what the policies need.

Which modules those are is not a list kept by hand: a clean interpreter imports the program and says what it loaded.
"""

from __future__ import annotations

import json
import os
import py_compile
import sys

from keyquorum.linux import run
from keyquorum.record import Record

ROOT = "/usr/lib/keyquorum"

_CORE = (
    "keyquorum.unlock.main",
    "keyquorum.unlock.linger",
    "keyquorum.unlock.standby",
    "keyquorum.linux.prompt",
    "keyquorum.linux.prompt_withdrawal",
)
# What judges an enclave's evidence: the one thing at a boot that uses `cryptography` (decision 0054). The others are
# imported only when they are used: by its compiled part, and for names in certificates.
_APPRAISAL = (
    "keyquorum.holders.enclave_proof",
    "cryptography.hazmat.primitives.asymmetric.utils",
    "cryptography.x509",
    "encodings.utf_16_be",
)
# What each kind of holder loads beside its own file, and only when it is asked.
_TPM = (
    "keyquorum.holders.tpm",
    "keyquorum.holders.tpm_facts",
    "keyquorum.holders.tpm_pin",
    "keyquorum.holders.tpm_refusal",
    "keyquorum.holders.tpm_signatures",
    "keyquorum.tpm2.codes",
    "keyquorum.native.oaep",
)
_FOR_KIND = {
    "disk": ("keyquorum.holders.disk",),
    "tpm": _TPM,
    "pkcs11": ("keyquorum.holders.pkcs11",),
    "passphrase": ("keyquorum.holders.passphrase",),
    "sheet": ("keyquorum.holders.sheet",),
    "custodian": ("keyquorum.holders.custodian", "keyquorum.unlock.remote", *_TPM),
    "enclave": ("keyquorum.holders.enclave", "keyquorum.unlock.remote", *_TPM, *_APPRAISAL),
}
MEASUREMENT = ("keyquorum.tpm2.measurement",)
_TERMINAL = ("termios",)  # restores the echo when a question is withdrawn

_TRACE = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from importlib import import_module
for name in sys.argv[2:]:
    import_module(name)
for name, module in sorted(sys.modules.items()):
    spec = getattr(module, "__spec__", None)
    # cryptography puts proxies, which have no spec, in the place of modules of which something is deprecated
    origin = getattr(spec, "origin", None) if spec else getattr(module, "__file__", None)
    if name != "__main__" and origin and origin not in ("built-in", "frozen"):
        print(name, origin, "package" if spec and spec.submodule_search_locations is not None else "module")
import os
print("os", os.__file__, "module")
"""
_SECONDS = 60.0


class Loaded(Record):
    """A module that the program loads, and the file it came from."""

    name: str
    origin: str
    is_package: bool


def needed(kinds: frozenset[str], *, measure: bool) -> list[Loaded]:
    """Return every module that opening volumes with these kinds of holder loads."""
    roots = [*_CORE, *_TERMINAL, *(MEASUREMENT if measure else ())]
    for kind in sorted(kinds):
        roots += _FOR_KIND[kind]
    paths = ":".join(path for path in sys.path if path)
    output = run.run_checked(
        (sys.executable, "-I", "-S", "-B", "-c", _TRACE, paths, *roots), run.Limits(seconds=_SECONDS)
    )
    rows = [line.split(" ") for line in output.decode().splitlines()]
    return [Loaded(name=name, origin=origin, is_package=kind == "package") for name, origin, kind in rows]


def install(loaded: list[Loaded], destination: str) -> list[str]:
    """Compile modules into the image tree; return the shared objects, which the hook copies with their libraries."""
    shared = []
    for module in loaded:
        if module.origin.endswith(".so"):
            shared.append(module.origin)
            continue
        target = destination + os.path.splitext(module.origin)[0] + ".pyc"
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        py_compile.compile(
            module.origin,
            cfile=target,
            dfile=module.name,
            doraise=True,
            optimize=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    return shared


def roots(loaded: list[Loaded]) -> list[str]:
    """Return the directories, beside our own, in which packages of others lie that are loaded: for `sys.path`."""
    standard = {os.path.dirname(os.__file__), os.path.join(os.path.dirname(os.__file__), "lib-dynload")}
    found = []
    for module in loaded:
        if "." in module.name or module.name == "keyquorum":
            continue
        place = os.path.dirname(os.path.dirname(module.origin) if module.is_package else module.origin)
        if place not in standard:
            found.append(place)
    return list(dict.fromkeys(found))


def describe(loaded: list[Loaded]) -> str:
    """Return the list as JSON, for the test that pins what a boot may import."""
    return json.dumps([module.name for module in loaded])
