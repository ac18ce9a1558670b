# SPDX-License-Identifier: Apache-2.0
"""Where a network service is: `name:port`, `192.0.2.7:port`, `[2001:db8::7]:port` or `vsock:cid:port`. Pure.

docs/custodian.md §7, docs/holders-enclave.md §5.
"""

from __future__ import annotations

from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.model.fields import Fields

MAX_ADDRESSES = 8
MAX_NAME = 128  # of a custodian, which is its DNS name; longer DNS names exist, the protocol's messages have no room
_MAX_TEXT = 280
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_HEX = frozenset("0123456789abcdef")
NAME, IPV4, IPV6, VSOCK = "name", "IPv4", "IPv6", "vsock"
_MOST_VSOCK = 0xFFFF_FFFE  # CID and port; the number above it means any


class Endpoint(Record):
    """A host and a port. `kind` says what `host` is: a DNS name, an address, or a machine's number (vsock's CID)."""

    host: str
    port: int
    kind: str

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        if self.kind == VSOCK:
            return f"vsock:{self.host}:{self.port}"
        return f"[{self.host}]:{self.port}" if self.kind == IPV6 else f"{self.host}:{self.port}"


def parse(text: str) -> Endpoint | None:
    """Read an address; None for what is none. Only lower case, so that each has one spelling."""
    if text.startswith("vsock:"):
        return _vsock(*text.split(":")[1:])
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or port != str(int(port[:6])):
        return None
    if not 1 <= int(port) <= 65535 or len(text) > _MAX_TEXT:
        return None
    if host[:1] == "[" and host[-1:] == "]":
        return Endpoint(host=host[1:-1], port=int(port), kind=IPV6) if _is_ipv6(host[1:-1]) else None
    if _is_ipv4(host):
        return Endpoint(host=host, port=int(port), kind=IPV4)
    return Endpoint(host=host, port=int(port), kind=NAME) if is_dns_name(host) else None


def _vsock(*numbers: str) -> Endpoint | None:
    """Read CID and port (vsock(7)), both 32 bits."""
    plain = all(number.isascii() and number.isdecimal() and number == str(int(number[:11])) for number in numbers)
    if len(numbers) != 2 or not plain or not all(0 < int(number) <= _MOST_VSOCK for number in numbers):
        return None
    return Endpoint(host=numbers[0], port=int(numbers[1]), kind=VSOCK)


def is_dns_name(text: str) -> bool:
    """Say whether a text is a DNS name in lower case (RFC 1123 §2.1), which no number at its end may be."""
    labels = text.split(".")
    return (
        len(text) <= 253
        and all(0 < len(x) <= 63 and _LABEL.issuperset(x) and "-" not in {x[0], x[-1]} for x in labels)
        and not labels[-1].isdecimal()
    )


def take(fields: Fields, name: str) -> tuple[Endpoint, ...]:
    """Read a list of 1 to `MAX_ADDRESSES` addresses."""
    found = []
    for index, text in enumerate(fields.rows(name, most=MAX_ADDRESSES)):
        endpoint = parse(text) if isinstance(text, str) else None
        if endpoint is None:
            fields.fail(
                f"{name}[{index}]",
                "must be a name or an address and a port, like custodian.example:4433, or vsock:2:4433",
            )
        found.append(endpoint)
    if not found:
        fields.fail(name, "is empty")
    if len(set(found)) != len(found):
        fields.fail(name, "names an address twice")
    return tuple(found)


def _is_ipv4(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(
        part.isascii() and part.isdecimal() and len(part) <= 3 and str(int(part)) == part and int(part) <= 255
        for part in parts
    )


def _is_ipv6(text: str) -> bool:
    """RFC 4291 §2.2, without the form that ends in an IPv4 address and without zones."""
    head, gap, tail = text.partition("::")
    groups = [*(head.split(":") if head else []), *(tail.split(":") if tail else [])]
    enough = len(groups) <= 7 if gap else len(groups) == 8
    return enough and all(0 < len(group) <= 4 and _HEX.issuperset(group) for group in groups)
