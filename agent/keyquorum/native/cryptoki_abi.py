# SPDX-License-Identifier: Apache-2.0
"""Numbers and structures of PKCS#11 2.40 as Linux lays them out (pkcs11t.h, pkcs11f.h), named as the standard does."""

from __future__ import annotations

import ctypes

from keyquorum.native.library import ADDRESS, TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ULONG = ctypes.c_ulong
BYTE = ctypes.c_ubyte
UNAVAILABLE = ULONG(-1).value  # CK_UNAVAILABLE_INFORMATION

CKO_PUBLIC_KEY, CKO_PRIVATE_KEY, CKO_SECRET_KEY = 2, 3, 4
CKK_RSA, CKK_EC, CKK_GENERIC_SECRET = 0, 3, 16
CKA_CLASS, CKA_TOKEN, CKA_PRIVATE, CKA_LABEL, CKA_VALUE = 0, 1, 2, 3, 0x11
CKA_KEY_TYPE, CKA_ID, CKA_SENSITIVE, CKA_DECRYPT, CKA_DERIVE = 0x100, 0x102, 0x103, 0x105, 0x10C
CKA_MODULUS, CKA_PUBLIC_EXPONENT, CKA_VALUE_LEN, CKA_EXTRACTABLE = 0x120, 0x122, 0x161, 0x162
CKA_EC_PARAMS, CKA_EC_POINT, CKA_ALWAYS_AUTHENTICATE = 0x180, 0x181, 0x202
CKM_RSA_PKCS_OAEP, CKM_SHA_1, CKM_SHA256, CKM_ECDH1_DERIVE = 9, 0x220, 0x250, 0x1050
CKG_MGF1_SHA1, CKG_MGF1_SHA256 = 1, 2
CKZ_DATA_SPECIFIED, CKD_NULL = 1, 1
CKF_SERIAL_SESSION, CKF_OS_LOCKING_OK = 4, 2
CKF_LOGIN_REQUIRED, CKF_PROTECTED_AUTHENTICATION_PATH, CKF_TOKEN_INITIALIZED = 1 << 2, 1 << 8, 1 << 10
CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED = 1 << 16, 1 << 17, 1 << 18
CKU_USER, CKU_CONTEXT_SPECIFIC = 1, 2

CKR_DATA_LEN_RANGE, CKR_DEVICE_REMOVED, CKR_FUNCTION_NOT_SUPPORTED = 0x21, 0x32, 0x54
CKR_PIN_INCORRECT, CKR_PIN_INVALID = 0xA0, 0xA1
CKR_PIN_LEN_RANGE, CKR_PIN_EXPIRED, CKR_PIN_LOCKED, CKR_TOKEN_NOT_PRESENT = 0xA2, 0xA3, 0xA4, 0xE0
CKR_USER_ALREADY_LOGGED_IN, CKR_USER_PIN_NOT_INITIALIZED, CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x100, 0x102, 0x191
WORDS = {
    0x02: "host memory",
    0x05: "general error",
    0x06: "function failed",
    0x07: "arguments bad",
    0x20: "data invalid",
    0x21: "data length",
    0x30: "device error",
    0x31: "device memory",
    0x32: "device removed",
    0x40: "encrypted data invalid",
    0x41: "encrypted data length",
    0x54: "function not supported",
    0x60: "key handle invalid",
    0x62: "key size",
    0x63: "key type",
    0x68: "key function not permitted",
    0x70: "mechanism invalid",
    0x71: "mechanism parameter invalid",
    0xA0: "PIN incorrect",
    0xA3: "PIN expired",
    0xA4: "PIN locked",
    0xB3: "session handle invalid",
    0xE0: "token not present",
    0xE1: "token not recognised",
    0x101: "user not logged in",
    0x102: "user PIN not initialised",
    0x190: "not initialised",
    0x200: "function rejected",
}

