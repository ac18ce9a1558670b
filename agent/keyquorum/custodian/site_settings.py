# SPDX-License-Identifier: Apache-2.0
"""The custodian's settings, `custodian.toml` (docs/custodian.md §12): strict reading, and what `init` writes."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keyquorum.custodian import note, retention
from keyquorum.custodian.store_enrolment import LABELS
from keyquorum.errors import MalformedError
from keyquorum.linux.listening import VSOCK
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyquorum.custodian.note import VerifierKey

VERSION = 1
MAX_FILE = 64 * 1024
MOST_WORKERS = 64
NO_MONITOR = "none"
_MOST_NAMES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen. `host` is "vsock:CID" or "vsock:any" for AF_VSOCK."""

    host: str
    port: int

    def __str__(self) -> str:
        bracketed = ":" in self.host and not self.host.startswith(VSOCK)
        return f"[{self.host}]:{self.port}" if bracketed else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppraiserSettings:
    """An attestation service: where it is, its name, the Ed25519 key (32 bytes) that signs its results."""

    at: Address
    name: str
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessAt:
    """Where a witness is: its address, the name in its certificate, the file of its authority in the directory."""

    address: Address
    name: str
    authority: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """What the file says. `auditors` and `operators` have 32 bytes each: a key's SHA-256, an Ed25519 public key.

    `ask` says where witnesses are reached, by the names of their keys, `ask_every` after how many seconds.
    `keep_days` is for how long evidence and checkpoints of one's own are kept (`retention`).
    """

    origin: str
    listen: tuple[Address, ...]
    monitor: Address | None
    workers: int
    labels: Mapping[str, str]
    witnesses: tuple[VerifierKey, ...]
    logs: tuple[VerifierKey, ...]
    auditors: Mapping[str, bytes]
    operators: Mapping[str, bytes]
    unsafe_without_witnesses: bool
    keep_days: int = retention.DEFAULT_DAYS
    ask: Mapping[str, WitnessAt] = field(default_factory=dict)
    ask_every: int = 600
    appraiser: AppraiserSettings | None = None


def address(text: str, what: str = "the address") -> Address:
    """Read HOST:PORT, an IPv6 host in brackets, or vsock:CID:PORT; raises `MalformedError`."""
    host, colon, port = text.rpartition(":")
    if text.startswith(VSOCK):
        return _vsock_address(host, port, what)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    plain = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 1 << 16
    if not colon or not bare or not plain or (":" in bare) != (bare is not host and bare != host):
        raise MalformedError(what, "", f"{text!r} is not HOST:PORT (an IPv6 address stands in brackets)")
    return Address(host=bare, port=int(port))


def _vsock_address(host: str, port: str, what: str) -> Address:
    """Read what vsock(7) takes: a CID or "any", and a port, both of 32 bits."""
    cid = host.removeprefix(VSOCK)
    numbers = (port,) if cid == "any" else (cid, port)
    if not all(one.isascii() and one.isdecimal() and len(one) <= 10 and int(one) < 1 << 32 for one in numbers):
        raise MalformedError(what, "", f"{host}:{port} is not vsock:CID:PORT (CID may be any)")
    return Address(host=host, port=int(port))


def parse(data: bytes, what: str) -> SiteSettings:
    """Read the settings; raises `MalformedError` naming the field."""
    if len(data) > MAX_FILE:
        raise MalformedError(what, "", f"has more than {MAX_FILE} bytes")
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MalformedError(what, "", "is not TOML") from None
    fields = Fields(table, what, MalformedError)
    fields.version(VERSION)
    monitor = fields.text("monitor", longest=128)
    found = SiteSettings(
        origin=note.check_name(fields.text("origin", longest=128)),
        listen=tuple(address(text, what) for text in _texts(fields, "listen")),
        monitor=None if monitor == NO_MONITOR else address(monitor, what),
        workers=fields.integer("workers", 1, MOST_WORKERS),
        labels=_labels(fields.table("labels")),
        witnesses=tuple(note.parse_key(text) for text in _texts(fields, "witnesses")),
        logs=tuple(note.parse_key(text) for text in _texts(fields, "logs")),
        auditors=_keys(fields.table("auditors")),
        operators=_keys(fields.table("operators")),
        unsafe_without_witnesses=fields.flag("unsafe_without_witnesses"),
        ask=_ask(fields, what) if fields.has("ask") else {},
        ask_every=_optional(fields, "ask_every", 86400, 600),
        keep_days=_optional(fields, "keep_days", retention.MOST_DAYS, retention.DEFAULT_DAYS),
        appraiser=_appraiser(fields.table("appraiser"), what) if fields.has("appraiser") else None,
    )
    fields.finish()
    if not found.listen:
        fields.fail("listen", "is empty: nobody could ask")
    unknown = found.ask.keys() - {key.name for key in found.witnesses}
    if unknown:
        fields.fail("ask", f"{min(unknown)} is the name of no witness")
    return found


