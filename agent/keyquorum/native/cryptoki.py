# SPDX-License-Identifier: Apache-2.0
"""PKCS#11 modules (OASIS PKCS #11 2.40): the calls that a key holder needs, on addresses of locked memory.

A thin binding of our own instead of a library: docs/decisions/0020-own-pkcs11-binding.md. What a module answers is
not trusted: sizes are capped, texts are shown only in printable form.
"""

from __future__ import annotations

import _thread
import ctypes

from keyquorum.errors import KeyquorumError
from keyquorum.native import cryptoki_abi as abi
from keyquorum.native.library import ADDRESS
from keyquorum.record import Record
from keyquorum.secret import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

_MAX_SLOTS, _MAX_FOUND, _MAX_ATTRIBUTE = 1024, 64, 16 * 1024


class CallError(KeyquorumError):
    """A module refused a call; `code` is its CKR_ value."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"C_{call}: {abi.WORDS.get(code, 'error')} (0x{code:x})")
        self.code = code


class Token(Record):
    """A token that is present, with the texts it shows."""

    slot: int
    label: str
    manufacturer: str
    model: str
    serial: str
    flags: int


_loaded: dict[str, Module] = {}
_loading = _thread.allocate_lock()


def load(path: str) -> Module:
    """Load a module, or return the one that is; raises `KeyquorumError`. A name without slash is searched for."""
    with _loading:
        if path not in _loaded:
            _loaded[path] = Module(path)
        return _loaded[path]


class Module:
    """A loaded module. Use it as a context manager: it is initialised as long as anybody is inside."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._users, self._ours, self._lock = 0, False, _thread.allocate_lock()
        try:
            library = ctypes.CDLL(path)
            entry = library["C_GetFunctionList"]
        except (OSError, AttributeError) as problem:
            raise KeyquorumError(f"the PKCS#11 module {path} cannot be loaded: {problem}") from None
        table = ADDRESS()
        entry.restype, entry.argtypes = abi.ULONG, (ADDRESS,)
        code = entry(ctypes.byref(table))
        if code or not table.value:
            raise CallError("GetFunctionList", code)
        functions = abi.FunctionList.from_address(table.value)
        self._functions = {
            name: ctypes.CFUNCTYPE(abi.ULONG, *arguments)(getattr(functions, name))
            for name, arguments in abi.ARGUMENTS.items()
            if getattr(functions, name)
        }
        self._library = library

    def call(self, name: str, *arguments: object, accept: tuple[int, ...] = ()) -> int:
        """Make a call; raises `CallError` unless it answers OK or one of `accept`. Returns the answer."""
        function = self._functions.get(name)
        code = abi.CKR_FUNCTION_NOT_SUPPORTED if function is None else int(function(*arguments))
        if code and code not in accept:
            raise CallError(name, code)
        return code

    def __enter__(self) -> Self:
        with self._lock:
            if not self._users:
                arguments = abi.InitializeArguments(flags=abi.CKF_OS_LOCKING_OK)
                answer = self.call(
                    "Initialize", ctypes.byref(arguments), accept=(abi.CKR_CRYPTOKI_ALREADY_INITIALIZED,)
                )
                self._ours = answer == 0
            self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._ours:
                self.call("Finalize", None)

    def tokens(self) -> list[Token]:
        """Return the initialised tokens that are present."""
        count = abi.ULONG()
        self.call("GetSlotList", 1, None, ctypes.byref(count))  # some modules look for new tokens only here
        slots = (abi.ULONG * min(count.value, _MAX_SLOTS))()
        count.value = len(slots)
        self.call("GetSlotList", 1, slots, ctypes.byref(count))
        found = (self.token(slot) for slot in slots[: min(count.value, len(slots))])
        return [token for token in found if token is not None]

    def token(self, slot: int) -> Token | None:
        """Return the token in a slot; None when it is gone, not initialised or not readable."""
        info = abi.TokenInfo()
        try:
            self.call("GetTokenInfo", slot, ctypes.byref(info))
        except CallError:
            return None
        if not info.flags & abi.CKF_TOKEN_INITIALIZED:
            return None
        return Token(
            slot=slot,
            label=_text(info.label),
            manufacturer=_text(info.manufacturer),
            model=_text(info.model),
            serial=_text(info.serial),
            flags=info.flags,
        )


def _text(field: Any) -> str:
    """Read a padded text field as it may be shown; some tokens pad with zeros instead of spaces."""
    text = bytes(field).rstrip(b" \x00").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


