# SPDX-License-Identifier: Apache-2.0
"""Finding a token and its key, and logging in, with words for everything that stops it (docs/holders-pkcs11.md §4)."""

from __future__ import annotations

import _thread
import time

from keyquorum.errors import HolderError, KeyquorumError, RefusedError, UnavailableError
from keyquorum.model import pkcs11_key
from keyquorum.native import cryptoki
from keyquorum.native import cryptoki_abi as abi
from keyquorum.native.cryptoki import CallError, Module, Session, Token
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from keyquorum.holders.contract import Answers
    from keyquorum.model.pkcs11_uri import KeyUri
    from keyquorum.secret import Secret

PROXY = "p11-kit-proxy.so"
WELL_KNOWN = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "opensc-pkcs11.so",
    "libtpm2_pkcs11.so.1",
)
_GONE = (abi.CKR_DEVICE_REMOVED, abi.CKR_TOKEN_NOT_PRESENT)
_WRONG_PIN = (abi.CKR_PIN_INCORRECT, abi.CKR_PIN_INVALID, abi.CKR_PIN_LEN_RANGE)
_UNLOCK_HINT = "unlock it with the security officer's PIN (PUK), for instance by pkcs11-tool --init-pin"
_F4 = b"\x01\x00\x01"  # the public exponent of every RSA key whose token does not show it

_locks: dict[tuple[str, int], _thread.LockType] = {}
_locks_lock = _thread.allocate_lock()


class Place(Record):
    """A token that is present, and the module that reaches it."""

    module: Module
    token: Token

    def words(self) -> str:
        """Name the token for people."""
        return f'token "{self.token.label}" (serial {self.token.serial})'


class Key(Record):
    """A key object; `public` is its SubjectPublicKeyInfo, empty when the token does not show it."""

    handle: int
    key_id: bytes
    public: bytes

    @property
    def fingerprint(self) -> str:
        """The public key's fingerprint, "" when it is not known."""
        return pkcs11_key.fingerprint(self.public) if self.public else ""


