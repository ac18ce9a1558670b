# SPDX-License-Identifier: Apache-2.0
"""libcryptsetup: one context for one LUKS2 header, with its messages kept for the person who must read them."""

from __future__ import annotations

import ctypes
import errno
import os

from keyquorum.errors import KeyquorumError, TamperingError
from keyquorum.native import libc
from keyquorum.native.library import ADDRESS, INT, SIZE, TEXT, function, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from keyquorum.secret import VolumeKey

_LIB = load(("libcryptsetup.so.12",), "libcryptsetup12")
_LOG = ctypes.CFUNCTYPE(None, INT, TEXT, ADDRESS)
_LOG_ERROR = 1
_U32 = ctypes.c_uint32

_init = function(_LIB, "crypt_init_data_device", INT, ADDRESS, TEXT, TEXT)
_free = function(_LIB, "crypt_free", None, ADDRESS)
_set_log = function(_LIB, "crypt_set_log_callback", None, ADDRESS, _LOG, ADDRESS)
_load = function(_LIB, "crypt_load", INT, ADDRESS, TEXT, ADDRESS)
_uuid = function(_LIB, "crypt_get_uuid", TEXT, ADDRESS)
_dump = function(_LIB, "crypt_dump_json", INT, ADDRESS, ADDRESS, _U32)
_status = function(_LIB, "crypt_status", INT, ADDRESS, TEXT)
_activate = function(_LIB, "crypt_activate_by_volume_key", INT, ADDRESS, TEXT, ADDRESS, SIZE, _U32)
_verify = function(_LIB, "crypt_volume_key_verify", INT, ADDRESS, ADDRESS, SIZE)

LUKS2 = b"LUKS2"
ACTIVATE_READONLY = 1 << 0
ACTIVATE_ALLOW_DISCARDS = 1 << 3
ACTIVATE_SAME_CPU_CRYPT = 1 << 6
ACTIVATE_SUBMIT_FROM_CRYPT_CPUS = 1 << 7
_ACTIVATE_KEYRING_KEY = 1 << 11
ACTIVATE_NO_READ_WORKQUEUE = 1 << 24
ACTIVATE_NO_WRITE_WORKQUEUE = 1 << 25
_UUID_LETTERS, _UUID_SIZE = frozenset("0123456789abcdefABCDEF-"), 36
_ACTIVE, _BUSY = 2, 3  # crypt_status_info


# What the library says without a context would go straight to standard error.
_keep_quiet = _LOG(lambda _level, _message, _context: None)
_set_log(None, _keep_quiet, None)


class Header:
    """A loaded LUKS2 header. Use it as a context manager.

    `metadata_path` is where the header is read (and, for enrolment, written); `data_path` the encrypted device.
    """

    def __init__(self, metadata_path: str, data_path: str) -> None:
        self.data_path = data_path
        self._messages: list[str] = []
        self._callback = _LOG(self._on_message)  # kept alive: the library calls it until crypt_free
        handle = ADDRESS()
        result = _init(ctypes.byref(handle), os.fsencode(metadata_path), os.fsencode(data_path))
        self.handle = handle.value or 0
        if result < 0:
            raise self.failure(f"{data_path} cannot be opened", result)
        _set_log(self.handle, self._callback, None)

    def _on_message(self, level: int, message: bytes, _context: object) -> None:
        if level == _LOG_ERROR:
            self._messages.append(message.decode("utf-8", "replace").strip())

    def failure(self, what: str, result: int, hint: str = "") -> KeyquorumError:
        """Return an error for a negative result, with what the library said."""
        said = "; ".join(dict.fromkeys(self._messages)) or os.strerror(-result)
        self._messages.clear()
        return KeyquorumError(f"{what}: {said.rstrip('.')}", hint)

    def load(self) -> None:
        """Read and check the header; raises `TamperingError` when it is not an intact LUKS2 one."""
        result = _load(self.handle, LUKS2, None)
        if result < 0:
            said = self.failure("", result).message.lstrip(": ")
            raise TamperingError("LUKS2 header", "", f"of {self.data_path} cannot be read ({said})")
        if not _UUID_LETTERS.issuperset(self.uuid) or len(self.uuid) != _UUID_SIZE:  # files are named after it
            raise TamperingError("LUKS2 header", "uuid", "is not a UUID")

    @property
    def uuid(self) -> str:
        """The volume's UUID."""
        return str((_uuid(self.handle) or b"").decode("ascii", "replace"))

    def metadata(self) -> bytes:
        """Return the JSON metadata as it was loaded."""
        text = TEXT()
        result = _dump(self.handle, ctypes.byref(text), 0)
        if result < 0 or text.value is None:
            raise self.failure("the header's metadata cannot be read", result)
        return text.value

    def verify(self, volume_key: VolumeKey) -> None:
        """Check a volume key against the header's digest without opening anything."""
        result = _verify(self.handle, volume_key.address, volume_key.size)
        if result < 0:
            self._messages.clear()
            raise TamperingError("volume key", "digest", "is not the key of this header")

    def activate(self, name: str, volume_key: VolumeKey, flags: int) -> None:
        """Map the volume as `name`, the key loaded into the kernel keyring; the digest is verified on the way.

        dm-crypt has taken its copy when this returns. The library leaves the key, whole, in the thread's keyring, where
        it would stay as long as this process.
        """
        try:
            result = _activate(
                self.handle, os.fsencode(name), volume_key.address, volume_key.size, flags | _ACTIVATE_KEYRING_KEY
            )
        finally:
            _forget_loaded_key()
        if result == -errno.EPERM:
            self._messages.clear()
            raise TamperingError("volume key", "digest", "is not the key of this header")
        if result < 0 and result != -errno.EEXIST:
            raise self.failure(f"{self.data_path} cannot be mapped as {name}", result)

    def close(self) -> None:
        """Free the context; the library wipes what it knew of keys."""
        if self.handle:
            _free(self.handle)
            self.handle = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _forget_loaded_key() -> None:
    try:
        libc.clear_thread_keyring()
    except OSError:  # a kernel without keyrings: then nothing is in one
        return


def is_active(name: str) -> bool:
    """Say whether a mapping of this name exists."""
    return _status(None, os.fsencode(name)) in {_ACTIVE, _BUSY}


def link_volume_key(header: Header, keyring: str, kind: str, description: str) -> None:
    """Ask for the volume key to be linked into a keyring at activation (cryptsetup 2.7 and later)."""
    try:
        set_link = function(_LIB, "crypt_set_keyring_to_link", INT, ADDRESS, TEXT, TEXT, TEXT, TEXT)
    except AttributeError:
        raise KeyquorumError(
            "linking the volume key into a keyring needs cryptsetup 2.7 or later", "leave --link-key out"
        ) from None
    result = set_link(header.handle, description.encode(), None, kind.encode(), keyring.encode())
    if result < 0:
        raise header.failure(f"the volume key cannot be linked to {keyring}", result)
