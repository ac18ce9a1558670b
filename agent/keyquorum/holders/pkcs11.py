# SPDX-License-Identifier: Apache-2.0
"""Holder `pkcs11`: the private key of a token or HSM opens the identity (docs/holders-pkcs11.md).

The token keeps nothing of ours. The identity is wrapped to its public key, and only the token, with its PIN, gets it
back; the private key never leaves it.
"""

from __future__ import annotations

import time

from keyquorum.envelope.identity_wrapping import WRAPPED_SIZE, unwrap_identity, wrap_identity
from keyquorum.errors import KeyquorumError, MalformedError, RefusedError, TamperingError, UnavailableError
from keyquorum.holders import pkcs11_agreement as agreement
from keyquorum.holders.contract import Held, OpenTask, SealTask
from keyquorum.holders.pkcs11_token import Key, Login, Modules, Place, failure, find_keys
from keyquorum.model import pkcs11_uri, strict_json
from keyquorum.model.fields import Fields
from keyquorum.native import cryptoki_abi as abi
from keyquorum.native.cryptoki import CallError, Session
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from keyquorum.model.pkcs11_uri import KeyUri
    from keyquorum.secret import Identity

_VERSION = 1
_ENROLMENT_SECONDS = 600.0
_MAX_ENCAPSULATED = 2048
_WITH_PIN, _WITH_KEYPAD, _WITHOUT = "pin", "keypad", "none"


class _Where(Record):
    """What the signed set says about the token's part."""

    text: str
    uri: KeyUri
    mechanism: str
    encapsulated: bytes
    wrapped: bytes
    fingerprint: str
    serial: str


class Pkcs11Holder:
    """See the contract in `holders.contract`."""

    keeps_envelope = False

    def needs_person(self, where: Mapping[str, Any]) -> bool:
        """A token without login needs nobody; every other one a PIN."""
        return where.get("login") != _WITHOUT

    def seal(self, task: SealTask) -> dict[str, Any]:
        """Wrap the identity to the token's public key; raises `UsageError` when the key is not fit for it."""
        from keyquorum.holders import pkcs11_sealing as sealing

        text = task.options.uri
        uri = pkcs11_uri.parse(text, "policy", MalformedError)
        with Modules(task.tuning.pkcs11_modules) as modules:
            place = sealing.choose_place(modules, uri, text)
            deadline = time.monotonic() + _ENROLMENT_SECONDS
            try:
                with Login(place, task.subject.name, task.answers, deadline) as login:
                    key = sealing.choose_key(login.session, place, uri)
                    sealed = sealing.seal_to(login, key)
            except CallError as problem:
                raise failure(place, problem) from None
        bound = agreement.binding(task.subject, sealed.mechanism, key.fingerprint, sealed.encapsulated)
        with sealed.material as material:
            wrapped = wrap_identity(material, task.identity, agreement.KIND, bound)
        return {
            "version": _VERSION,
            "uri": text,
            "mechanism": sealed.mechanism,
            "encapsulated": strict_json.to_base64(sealed.encapsulated),
            "wrapped": strict_json.to_base64(wrapped),
            "key": key.fingerprint,
            "serial": place.token.serial or "-",
            "login": _login_kind(place.token.flags),
        }

    def open(self, task: OpenTask) -> Held:
        """Find the token that has the key, log in and have it unwrap."""
        where = _read_where(task.where)
        with Modules(task.tuning.pkcs11_modules) as modules:
            place = _choose_place(modules, where)
            try:
                with Login(place, task.subject.name, task.answers, task.deadline) as login:
                    return Held(identity=_unwrap(login, place, where, task))
            except CallError as problem:
                raise failure(place, problem) from None

    def erase(self, task: OpenTask) -> None:
        """A token keeps nothing of ours."""

    def retire(self, task: OpenTask) -> None:
        """A token keeps nothing of ours."""