class Modules:
    """The modules to look for tokens in, initialised as long as the `with` block lasts.

    Without configured paths that is p11-kit's proxy, which knows all that are installed, or else the well known ones.
    What does not work is noted in `problems`, since another module may have the token.
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        self.problems: list[str] = []
        self._paths, self._entered = paths, list[Module]()

    def __enter__(self) -> Self:
        if self._paths:
            self._enter(*self._paths)
        else:
            self._enter(PROXY)
            if not self._entered:
                self._enter(*WELL_KNOWN)
                if self._entered:
                    self.problems = []
        return self

    def _enter(self, *paths: str) -> None:
        for path in paths:
            try:
                self._entered.append(cryptoki.load(path).__enter__())
            except KeyquorumError as problem:
                self.problems.append(problem.message)

    def __exit__(self, *_: object) -> None:
        for module in self._entered:
            try:
                module.__exit__()
            except CallError:  # it cannot be put away; nothing depends on that
                continue

    def places(self, uri: KeyUri) -> list[Place]:
        """Return the tokens that the URI may mean; one that several modules reach is there once."""
        found: dict[tuple[str, ...], Place] = {}
        for module in self._entered:
            try:
                tokens = module.tokens()
            except CallError as problem:
                self.problems.append(f"{module.path}: {problem.message}")
                continue
            for token in tokens:
                texts = {"manufacturer": token.manufacturer, "model": token.model, "serial": token.serial}
                if uri.fits(slot=token.slot, token=token.label, **texts):
                    found.setdefault((token.label, *texts.values()), Place(module=module, token=token))
        return list(found.values())

    def nothing_fits(self, uri: str) -> UnavailableError:
        """Return the error for a token that is not there."""
        return UnavailableError("; ".join((f"no token that is attached fits {uri}", *self.problems)))


def find_keys(session: Session, kind: int, uri: KeyUri) -> list[Key]:
    """Return the keys of a class (CKO_) that the URI names. A private key gets the public part stored beside it."""
    found = []
    for handle in session.find(kind, uri.object.encode(), uri.id):
        key_id = session.attribute(handle, abi.CKA_ID) or b""
        public = _public_key(session, handle)
        if not public and key_id:
            beside = (_public_key(session, other) for other in session.find(abi.CKO_PUBLIC_KEY, b"", key_id))
            public = next((shown for shown in beside if shown), b"")
        found.append(Key(handle=handle, key_id=key_id, public=public))
    return found


def _public_key(session: Session, handle: int) -> bytes:
    kind = session.number(handle, abi.CKA_KEY_TYPE)
    if kind == abi.CKK_RSA:
        modulus = session.attribute(handle, abi.CKA_MODULUS)
        exponent = session.attribute(handle, abi.CKA_PUBLIC_EXPONENT) or _F4
        return pkcs11_key.rsa_public_key(modulus, exponent) if modulus else b""
    curve = pkcs11_key.curve_of(session.attribute(handle, abi.CKA_EC_PARAMS)) if kind == abi.CKK_EC else None
    point = pkcs11_key.point_of(session.attribute(handle, abi.CKA_EC_POINT), curve) if curve else None
    return pkcs11_key.ec_public_key(curve, point) if curve and point else b""


class Login:
    """A session with the user logged in, alone on this token in this process; `pin` is None where none is needed."""

    def __init__(self, place: Place, name: str, answers: Answers, deadline: float) -> None:
        self._place, self._name, self._answers, self._deadline = place, name, answers, deadline
        self.pin: Secret | None = None

    def __enter__(self) -> Self:
        place = self._place
        if place.token.flags & abi.CKF_LOGIN_REQUIRED and not place.token.flags & abi.CKF_PROTECTED_AUTHENTICATION_PATH:
            self.pin = self._ask()
        self._lock = _lock_of(place)
        if not self._lock.acquire(timeout=max(0.0, self._deadline - time.monotonic())):
            self._wipe()
            raise UnavailableError(f"{place.words()} is busy with another fragment")
        try:
            self.session = Session(place.module, place.token.slot)
        except CallError as problem:
            self._leave()
            raise failure(place, problem) from None
        try:
            if place.token.flags & abi.CKF_LOGIN_REQUIRED:
                self.session.login(self.pin)
        except CallError as problem:
            self.session.__exit__()
            refusal = failure(place, problem)
            self._leave()
            raise refusal from None
        return self

    def __exit__(self, *_: object) -> None:
        self.session.__exit__()
        self._leave()

    def _leave(self) -> None:
        self._lock.release()
        self._wipe()

    def _wipe(self) -> None:
        if self.pin:
            self.pin.wipe()

    def _ask(self) -> Secret:
        """Get the PIN, but never let a stored one use up the last try: a boot loop would lock the token."""
        flags, words = self._place.token.flags, self._place.words()
        if flags & abi.CKF_USER_PIN_LOCKED:
            raise RefusedError(f"the PIN of {words} is locked", _UNLOCK_HINT)
        last = bool(flags & abi.CKF_USER_PIN_FINAL_TRY)
        if last and self._answers.ready(self._name):
            raise RefusedError(
                f"{words} has one try left before its PIN locks, and the stored PIN may be the wrong one",
                "log in once by hand, for instance by pkcs11-tool --login, and correct the stored PIN",
            )
        warning = (
            ", last try before it locks" if last else ", a wrong one was tried before" if _wrong_before(flags) else ""
        )
        return self._answers.ask(self._name, f"PIN of {words} for {self._name}{warning}")


def _wrong_before(flags: int) -> bool:
    return bool(flags & abi.CKF_USER_PIN_COUNT_LOW)


def _tries_left(flags: int) -> str:
    """Say after a wrong PIN what the token tells about its counter, as the end of a sentence."""
    if flags & abi.CKF_USER_PIN_LOCKED:
        return ", and locked now"
    if flags & abi.CKF_USER_PIN_FINAL_TRY:
        return ", and one try is left before it locks"
    return "; the token counts wrong tries" if _wrong_before(flags) else ""


def failure(place: Place, problem: CallError) -> HolderError:
    """Turn a refused call into the answer of the holder."""
    words, code = place.words(), problem.code
    if code in _GONE:
        return UnavailableError(f"{words} was removed")
    if code in _WRONG_PIN:
        now = place.module.token(place.token.slot)
        flags = now.flags if now else 0
        hint = _UNLOCK_HINT if flags & abi.CKF_USER_PIN_LOCKED else ""
        return RefusedError(f"the PIN of {words} is wrong{_tries_left(flags)}", hint)
    if code == abi.CKR_PIN_LOCKED:
        return RefusedError(f"the PIN of {words} is locked", _UNLOCK_HINT)
    if code == abi.CKR_PIN_EXPIRED:
        return RefusedError(f"the PIN of {words} has expired", "set a new one with the token's own tools")
    if code == abi.CKR_USER_PIN_NOT_INITIALIZED:
        return RefusedError(f"{words} has no user PIN yet", "set one with the token's own tools")
    return UnavailableError(f"{words} fails: {problem.message}")


def _lock_of(place: Place) -> _thread.LockType:
    """Logging in and out is for the whole process, so one token serves one fragment at a time."""
    with _locks_lock:
        return _locks.setdefault((place.module.path, place.token.slot), _thread.allocate_lock())
