# SPDX-License-Identifier: Apache-2.0
"""Holder `passphrase`: a person knows what opens the identity (docs/holders-people.md §2)."""

from __future__ import annotations

import os

from keyquorum.envelope.identity_wrapping import WRAPPED_SIZE, unwrap_identity, wrap_identity
from keyquorum.errors import KeyquorumError, RefusedError, TamperingError, UnavailableError, UsageError
from keyquorum.holders.contract import Held, OpenTask, SealTask
from keyquorum.model import strict_json
from keyquorum.model.fields import Fields
from keyquorum.native import sodium
from keyquorum.secret import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from keyquorum.holders.contract import Subject

MIN_LENGTH, GOOD_LENGTH = 8, 12  # characters
_VERSION = 1
_KIND = "passphrase"
_SALT_SIZE = 16
_MIB = 1 << 20
_MAX_MEMORY, _MAX_PASSES = 4096, 100  # as a policy may ask for (model.holder_options)
_MEMORY_FACTS = "/proc/meminfo"


class PassphraseHolder:
    """See the contract in `holders.contract`."""

    keeps_envelope = False

    def needs_person(self, _where: Mapping[str, Any]) -> bool:
        """Somebody has to type it, or a credential to hold it."""
        return True

    def seal(self, task: SealTask) -> dict[str, Any]:
        """Ask for a new passphrase and wrap the identity under it; raises `UsageError` when it is too short."""
        options, name = task.options, task.subject.name
        _check_memory(options.memory, name)
        with task.answers.ask_new(name, f"new passphrase for {name}") as passphrase:
            for warning in _judge(passphrase, name):
                task.show(warning)
            salt = os.urandom(_SALT_SIZE)
            with _stretch(passphrase, salt, options.passes, options.memory, name) as material:
                wrapped = wrap_identity(material, task.identity, _KIND, _binding(task.subject))
        return {
            "version": _VERSION,
            "salt": strict_json.to_base64(salt),
            "memory": options.memory,
            "passes": options.passes,
            "wrapped": strict_json.to_base64(wrapped),
        }

    def open(self, task: OpenTask) -> Held:
        """Ask for the passphrase and unwrap."""
        fields, name = Fields(task.where, "set", TamperingError, "where"), task.subject.name
        fields.version(_VERSION)
        salt = fields.data("salt", size=_SALT_SIZE)
        memory, passes = fields.integer("memory", 8, _MAX_MEMORY), fields.integer("passes", 1, _MAX_PASSES)
        wrapped = fields.data("wrapped", size=WRAPPED_SIZE)
        fields.finish()
        _check_memory(memory, name)
        with (
            task.answers.ask(name, f"passphrase for {name}") as passphrase,
            _stretch(passphrase, salt, passes, memory, name) as material,
        ):
            identity = unwrap_identity(material, wrapped, _KIND, _binding(task.subject))
        if identity is None:
            hint = "mind the keyboard layout of the console"
            raise RefusedError(f"the passphrase for {name} is wrong", hint, mistyped=True)
        return Held(identity=identity)

    def erase(self, task: OpenTask) -> None:
        """Nothing is kept outside the set."""

    def retire(self, task: OpenTask) -> None:
        """Nothing is kept outside the set."""


def _binding(subject: Subject) -> dict[str, str]:
    """Return what the wrapped identity is bound to; not to the epoch, so a rotation needs no passphrase."""
    return {"volume": subject.volume, "set": subject.set_id.hex(), "name": subject.name}


def _judge(passphrase: Secret, name: str) -> list[str]:
    """Refuse a passphrase that is too short; return warnings about one that is weak."""
    view = passphrase.view
    length = sum(1 for byte in view if byte & 0xC0 != 0x80)  # characters of UTF-8
    if length < MIN_LENGTH:
        raise UsageError(
            f"the passphrase for {name} has {length} characters, fewer than {MIN_LENGTH}",
            "four or more random words are easy to remember and hard to guess",
        )
    warnings = []
    if length < GOOD_LENGTH:
        warnings.append(f"the passphrase for {name} is short: {GOOD_LENGTH} characters or more are better")
    if len(set(view)) < 5:
        warnings.append(f"the passphrase for {name} has very few different characters")
    if any(byte & 0x80 for byte in view):
        warnings.append(
            f"the passphrase for {name} is not plain ASCII: it must be typed exactly alike on the console of the boot"
        )
    return warnings


def _stretch(passphrase: Secret, salt: bytes, passes: int, memory: int, name: str) -> Secret:
    try:
        return sodium.argon2id(passphrase, salt, passes, memory * _MIB, Secret)
    except KeyquorumError as problem:
        raise UnavailableError(f"the passphrase for {name} cannot be tried: {problem.message}") from None


def _check_memory(memory: int, name: str) -> None:
    """Refuse before the kernel's out-of-memory killer does: it would end the whole unlock (I3)."""
    available = _available_memory()
    if 0 <= available < memory:
        raise UnavailableError(
            f"the passphrase for {name} needs {memory} MiB of memory to be tried, {available} MiB are free"
        )


def _available_memory() -> int:
    """Return the MiB that can be had without swapping (proc(5), MemAvailable); -1 when nobody says."""
    try:
        with open(_MEMORY_FACTS, "rb") as file:
            rows = dict(line.split(b":", 1) for line in file.read(1 << 16).splitlines() if b":" in line)
        return int(rows[b"MemAvailable"].split()[0]) >> 10
    except (OSError, KeyError, ValueError, IndexError):
        return -1


HOLDER = PassphraseHolder()
