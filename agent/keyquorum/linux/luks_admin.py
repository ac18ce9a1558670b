# SPDX-License-Identifier: Apache-2.0
"""What enrolment does to a LUKS2 header: tokens, keyslots, new volumes. The boot never imports this."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import sys

from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.linux import cryptsetup
from keyquorum.linux.cryptsetup import Header
from keyquorum.linux.private_header import copy_header
from keyquorum.native.library import ADDRESS, INT, SIZE, TEXT, function, load
from keyquorum.secret import Secret, VolumeKey

_LIB = load(("libcryptsetup.so.12",), "libcryptsetup12")
_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64

_token_set = function(_LIB, "crypt_token_json_set", INT, ADDRESS, INT, TEXT)
_key_size = function(_LIB, "crypt_get_volume_key_size", INT, ADDRESS)
_key_get = function(_LIB, "crypt_volume_key_get", INT, ADDRESS, INT, ADDRESS, ADDRESS, ADDRESS, SIZE)
_slot_add = function(_LIB, "crypt_keyslot_add_by_key", INT, ADDRESS, INT, ADDRESS, SIZE, ADDRESS, SIZE, _U32)
_slot_destroy = function(_LIB, "crypt_keyslot_destroy", INT, ADDRESS, INT)
_set_pbkdf = function(_LIB, "crypt_set_pbkdf_type", INT, ADDRESS, ADDRESS)
_set_sizes = function(_LIB, "crypt_set_metadata_size", INT, ADDRESS, _U64, _U64)
_get_sizes = function(_LIB, "crypt_get_metadata_size", INT, ADDRESS, ADDRESS, ADDRESS)
_format = function(_LIB, "crypt_format", INT, ADDRESS, TEXT, TEXT, TEXT, TEXT, ADDRESS, SIZE, ADDRESS)

ANY = -1
_MAX_KEY = 512
_NO_BENCHMARK = 1 << 1
_METADATA_SIZE = 64 * 1024  # for volumes made here: room for many fragments, a stock header has 16 KiB
_KEYSLOTS_SIZE = (16 << 20) - 2 * _METADATA_SIZE
NEW_KEY_SIZE = 64
_BINARY_HEADER = 4096
_BLKROGET = 0x125E


class _Pbkdf(ctypes.Structure):
    """struct crypt_pbkdf_type."""

    _fields_ = (
        ("type", TEXT),
        ("hash", TEXT),
        ("time_ms", _U32),
        ("iterations", _U32),
        ("max_memory_kb", _U32),
        ("parallel_threads", _U32),
        ("flags", _U32),
    )


class _Luks2Parameters(ctypes.Structure):
    """struct crypt_params_luks2."""

    _fields_ = (
        ("pbkdf", ADDRESS),
        ("integrity", TEXT),
        ("integrity_params", ADDRESS),
        ("data_alignment", SIZE),
        ("data_device", TEXT),
        ("sector_size", _U32),
        ("label", TEXT),
        ("subsystem", TEXT),
    )


_CHEAP = _Pbkdf(b"pbkdf2", b"sha256", 0, 1000, 0, 0, _NO_BENCHMARK)


def open_header(device: str, header_device: str = "") -> Header:
    """Load the header itself, for writing, after a private copy of it was found to be one (`copy_header` raises)."""
    path = header_device or device
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _refuse_read_only(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise KeyquorumError(f"{path} is read-only", "make it writable, then try again") from None
        raise UsageError(f"{path} cannot be opened: {error.strerror}") from None
    copy_header(device, header_device).close()
    header = Header(path, device)
    try:
        header.load()
    except KeyquorumError:
        header.close()
        raise
    return header


def _refuse_read_only(descriptor: int) -> None:
    """Raise OSError for a block device that is read-only: the kernel lets root open it for writing all the same."""
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        answer = fcntl.ioctl(descriptor, _BLKROGET, bytes(4))
        if int.from_bytes(answer, sys.byteorder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def set_token(header: Header, token: bytes, number: int = ANY) -> int:
    """Write a token; libcryptsetup replaces one header copy after the other, so a power cut leaves one intact."""
    result = int(_token_set(header.handle, number, token))
    if result < 0:
        raise header.failure("the LUKS2 token cannot be written", result)
    return result


def remove_token(header: Header, number: int) -> None:
    """Remove a token."""
    result = _token_set(header.handle, number, None)
    if result < 0:
        raise header.failure(f"token {number} cannot be removed", result)


def volume_key_by_passphrase(header: Header, passphrase: Secret) -> VolumeKey:
    """Return the volume key of the keyslot that a passphrase or key file opens."""
    size = SIZE(_MAX_KEY)
    with Secret(_MAX_KEY) as buffer:
        result = _key_get(header.handle, ANY, buffer.address, ctypes.byref(size), passphrase.address, passphrase.size)
        if result < 0:
            error = header.failure("no keyslot opens with this passphrase or key file", result)
            raise KeyquorumError("no keyslot opens with this passphrase or key file", error.message.partition(": ")[2])
        return VolumeKey.from_view(buffer.view[: size.value])


def add_keyslot(header: Header, volume_key: VolumeKey, passphrase: Secret, *, cheap: bool) -> int:
    """Add a keyslot; `cheap` for a machine's random passphrase, which stretching would only slow down."""
    if cheap:
        _set_pbkdf(header.handle, ctypes.byref(_CHEAP))
    result = int(
        _slot_add(header.handle, ANY, volume_key.address, volume_key.size, passphrase.address, passphrase.size, 0)
    )
    if result < 0:
        raise header.failure("a keyslot cannot be added", result)
    return result


def remove_keyslot(header: Header, number: int) -> None:
    """Destroy a keyslot."""
    result = _slot_destroy(header.handle, number)
    if result < 0:
        raise header.failure(f"keyslot {number} cannot be removed", result)


def format_volume(device: str, volume_key: VolumeKey) -> None:
    """Make a LUKS2 volume of `device`: AES-256-XTS, a large token area, a cheap digest, and no keyslot.

    The volume key is random, so a slow digest would protect nothing and cost every unlock.
    """
    header = Header(device, device)
    try:
        _set_sizes(header.handle, _METADATA_SIZE, _KEYSLOTS_SIZE)
        parameters = _Luks2Parameters(pbkdf=ctypes.addressof(_CHEAP))
        result = _format(
            header.handle,
            cryptsetup.LUKS2,
            b"aes",
            b"xts-plain64",
            None,
            volume_key.address,
            volume_key.size,
            ctypes.byref(parameters),
        )
        if result < 0:
            raise header.failure(f"{device} cannot be formatted", result)
    finally:
        header.close()


def key_size(header: Header) -> int:
    """Return the volume key's size in bytes, or 0 when no keyslot tells."""
    return max(0, int(_key_size(header.handle)))


def metadata_area(header: Header) -> int:
    """Return how many bytes of JSON the header has room for in all."""
    metadata, keyslots = _U64(0), _U64(0)
    result = _get_sizes(header.handle, ctypes.byref(metadata), ctypes.byref(keyslots))
    if result < 0:
        raise header.failure("the header's size cannot be read", result)
    return int(metadata.value) - _BINARY_HEADER