# fmt: off
NAMES = (  # in the order of CK_FUNCTION_LIST; those after C_DeriveKey are not needed
    "Initialize", "Finalize", "GetInfo", "GetFunctionList", "GetSlotList", "GetSlotInfo", "GetTokenInfo",
    "GetMechanismList", "GetMechanismInfo", "InitToken", "InitPIN", "SetPIN", "OpenSession", "CloseSession",
    "CloseAllSessions", "GetSessionInfo", "GetOperationState", "SetOperationState", "Login", "Logout",
    "CreateObject", "CopyObject", "DestroyObject", "GetObjectSize", "GetAttributeValue", "SetAttributeValue",
    "FindObjectsInit", "FindObjects", "FindObjectsFinal", "EncryptInit", "Encrypt", "EncryptUpdate",
    "EncryptFinal", "DecryptInit", "Decrypt", "DecryptUpdate", "DecryptFinal", "DigestInit", "Digest",
    "DigestUpdate", "DigestKey", "DigestFinal", "SignInit", "Sign", "SignUpdate", "SignFinal",
    "SignRecoverInit", "SignRecover", "VerifyInit", "Verify", "VerifyUpdate", "VerifyFinal",
    "VerifyRecoverInit", "VerifyRecover", "DigestEncryptUpdate", "DecryptDigestUpdate", "SignEncryptUpdate",
    "DecryptVerifyUpdate", "GenerateKey", "GenerateKeyPair", "WrapKey", "UnwrapKey", "DeriveKey",
)
# fmt: on
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "Initialize": (ADDRESS,),
    "Finalize": (ADDRESS,),
    "GetSlotList": (BYTE, ADDRESS, ADDRESS),
    "GetTokenInfo": (ULONG, ADDRESS),
    "OpenSession": (ULONG, ULONG, ADDRESS, ADDRESS, ADDRESS),
    "CloseSession": (ULONG,),
    "Login": (ULONG, ULONG, ADDRESS, ULONG),
    "Logout": (ULONG,),
    "DestroyObject": (ULONG, ULONG),
    "GetAttributeValue": (ULONG, ULONG, ADDRESS, ULONG),
    "FindObjectsInit": (ULONG, ADDRESS, ULONG),
    "FindObjects": (ULONG, ADDRESS, ULONG, ADDRESS),
    "FindObjectsFinal": (ULONG,),
    "DecryptInit": (ULONG, ADDRESS, ULONG),
    "Decrypt": (ULONG, TEXT, ULONG, ADDRESS, ADDRESS),
    "DeriveKey": (ULONG, ADDRESS, ULONG, ADDRESS, ULONG, ADDRESS),
}


class FunctionList(ctypes.Structure):
    """CK_FUNCTION_LIST, as far as C_DeriveKey."""

    _fields_ = (("version", BYTE * 2), *((name, ADDRESS) for name in NAMES))


class InitializeArguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = (("mutexes", ADDRESS * 4), ("flags", ULONG), ("reserved", ADDRESS))


class TokenInfo(ctypes.Structure):
    """CK_TOKEN_INFO."""

    _fields_ = (
        ("label", BYTE * 32),
        ("manufacturer", BYTE * 32),
        ("model", BYTE * 16),
        ("serial", BYTE * 16),
        ("flags", ULONG),
        ("counts", ULONG * 10),
        ("versions", BYTE * 4),
        ("time", BYTE * 16),
    )


class Attribute(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_ = (("kind", ULONG), ("value", ADDRESS), ("size", ULONG))


class Mechanism(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (("kind", ULONG), ("parameter", ADDRESS), ("size", ULONG))


class OaepParameters(ctypes.Structure):
    """CK_RSA_PKCS_OAEP_PARAMS."""

    _fields_ = (("hash", ULONG), ("mgf", ULONG), ("source", ULONG), ("data", ADDRESS), ("size", ULONG))


class EcdhParameters(ctypes.Structure):
    """CK_ECDH1_DERIVE_PARAMS."""

    _fields_ = (
        ("kdf", ULONG),
        ("shared_size", ULONG),
        ("shared", ADDRESS),
        ("public_size", ULONG),
        ("public", TEXT),
    )