class Session:
    """A read-only session with a token; logged in between `login` and the end of the `with` block."""

    def __init__(self, module: Module, slot: int) -> None:
        self._module, self._logged_in = module, False
        handle = abi.ULONG()
        module.call("OpenSession", slot, abi.CKF_SERIAL_SESSION, None, None, ctypes.byref(handle))
        self._handle = handle.value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for call in ("Logout", "CloseSession") if self._logged_in else ("CloseSession",):
            try:
                self._call(call)
            except CallError:  # the token was pulled: there is no session any more
                continue

    def _call(self, name: str, *arguments: object, accept: tuple[int, ...] = ()) -> int:
        return self._module.call(name, self._handle, *arguments, accept=accept)

    def login(self, pin: Secret | None) -> None:
        """Log in with a PIN, or with None at the token's own keypad."""
        self._logged_in = not self._login(abi.CKU_USER, pin)

    def _login(self, user: int, pin: Secret | None) -> int:
        address, size = (pin.address, pin.size) if pin else (None, 0)
        return self._call("Login", user, address, size, accept=(abi.CKR_USER_ALREADY_LOGGED_IN,))

    def find(self, kind: int, label: bytes = b"", key_id: bytes = b"") -> list[int]:
        """Return the objects of a class, with this label and id if they are given."""
        wanted: list[tuple[int, bytes]] = [(abi.CKA_CLASS, _number(kind))]
        wanted += [(abi.CKA_LABEL, label)] if label else []
        wanted += [(abi.CKA_ID, key_id)] if key_id else []
        template = _template(*wanted)
        found, count = (abi.ULONG * _MAX_FOUND)(), abi.ULONG()
        self._call("FindObjectsInit", template, len(wanted))
        try:
            self._call("FindObjects", found, _MAX_FOUND, ctypes.byref(count))
        finally:
            self._call("FindObjectsFinal")
        return list(found[: min(count.value, _MAX_FOUND)])

    def attribute(self, thing: int, kind: int) -> bytes | None:
        """Return a public attribute; None when the object has none, or does not show it."""
        row = abi.Attribute(kind, None, 0)
        try:
            self._call("GetAttributeValue", thing, ctypes.byref(row), 1)
            if row.size == abi.UNAVAILABLE or row.size > _MAX_ATTRIBUTE:
                return None
            room = ctypes.create_string_buffer(row.size + 1)
            row.value = ctypes.addressof(room)
            self._call("GetAttributeValue", thing, ctypes.byref(row), 1)
        except CallError:
            return None
        return room.raw[: row.size] if row.size < len(room) else None

    def number(self, thing: int, kind: int) -> int:
        """Return a number attribute; -1 when there is none."""
        value = self.attribute(thing, kind)
        return abi.ULONG.from_buffer_copy(value).value if value and len(value) == ctypes.sizeof(abi.ULONG) else -1

    def flag(self, thing: int, kind: int, *, default: bool) -> bool:
        """Return a true-or-false attribute; `default` when there is none."""
        value = self.attribute(thing, kind)
        return default if value is None or len(value) != 1 else value != b"\x00"

    def decrypt_oaep(self, key: int, digest: int, mgf: int, sealed: bytes, pin: Secret | None) -> Secret:
        """Decrypt by RSA-OAEP on the token; `pin` is given again to keys that want it for every use."""
        parameters = abi.OaepParameters(digest, mgf, abi.CKZ_DATA_SPECIFIED, None, 0)
        mechanism = abi.Mechanism(abi.CKM_RSA_PKCS_OAEP, ctypes.addressof(parameters), ctypes.sizeof(parameters))
        again = self.flag(key, abi.CKA_ALWAYS_AUTHENTICATE, default=False)
        self._call("DecryptInit", ctypes.byref(mechanism), key)
        if again:
            self._login(abi.CKU_CONTEXT_SPECIFIC, pin)
        size = abi.ULONG(len(sealed))
        with Secret(len(sealed)) as room:
            self._call("Decrypt", sealed, len(sealed), room.address, ctypes.byref(size))
            return room.part(0, min(size.value, room.size))

    def derive_ecdh(self, key: int, public: bytes, size: int) -> Secret:
        """Agree on a secret of `size` bytes with a public point, on the token, and fetch it."""
        parameters = abi.EcdhParameters(abi.CKD_NULL, 0, None, len(public), public)
        mechanism = abi.Mechanism(abi.CKM_ECDH1_DERIVE, ctypes.addressof(parameters), ctypes.sizeof(parameters))
        rows = (
            (abi.CKA_CLASS, _number(abi.CKO_SECRET_KEY)),
            (abi.CKA_KEY_TYPE, _number(abi.CKK_GENERIC_SECRET)),
            (abi.CKA_TOKEN, b"\x00"),
            (abi.CKA_PRIVATE, b"\x00"),
            (abi.CKA_SENSITIVE, b"\x00"),
            (abi.CKA_EXTRACTABLE, b"\x01"),
            (abi.CKA_VALUE_LEN, _number(size)),
        )
        template, derived = _template(*rows), abi.ULONG()
        self._call("DeriveKey", ctypes.byref(mechanism), key, template, len(rows), ctypes.byref(derived))
        shared = Secret(size)
        row = abi.Attribute(abi.CKA_VALUE, shared.address, size)
        try:
            self._call("GetAttributeValue", derived.value, ctypes.byref(row), 1)
        except CallError:
            shared.wipe()
            raise
        finally:
            self._call("DestroyObject", derived.value)
        if row.size != size:
            shared.wipe()
            raise CallError("DeriveKey", abi.CKR_DATA_LEN_RANGE)
        return shared


def _number(value: int) -> bytes:
    return bytes(abi.ULONG(value))


def _template(*rows: tuple[int, bytes]) -> Any:
    """Build CK_ATTRIBUTE rows; the array keeps what they point to alive."""
    rooms = [ctypes.create_string_buffer(value, len(value)) for _, value in rows]
    template = (abi.Attribute * len(rows))()
    for row, room, (kind, value) in zip(template, rooms, rows, strict=True):
        row.kind, row.value, row.size = kind, ctypes.addressof(room), len(value)
    template.rooms = rooms  # type: ignore[attr-defined]  # ctypes arrays take attributes, typeshed does not say so
    return template