def _ask(fields: Fields, what: str) -> dict[str, WitnessAt]:
    given, found = fields.table("ask"), {}
    for name in given.names():
        row = given.table(name)
        found[name] = WitnessAt(
            address=address(row.text("at", longest=300), what),
            name=row.text("name", longest=253),
            authority=row.text("authority", longest=255),
        )
        row.finish()
    return found


def _optional(fields: Fields, name: str, most: int, default: int) -> int:
    """Take a number that the files of earlier versions do not have."""
    return fields.integer(name, 1, most) if fields.has(name) else default


def _texts(fields: Fields, name: str) -> list[str]:
    rows = fields.rows(name)
    return [fields.row(name, index, {"value": row}).text("value", longest=512) for index, row in enumerate(rows)]


def _labels(table: Fields) -> dict[str, str]:
    found = {name: table.text(name, longest=64) for name in LABELS if table.has(name)}
    table.finish()
    return found


def _appraiser(table: Fields, what: str) -> AppraiserSettings:
    found = AppraiserSettings(
        at=address(table.text("at", longest=128), what),
        name=note.check_name(table.text("name", longest=128)),
        key=table.hexadecimal("key", 32),
    )
    table.finish()
    return found


def _keys(table: Fields) -> dict[str, bytes]:
    names = table.names()
    if len(names) > _MOST_NAMES:
        table.fail("", f"has {len(names)} names, more than {_MOST_NAMES}")
    return {name: table.hexadecimal(name, 32) for name in names}


def serialise(settings: SiteSettings) -> bytes:
    """Write the file that `init` makes, in the order of the page."""
    monitor = NO_MONITOR if settings.monitor is None else str(settings.monitor)
    lines = [
        "# The settings of a keyquorum custodian: docs/custodian.md §12. SIGHUP has them read again.",
        f"version = {VERSION}",
        f"origin = {_quoted(settings.origin)}",
        f"listen = [{', '.join(_quoted(str(one)) for one in settings.listen)}]",
        f"monitor = {_quoted(monitor)}",
        f"workers = {settings.workers}",
        f"witnesses = [{', '.join(_quoted(str(key)) for key in settings.witnesses)}]",
        f"logs = [{', '.join(_quoted(str(key)) for key in settings.logs)}]",
        f"unsafe_without_witnesses = {'true' if settings.unsafe_without_witnesses else 'false'}",
        f"keep_days = {settings.keep_days}",
        f"ask_every = {settings.ask_every}",
    ]
    for name, rows in (
        ("labels", settings.labels),
        ("auditors", {name: key.hex() for name, key in settings.auditors.items()}),
        ("operators", {name: key.hex() for name, key in settings.operators.items()}),
    ):
        lines += ["", f"[{name}]", *(f"{_quoted(key)} = {_quoted(value)}" for key, value in rows.items())]
    for name, at in settings.ask.items():
        lines += ["", f"[ask.{_quoted(name)}]", f"at = {_quoted(str(at.address))}"]
        lines += [f"name = {_quoted(at.name)}", f"authority = {_quoted(at.authority)}"]
    if settings.appraiser is not None:
        service = settings.appraiser
        lines += ["", "[appraiser]", f"at = {_quoted(str(service.at))}", f"name = {_quoted(service.name)}"]
        lines.append(f"key = {_quoted(service.key.hex())}")
    return ("\n".join(lines) + "\n").encode()


def _quoted(text: str) -> str:
    """Write a basic string of TOML; what these values may hold needs no more than this."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
