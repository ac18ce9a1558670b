# SPDX-License-Identifier: Apache-2.0
"""The owner's private key on this machine: an Ed25519 key as PKCS#8 PEM, readable by root only (docs/token.md §5)."""

from __future__ import annotations

import os

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from keyquorum.envelope.signing import Owner
from keyquorum.errors import KeyquorumError, MalformedError
from keyquorum.linux import atomic_file

_MAX_FILE = 16 * 1024


def load_or_create(path: str) -> tuple[Owner, bool]:
    """Return the owner, and whether the key was made just now."""
    try:
        return load(path), False
    except FileNotFoundError:
        private = Ed25519PrivateKey.generate()
        if atomic_file.create(path, pem(private)):
            return Owner(private), True
        return load(path), False  # another enrolment made one meanwhile, and signed with it


def pem(private: Ed25519PrivateKey) -> bytes:
    """Return a private key as its file has it."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load(path: str) -> Owner:
    """Read the key; `FileNotFoundError` when there is none, `MalformedError` when it is not one."""
    return Owner(load_private(path))


def load_private(path: str) -> Ed25519PrivateKey:
    """Read a private key, of an owner or of anybody else who signs; raises as `load` does."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            data = file.read(_MAX_FILE)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyquorumError(f"{path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise MalformedError(path, "", f"is readable by others (mode {mode:o})", f"chmod 600 {path}")
    try:
        private = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise MalformedError(path, "", "is not an unencrypted private key in PEM") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise MalformedError(path, "", "is not an Ed25519 key")
    return private
