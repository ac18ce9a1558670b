# SPDX-License-Identifier: Apache-2.0
"""A private copy of a LUKS2 header: read once, checked, and then the one that is used (I5, docs/boot.md §4).

An attacker who controls the disk could answer the checking read with one header and the using read with another.
The copy lives in a memfd; nothing is read from the device's header again.
"""

from __future__ import annotations

import errno
import os

from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.linux.cryptsetup import Header

_MAGIC, _SECOND_MAGIC = b"LUKS\xba\xbe", b"SKUL\xba\xbe"
_VERSION = b"\x00\x02"
_SIZES = tuple(1 << shift for shift in range(14, 23))  # 16 KiB to 4 MiB, for each of the two copies
_AREA = 2 * _SIZES[-1] + (128 << 20)  # the most a header and its keyslots may span; all but the header is a hole


def copy_header(device: str, header_device: str = "") -> Header:
    """Copy the header of `device` (or the detached one on `header_device`) and load the copy.

    Raises `UsageError` for something that is not LUKS2, `TamperingError` for a LUKS2 header that is not intact.
    """
    source = header_device or device
    try:
        raw = _read(source)
    except FileNotFoundError:
        raise UsageError(f"{source} does not exist") from None
    except OSError as error:
        hint = "run this as root" if error.errno in {errno.EACCES, errno.EPERM} else ""
        raise KeyquorumError(f"{source} cannot be read: {error.strerror}", hint) from None
    copy = os.memfd_create("luks2-header", os.MFD_CLOEXEC)
    try:
        os.ftruncate(copy, _AREA)
        written = 0
        while written < len(raw):
            written += os.pwrite(copy, raw[written:], written)
        header = _PrivateHeader(copy, device)
    except OSError as error:
        os.close(copy)
        raise KeyquorumError(f"no memory for a copy of the header: {error.strerror}") from None
    except KeyquorumError:
        os.close(copy)
        raise
    try:
        header.load()
    except KeyquorumError:
        header.close()
        raise
    return header


def holds_luks(device: str) -> bool:
    """Say whether a device has a LUKS header of any version, or at least the second copy of one; raises OSError."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = [os.pread(descriptor, len(_MAGIC), at) for at in (0, *_SIZES)]
    finally:
        os.close(descriptor)
    return found[0] == _MAGIC or _SECOND_MAGIC in found[1:]


class _PrivateHeader(Header):
    """A header whose metadata device is a memfd that lives as long as the context: the library opens it again."""

    def __init__(self, descriptor: int, device: str) -> None:
        self._descriptor = descriptor
        super().__init__(f"/proc/self/fd/{descriptor}", device)

    def close(self) -> None:
        """Free the context and the copy."""
        super().close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _read(source: str) -> bytes:
    """Read both header copies; when the primary one names no size, the most they can span."""
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        first = os.pread(descriptor, 4096, 0)
        size = int.from_bytes(first[8:16], "big")
        if first[:6] == _MAGIC and first[6:8] != _VERSION:
            raise UsageError(f"{source} is LUKS version {int.from_bytes(first[6:8], 'big')}, not 2", _CONVERT)
        intact = first[:8] == _MAGIC + _VERSION and size in _SIZES
        wanted = 2 * size if intact else 2 * _SIZES[-1]
        pieces, have = [first], len(first)
        while have < wanted:
            piece = os.pread(descriptor, min(1 << 20, wanted - have), have)
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
    finally:
        os.close(descriptor)
    raw = b"".join(pieces)
    if not intact and not any(raw[at : at + 6] == _SECOND_MAGIC for at in _SIZES):
        raise UsageError(f"{source} is not a LUKS2 volume", "see what it is: blkid " + source)
    return raw


_CONVERT = "convert it first: cryptsetup convert --type luks2"