def _login_kind(flags: int) -> str:
    if not flags & abi.CKF_LOGIN_REQUIRED:
        return _WITHOUT
    return _WITH_KEYPAD if flags & abi.CKF_PROTECTED_AUTHENTICATION_PATH else _WITH_PIN


def _read_where(where: dict[str, Any]) -> _Where:
    fields = Fields(where, "set", TamperingError, "where")
    fields.version(_VERSION)
    text = fields.text("uri", longest=pkcs11_uri.MAX_URI)
    found = _Where(
        text=text,
        uri=pkcs11_uri.parse(text, "set", TamperingError),
        mechanism=fields.choice("mechanism", agreement.MECHANISMS),
        encapsulated=fields.data("encapsulated", longest=_MAX_ENCAPSULATED),
        wrapped=fields.data("wrapped", size=WRAPPED_SIZE),
        fingerprint=fields.hexadecimal("key", 32).hex(),
        serial=fields.text("serial"),
    )
    fields.choice("login", (_WITH_PIN, _WITH_KEYPAD, _WITHOUT))
    fields.finish()
    return found


def _choose_place(modules: Modules, where: _Where) -> Place:
    """Return the token to log in to, before any PIN is used: the one that shows the enrolled public key.

    A token that shows none under this name is taken only if its serial number is the enrolled one, so that a PIN is
    never tried on a token that merely carries the same label.
    """
    matching: list[Place] = []
    other: list[tuple[Place, Key]] = []
    silent: list[Place] = []
    for place in modules.places(where.uri):
        try:
            with Session(place.module, place.token.slot) as session:
                shown = [key for key in find_keys(session, abi.CKO_PUBLIC_KEY, where.uri) if key.public]
        except CallError as problem:
            modules.problems.append(f"{place.words()}: {problem.message}")
            continue
        if any(key.fingerprint == where.fingerprint for key in shown):
            matching.append(place)
        elif shown:
            other.append((place, shown[0]))
        else:
            silent.append(place)
    same = [place for place in (*matching, *silent) if place.token.serial == where.serial]
    if same or matching:
        return (same or matching)[0]
    if other:
        raise _other_key(other[0][0], where, other[0][1].fingerprint)
    if silent:
        raise UnavailableError(
            f"no token shows the {where.uri.key_words()}: {', '.join(place.words() for place in silent)} attached, "
            f"enrolled was serial {where.serial}"
        )
    raise modules.nothing_fits(where.text)


def _unwrap(login: Login, place: Place, where: _Where, task: OpenTask) -> Identity:
    keys = find_keys(login.session, abi.CKO_PRIVATE_KEY, where.uri)
    if not keys:
        raise UnavailableError(f"{place.words()} has no private {where.uri.key_words()}")
    fitting = [key for key in keys if key.fingerprint in {"", where.fingerprint}]
    if not fitting:
        raise _other_key(place, where, keys[0].fingerprint)
    bound = agreement.binding(task.subject, where.mechanism, where.fingerprint, where.encapsulated)
    reason = "it decrypts to something else"
    for key in fitting:
        try:
            material = agreement.agree(login.session, key.handle, where.mechanism, where.encapsulated, login.pin)
        except CallError as problem:
            answer = failure(place, problem)
            if isinstance(answer, RefusedError) or problem.code == abi.CKR_DEVICE_REMOVED:
                raise answer from None
            reason = problem.message
            continue
        with material:
            identity = unwrap_identity(material, where.wrapped, agreement.KIND, bound)
        if identity is not None:
            return identity
    raise RefusedError(f"the {where.uri.key_words()} on {place.words()} does not open this fragment: {reason}")


def _other_key(place: Place, where: _Where, found: str) -> KeyquorumError:
    return RefusedError(
        f"the {where.uri.key_words()} on {place.words()} is another one than was enrolled: "
        f"its fingerprint is {found[:16]}…, enrolled was {where.fingerprint[:16]}…",
        "attach the token that was enrolled, or enrol this one",
    )


HOLDER = Pkcs11Holder()
