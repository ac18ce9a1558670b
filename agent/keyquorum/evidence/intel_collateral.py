# SPDX-License-Identifier: Apache-2.0
"""Intel's collateral: TCB Info and QE Identity in JSON, signed over their exact bytes (docs/attestation-intel.md §3).

Intel SGX and Intel TDX Provisioning Certification Service API, version 4: TCB Info version 3, Enclave Identity
version 2. Readers know every field; a field that nobody knows might mean anything, so it is refused.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from keyquorum.errors import TamperingError
from keyquorum.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_JSON = 256 * 1024
STATUSES = (
    "UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate",
    "OutOfDateConfigurationNeeded", "Revoked",
)  # fmt: skip
_ENCLAVE_STATUSES = ("UpToDate", "OutOfDate", "Revoked")
_MAX_LEVELS = 64
_MAX_MODULES = 32
_MAX_ADVISORIES = 128
_COMPONENTS = 16
# Collateral counts for a month and comes with every quote of a kind of platform: the same bytes are read once. They are
# not believed once: the signature over them is verified, and their time is judged, for every quote.
_REMEMBERED = 8
_COMPONENT_FIELDS = frozenset({"svn", "category", "type"})
_HEX = frozenset("0123456789abcdefABCDEF")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class IsvLevel:
    """A level of an enclave or of a TDX module: from this security version on it has this status."""

    svn: int
    status: str
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbLevel:
    """A level of a platform: from these security versions on. `tdx` is empty in TCB Info of SGX."""

    sgx: tuple[int, ...]
    pcesvn: int
    tdx: tuple[int, ...]
    status: str
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleIdentity:
    """Which TDX module counts: its signer and attributes under a mask, and its levels. `name` is "" for the default."""

    name: str
    mrsigner: bytes
    attributes: bytes
    mask: bytes
    levels: tuple[IsvLevel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """What both kinds have: `kind` (their `id`), from when and to before when they count, and which recovery it is."""

    kind: str
    issued: int
    next_update: int
    evaluation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """The levels of all platforms with one FMSPC. `module` and `modules` are there in TCB Info of TDX."""

    issue: Issue
    fmspc: bytes
    pce_id: bytes
    module: ModuleIdentity | None
    modules: tuple[ModuleIdentity, ...]
    levels: tuple[TcbLevel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveIdentity:
    """What a quoting enclave must be, and its levels."""

    issue: Issue
    miscselect: bytes
    miscselect_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isvprodid: int
    levels: tuple[IsvLevel, ...]


@lru_cache(maxsize=_REMEMBERED)
def parse_tcb_info(data: bytes, what: str) -> TcbInfo:
    """Read TCB Info; `TamperingError` names the field. What was read is remembered, see `_REMEMBERED`."""
    fields = _table(data, what)
    issue = _issue(fields, 3)
    fmspc, pce_id = _hexadecimal(fields, "fmspc", 6), _hexadecimal(fields, "pceId", 2)
    fields.integer("tcbType", 0, 0)
    tdx = issue.kind == "TDX"
    module = _module(fields.table("tdxModule"), named=False) if tdx else None
    with_modules = tdx and "tdxModuleIdentities" in fields.names()  # before TDX 1.5 there was only the default one
    modules = _rows(fields, "tdxModuleIdentities", _MAX_MODULES, _named_module) if with_modules else ()
    levels = _rows(fields, "tcbLevels", _MAX_LEVELS, lambda row: _level(row, tdx=tdx))
    fields.finish()
    if len({one.name for one in modules}) != len(modules):
        fields.fail("tdxModuleIdentities", "has one module twice")
    return TcbInfo(issue=issue, fmspc=fmspc, pce_id=pce_id, module=module, modules=modules, levels=levels)


@lru_cache(maxsize=_REMEMBERED)
def parse_identity(data: bytes, what: str) -> EnclaveIdentity:
    """Read an Enclave Identity; `TamperingError` names the field."""
    fields = _table(data, what)
    found = EnclaveIdentity(
        issue=_issue(fields, 2),
        miscselect=_hexadecimal(fields, "miscselect", 4),
        miscselect_mask=_hexadecimal(fields, "miscselectMask", 4),
        attributes=_hexadecimal(fields, "attributes", 16),
        attributes_mask=_hexadecimal(fields, "attributesMask", 16),
        mrsigner=_hexadecimal(fields, "mrsigner", 32),
        isvprodid=fields.integer("isvprodid", 0, 0xFFFF),
        levels=_rows(fields, "tcbLevels", _MAX_LEVELS, _isv_level),
    )
    fields.finish()
    return found


def _table(data: bytes, what: str) -> Fields:
    return Fields.read(data, what, MAX_JSON, TamperingError)


def _issue(fields: Fields, version: int) -> Issue:
    kind = fields.text("id")
    fields.version(version)
    return Issue(
        kind=kind,
        issued=_instant(fields, "issueDate"),
        next_update=_instant(fields, "nextUpdate"),
        evaluation=fields.integer("tcbEvaluationDataNumber", 0, 1 << 31),
    )


def _instant(fields: Fields, name: str) -> int:
    """Take an instant in the one form that Intel writes, in seconds since 1970."""
    value = fields.text(name)
    try:
        found = dt.datetime.fromisoformat(value)
    except ValueError:
        fields.fail(name, "is no instant")
    if found.isoformat() != value.removesuffix("Z") + "+00:00":
        fields.fail(name, "is no instant as it should be written")
    return int(found.timestamp())


def _hexadecimal(fields: Fields, name: str, size: int) -> bytes:
    """Take bytes in hexadecimal digits of either case."""
    value = fields.take(name)
    if not isinstance(value, str) or len(value) != 2 * size or not _HEX.issuperset(value):
        fields.fail(name, f"must be {2 * size} hexadecimal digits")
    return bytes.fromhex(value)


def _rows(fields: Fields, name: str, most: int, read: Callable[[Fields], _T]) -> tuple[_T, ...]:
    found = []
    for index, item in enumerate(fields.rows(name, most=most)):
        row = fields.row(name, index, item)
        found.append(read(row))
        row.finish()
    if not found:
        fields.fail(name, "is empty")
    return tuple(found)


def _module(fields: Fields, *, named: bool) -> ModuleIdentity:
    found = ModuleIdentity(
        name=fields.text("id", longest=16) if named else "",
        mrsigner=_hexadecimal(fields, "mrsigner", 48),
        attributes=_hexadecimal(fields, "attributes", 8),
        mask=_hexadecimal(fields, "attributesMask", 8),
        levels=_rows(fields, "tcbLevels", _MAX_LEVELS, _isv_level) if named else (),
    )
    fields.finish()
    return found


def _named_module(fields: Fields) -> ModuleIdentity:
    return _module(fields, named=True)


def _isv_level(fields: Fields) -> IsvLevel:
    tcb = fields.table("tcb")
    svn = tcb.integer("isvsvn", 0, 0xFFFF)
    tcb.finish()
    return IsvLevel(svn=svn, status=_status(fields, _ENCLAVE_STATUSES), advisories=_advisories(fields))


def _level(fields: Fields, *, tdx: bool) -> TcbLevel:
    tcb = fields.table("tcb")
    found = TcbLevel(
        sgx=_components(tcb, "sgxtcbcomponents"),
        pcesvn=tcb.integer("pcesvn", 0, 0xFFFF),
        tdx=_components(tcb, "tdxtcbcomponents") if tdx else (),
        status=_status(fields, STATUSES),
        advisories=_advisories(fields),
    )
    tcb.finish()
    return found


def _components(fields: Fields, name: str) -> tuple[int, ...]:
    rows = fields.rows(name, most=_COMPONENTS)
    if len(rows) != _COMPONENTS:
        fields.fail(name, f"has {len(rows)} components, not {_COMPONENTS}")
    return tuple(_component(fields, name, index, row) for index, row in enumerate(rows))


def _component(fields: Fields, name: str, index: int, row: Any) -> int:
    """Read one of the hundreds of components of TCB Info, without a reader for each."""
    problem = ""
    if type(row) is not dict or not row.keys() <= _COMPONENT_FIELDS:
        problem = "must be a table of svn, and perhaps category and type"
    elif type(svn := row.get("svn")) is not int or not 0 <= svn <= 255:
        problem = "svn must be a whole number from 0 to 255"
    elif len(row) > 1 and not (type(row.get("category", "")) is type(row.get("type", "")) is str):
        problem = "category and type must be texts"
    if problem:
        fields.fail(f"{name}[{index}]", problem)
    found: int = row["svn"]
    return found


def _status(fields: Fields, statuses: tuple[str, ...]) -> str:
    _instant(fields, "tcbDate")
    return fields.choice("tcbStatus", statuses)


def _advisories(fields: Fields) -> tuple[str, ...]:
    if "advisoryIDs" not in fields.names():
        return ()
    rows: list[Any] = fields.rows("advisoryIDs", most=_MAX_ADVISORIES)
    return tuple(fields.row("advisoryIDs", index, {"id": row}).text("id", longest=32) for index, row in enumerate(rows))
