# SPDX-License-Identifier: Apache-2.0
"""The machine's settings: one table gives name, reader, default and help; the man page is made from it.

The file is /etc/keyquorum/keyquorum.conf, lines of `name = value`, `#` starts a comment. A boot reads it too, so it
is not TOML: that parser would cost more than all the rest of the settings.
"""

from __future__ import annotations

import errno
import os

from keyquorum.errors import MalformedError
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DIRECTORY = "/etc/keyquorum"
FILE = DIRECTORY + "/keyquorum.conf"
_MAX_FILE = 64 * 1024


class Settings(Record):
    """What the table below reads. Times are in seconds."""

    holder_timeout: float
    unlock_timeout: float
    prompt_timeout: float
    linger: bool
    tpm_device: str
    pcr_signature: tuple[str, ...]
    pkcs11_module: tuple[str, ...]
    owner_key: str
    volumes: str
    reference: str
    machine: str
    custodian_timeout: float


class Row(Record):
    """One setting: how it is read, what it is without a file, and the sentence about it."""

    name: str
    read: Callable[[str], Any]
    default: str
    help: str


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise ValueError("must be seconds, from 0 to 86400")
    return value


def _flag(text: str) -> bool:
    if text not in {"yes", "no"}:
        raise ValueError("must be yes or no")
    return text == "yes"


def _path(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError("must be an absolute path")
    return text


def _tpm(text: str) -> str:
    """Read a device, or the address of an emulator (`linux.tpm_device`)."""
    return text if text.startswith("swtpm:") else _path(text)


def _paths(text: str) -> tuple[str, ...]:
    return tuple(_path(part) for part in text.split())


TABLE = (
    Row(
        name="holder_timeout",
        read=_seconds,
        default="5",
        help="how long one holder may take; it costs an unlock nothing if the others reach the quorum",
    ),
    Row(
        name="unlock_timeout",
        read=_seconds,
        default="20",
        help="how long an unlock may take before the ordinary passphrase prompt gets its turn",
    ),
    Row(
        name="prompt_timeout",
        read=_seconds,
        default="60",
        help="how long a question for a PIN, passphrase or sheet stays before the ordinary prompt gets its turn",
    ),
    Row(
        name="linger",
        read=_flag,
        default="yes",
        help="whether a boot goes on watching for holders while the ordinary passphrase prompt is up",
    ),
    Row(name="tpm_device", read=_tpm, default="/dev/tpmrm0", help="the TPM that is asked"),
    Row(
        name="pcr_signature",
        read=_paths,
        default="",
        help="files with signed PCR policies; without one, the places where systemd looks",
    ),
    Row(
        name="pkcs11_module",
        read=_paths,
        default="",
        help="PKCS#11 modules to load; without one, p11-kit's and the usual ones that are installed",
    ),
    Row(
        name="owner_key",
        read=_path,
        default=DIRECTORY + "/owner.key",
        help="the private key that signs sets and fragments; made at the first enrolment, never part of a boot image",
    ),
    Row(
        name="volumes",
        read=_path,
        default=DIRECTORY + "/volumes",
        help="the directory of trust anchors, one file for each volume",
    ),
    Row(
        name="reference",
        read=_path,
        default=DIRECTORY + "/reference",
        help="the directory of TPM event logs kept to explain refusals",
    ),
    Row(
        name="machine",
        read=_path,
        default=DIRECTORY + "/machine.json",
        help="what this machine shows to custodians: certificates, and a TLS key that only its TPM can unseal",
    ),
    Row(
        name="custodian_timeout",
        read=_seconds,
        default="15",
        help="how long one custodian may take, bringing up the network included; the prompt does not wait for it",
    ),
)


def parse(text: str, what: str = FILE) -> Settings:
    """Read the settings from a file's text; raises `MalformedError` naming the line."""
    rows = {row.name: row for row in TABLE}
    given: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#", 1)[0].strip()
        if not content:
            continue
        name, separator, value = (part.strip() for part in content.partition("="))
        if not separator or name not in rows:
            raise MalformedError(what, f"line {number}", f"{name!r} is no setting (see keyquorum.conf(5))")
        if name in given:
            raise MalformedError(what, f"line {number}", f"{name} is set twice")
        given[name] = value
    values = {}
    for row in TABLE:
        try:
            values[row.name] = row.read(given.get(row.name, row.default))
        except ValueError as error:
            raise MalformedError(what, row.name, str(error)) from None
    return Settings(**values)


def load() -> Settings:
    """Read the settings file, or the one that $KEYQUORUM_CONFIG names; a missing one means all defaults."""
    path = os.environ.get("KEYQUORUM_CONFIG", FILE)
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        data = b""
    except OSError as error:
        hint = "run this as root" if error.errno == errno.EACCES else ""
        raise MalformedError(path, "", f"cannot be read: {os.strerror(error.errno or 0)}", hint) from None
    if len(data) > _MAX_FILE:
        raise MalformedError(path, "", f"is larger than {_MAX_FILE} bytes")
    return parse(data.decode("utf-8", "replace"), path)
