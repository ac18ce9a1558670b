# SPDX-License-Identifier: Apache-2.0
"""The URI that names a key on a token (RFC 7512), as strictly as it can be read (docs/holders-pkcs11.md §2)."""

from __future__ import annotations

from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from keyquorum.model.strict_json import ErrorType

MAX_URI = 1024
_SCHEME = "pkcs11:"
_UNESCAPED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:[]@!$'()*+,=&")
_HEX = frozenset("0123456789abcdefABCDEF")
_TEXTS = {"token": 32, "manufacturer": 32, "model": 16, "serial": 16, "object": 255}  # bytes, as PKCS#11 stores them
_MAX_ID = 255
_NEVER = {
    "pin-value": "a PIN is asked for, never stored",
    "pin-source": "a PIN is asked for; give it as a credential",
    "module-path": "modules come from the settings of the machine",
    "module-name": "modules come from the settings of the machine",
}


class KeyUri(Record):
    """What a URI says; an empty text, empty id and slot -1 say nothing. `slot` is the module's number of the slot."""

    token: str = ""
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    object: str = ""
    id: bytes = b""
    slot: int = -1

    def fits(self, *, slot: int, token: str, manufacturer: str, model: str, serial: str) -> bool:
        """Say whether a token with these texts is one that the URI means."""
        pairs = (
            (self.token, token),
            (self.manufacturer, manufacturer),
            (self.model, model),
            (self.serial, serial),
        )
        return all(wanted in {"", found} for wanted, found in pairs) and self.slot in {-1, slot}

    def key_words(self) -> str:
        """Return what names the key, for people."""
        words = [f'"{self.object}"'] if self.object else []
        words += [f"with id {self.id.hex()}"] if self.id else []
        return "key " + " ".join(words) if words else "key"


def parse(text: str, what: str, error: ErrorType) -> KeyUri:
    """Read a URI; raises `error` naming `what` and the attribute."""

    def fail(attribute: str, problem: str) -> NoReturn:
        raise error(what, attribute, problem)

    if not text.startswith(_SCHEME):
        fail("", "must start with pkcs11: (RFC 7512)")
    if len(text) > MAX_URI:
        fail("", f"is longer than {MAX_URI} characters")
    path, question, query = text.removeprefix(_SCHEME).partition("?")
    if question:
        name = query.partition("=")[0]
        fail(name[:40], _NEVER.get(name, "is not accepted after the question mark"))
    found: dict[str, bytes] = {}
    for part in path.split(";") if path else ():
        name, equals, value = part.partition("=")
        if name in _NEVER:
            fail(name, _NEVER[name])
        if name not in {*_TEXTS, "id", "slot-id", "type"}:
            fail(name[:40], "is not known here")
        if name in found:
            fail(name, "occurs twice")
        decoded = _decode(value)
        if not equals or not decoded:
            fail(name, "has no value, or one that RFC 7512 does not allow unescaped")
        found[name] = decoded
    if found.pop("type", b"private") != b"private":
        fail("type", "must be private: the fragment is opened with the private key")
    texts = {}
    for name, longest in _TEXTS.items():
        texts[name] = _text(found.pop(name, b""), longest)
        if texts[name] is None:
            fail(name, f"must be at most {longest} bytes of printable UTF-8")
    key_id, slot = found.pop("id", b""), found.pop("slot-id", b"")
    if len(key_id) > _MAX_ID:
        fail("id", f"is longer than {_MAX_ID} bytes")
    if slot and not (slot.isdigit() and len(slot) <= 18):
        fail("slot-id", "must be a number")
    return KeyUri(id=key_id, slot=int(slot) if slot else -1, **{name: text or "" for name, text in texts.items()})


def _decode(value: str) -> bytes:
    """Undo percent-encoding; an empty result means that something is wrong (RFC 3986 §2.1, RFC 7512 §2.3)."""
    decoded, at = bytearray(), 0
    while at < len(value):
        if value[at] == "%":
            digits = value[at + 1 : at + 3]
            if len(digits) != 2 or not _HEX.issuperset(digits):
                return b""
            decoded.append(int(digits, 16))
            at += 3
        elif value[at] in _UNESCAPED:
            decoded.append(ord(value[at]))
            at += 1
        else:
            return b""
    return bytes(decoded)


def _text(value: bytes, longest: int) -> str | None:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if len(value) <= longest and (text.isprintable() or not text) else None
