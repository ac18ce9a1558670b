# SPDX-License-Identifier: Apache-2.0
"""Response codes in words (Part 2 §6.6). Imported only when a TPM said no."""

from __future__ import annotations

from keyquorum.errors import HolderError, UnavailableError
from keyquorum.tpm2.response_error import AUTH_FAIL, BAD_AUTH, LOCKOUT, ResponseError

_COMMANDS = {
    0x120: "EvictControl",
    0x131: "CreatePrimary",
    0x147: "ActivateCredential",
    0x151: "PolicySecret",
    0x153: "Create",
    0x157: "Load",
    0x158: "Quote",
    0x15E: "Unseal",
    0x165: "FlushContext",
    0x167: "LoadExternal",
    0x16A: "PolicyAuthorize",
    0x16B: "PolicyAuthValue",
    0x173: "ReadPublic",
    0x176: "StartAuthSession",
    0x177: "VerifySignature",
    0x17A: "GetCapability",
    0x17E: "PCR_Read",
    0x17F: "PolicyPCR",
    0x182: "PCR_Extend",
    0x189: "PolicyGetDigest",
}
_FORMAT_1 = {
    0x81: "asymmetric algorithm not supported",
    0x82: "inconsistent attributes",
    0x83: "hash algorithm not supported",
    0x84: "value out of range",
    0x85: "hierarchy disabled",
    0x87: "key size not supported",
    0x8B: "handle not there",
    0x8E: "wrong authorisation value, counted towards lockout",
    0x8F: "nonce does not fit",
    0x92: "scheme not supported",
    0x95: "wrong size",
    0x96: "symmetric algorithm not supported",
    0x9A: "too short",
    0x9B: "signature is wrong",
    0x9C: "key is wrong",
    0x9D: "policy check failed",
    0x9F: "integrity check failed",
    0xA0: "ticket is wrong",
    0xA2: "wrong authorisation value",
    0xA6: "curve not supported",
    0xA7: "point is not on the curve",
}
_FORMAT_0 = {
    0x100: "TPM not started",
    0x101: "TPM in failure mode",
    0x120: "command disabled",
    0x125: "authorisation missing",
    0x128: "a PCR changed in between",
    0x12F: "authorisation not available",
    0x130: "TPM needs a restart of the machine",
    0x143: "command not supported",
    0x902: "no memory for another object",
    0x903: "no memory for another session",
    0x904: "no memory",
    0x905: "no session handle free",
    0x906: "no object handle free",
    0x907: "locality not allowed",
    0x908: "busy",
    0x90A: "testing itself",
    0x920: "limits the rate of writes",
    0x921: "locked out",
    0x922: "busy",
    0x923: "its non-volatile memory is not available",
}
# The chip is there, but cannot answer now or on this machine: ask the next holder.
_UNAVAILABLE = {
    0x85: "enable the storage hierarchy of the TPM in the firmware setup",
    0x100: "the kernel starts a TPM; restart the machine",
    0x101: "power the machine off and on again; if that does not help, the TPM is broken",
    0x120: "enable the TPM in the firmware setup",
    0x130: "restart the machine",
    0x902: "something else fills the TPM: close it, or use /dev/tpmrm0, which shares the TPM",
    0x903: "something else fills the TPM: close it, or use /dev/tpmrm0, which shares the TPM",
    0x904: "something else fills the TPM: close it, or use /dev/tpmrm0, which shares the TPM",
    0x905: "something else fills the TPM: close it, or use /dev/tpmrm0, which shares the TPM",
    0x906: "something else fills the TPM: close it, or use /dev/tpmrm0, which shares the TPM",
    0x908: "try again",
    0x90A: "try again in a few seconds",
    0x920: "try again in a few seconds",
    LOCKOUT: "wait, or clear the lockout with the lockout authorisation (tpm2_dictionarylockout --clear-lockout)",
    0x922: "try again",
    0x923: "try again in a few seconds",
}
_NO_AUTH_HINT = (
    "the TPM's owner or its storage root key has a password: keyquorum expects none, as systemd does"
    " (tpm2_changeauth takes it away)"
)


def base(code: int) -> int:
    """Return a response code without the number of the parameter, handle or session it is about (Part 1 §39.4)."""
    return code & 0xBF if code & 0x80 else code & 0xFFF


def failure(code: int, command: int) -> HolderError:
    """Return the error to raise for a response code."""
    kind = base(code)
    words = (_FORMAT_1 if code & 0x80 else _FORMAT_0).get(kind, "unknown error")
    name = _COMMANDS.get(command, f"command {command:#x}")
    if kind == LOCKOUT:
        return UnavailableError("the TPM is locked out after too many wrong PINs", _UNAVAILABLE[kind])
    message = f"the TPM refuses TPM2_{name}: {words} (response code {code:#x})"
    if kind in _UNAVAILABLE:
        return UnavailableError(message, _UNAVAILABLE[kind])
    hint = _NO_AUTH_HINT if kind in {AUTH_FAIL, BAD_AUTH} else ""
    return ResponseError(message, hint, command, kind)
