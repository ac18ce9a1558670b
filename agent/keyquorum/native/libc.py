# SPDX-License-Identifier: Apache-2.0
"""The few calls of the C library that Python's standard library lacks, or costs an import for."""

from __future__ import annotations

import ctypes
import os

from keyquorum.native.library import ADDRESS, INT, SIZE, function

_LIBC = ctypes.CDLL(None, use_errno=True)
_LONG = ctypes.c_long

_syscall = _LIBC.syscall
_syscall.restype = _LONG
_mmap = function(_LIBC, "mmap", ADDRESS, ADDRESS, SIZE, INT, INT, INT, _LONG)
_munmap = function(_LIBC, "munmap", INT, ADDRESS, SIZE)
_mlock = function(_LIBC, "mlock", INT, ADDRESS, SIZE)
_mlockall = function(_LIBC, "mlockall", INT, INT)
_capget = function(_LIBC, "capget", INT, ADDRESS, ADDRESS)
_madvise = function(_LIBC, "madvise", INT, ADDRESS, SIZE, INT)
_prctl = function(_LIBC, "prctl", INT, INT, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_move = function(_LIBC, "memmove", ADDRESS, ADDRESS, ADDRESS, SIZE)
_zero = function(_LIBC, "explicit_bzero", None, ADDRESS, SIZE)
_klogctl = function(_LIBC, "klogctl", INT, INT, ADDRESS, INT)

_setrlimit = function(_LIBC, "setrlimit", INT, INT, ADDRESS)

_FAILED = ctypes.c_void_p(-1).value
_SYS_MEMFD_SECRET = 447  # the same number on every architecture since Linux 5.14
_PROT_READ_WRITE = 3
_MAP_SHARED, _MAP_PRIVATE, _MAP_ANONYMOUS = 0x01, 0x02, 0x20
_MADV_DONTFORK, _MADV_DONTDUMP = 10, 16
_PR_SET_DUMPABLE = 4
_RLIMIT_CORE = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_CAP_IPC_LOCK = 1 << 14
_SYS_KEYCTL = {"x86_64": 250, "ppc64le": 271, "s390x": 280}  # elsewhere the generic number
_SYS_KEYCTL_GENERIC = 219
_KEYCTL_CLEAR, _KEY_SPEC_THREAD_KEYRING = 7, -1


def last_error() -> OSError:
    """Return the error of the last call made through this module."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def system_call(number: int, *arguments: object) -> int:
    """Make a system call that the C library has no wrapper for; raises OSError."""
    result = int(_syscall(_LONG(number), *arguments))
    if result < 0:
        raise last_error()
    return result


def map_secret_memory(size: int) -> int:
    """Map `size` bytes of memfd_secret(2) memory: locked, absent from the kernel's direct map; raises OSError."""
    descriptor = system_call(_SYS_MEMFD_SECRET, INT(os.O_CLOEXEC))
    try:
        os.ftruncate(descriptor, size)
        return map_descriptor(descriptor, size, 0)
    finally:
        os.close(descriptor)


def map_locked_memory(size: int) -> tuple[int, bool]:
    """Map `size` bytes kept out of swap, core dumps and children; also say whether the lock was granted."""
    address = map_memory(size)
    locked = _mlock(address, size) == 0
    _madvise(address, size, _MADV_DONTDUMP)
    _madvise(address, size, _MADV_DONTFORK)
    return address, locked


def lock_everything() -> bool:
    """Keep all memory of this process out of swap, what it maps later included; say whether that was possible.

    Only with CAP_IPC_LOCK: without it the lock holds as long as there is room below a limit, and then mapping fails.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    effective = (ctypes.c_uint32 * 6)()
    if _capget(header, effective) or not effective[0] & _CAP_IPC_LOCK:
        return False
    return bool(_mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)


def clear_thread_keyring() -> None:
    """Drop every key from the calling thread's keyring (keyrings(7)); raises OSError."""
    number = _SYS_KEYCTL.get(os.uname().machine, _SYS_KEYCTL_GENERIC)
    system_call(number, _LONG(_KEYCTL_CLEAR), _LONG(_KEY_SPEC_THREAD_KEYRING), _LONG(0), _LONG(0), _LONG(0))


def map_memory(size: int) -> int:
    """Map `size` bytes of ordinary memory, all zero; return their address. Raises OSError."""
    return _mapped(size, _MAP_PRIVATE | _MAP_ANONYMOUS, -1, 0)


def map_descriptor(descriptor: int, size: int, offset: int) -> int:
    """Map what a descriptor shares; return its address. Raises OSError."""
    return _mapped(size, _MAP_SHARED, descriptor, offset)


def _mapped(size: int, flags: int, descriptor: int, offset: int) -> int:
    address = _mmap(None, size, _PROT_READ_WRITE, flags, descriptor, offset)
    if address == _FAILED:
        raise last_error()
    return int(address)


def unmap(address: int, size: int) -> None:
    """Give a mapping back."""
    _munmap(address, size)


def forbid_dumps() -> None:
    """No core dump of this process, and no other process of the same user may read its memory."""
    _prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _setrlimit(_RLIMIT_CORE, (ctypes.c_ulong * 2)(0, 0))


def kernel_log_control(action: int) -> None:
    """Make a syslog(2) call that takes no buffer; who may not changes nothing."""
    _klogctl(action, None, 0)


def copy(target: int, source: int, size: int) -> None:
    """Copy memory between two addresses."""
    _move(target, source, size)


def zero(address: int, size: int) -> None:
    """Overwrite memory with zeros in a way that no compiler leaves out."""
    _zero(address, size)
