# SPDX-License-Identifier: Apache-2.0
"""A TPM's no: the error that callers tell apart by its code (Part 2 §6.6). `codes` puts it into words."""

from __future__ import annotations

from keyquorum.errors import RefusedError

# Without the number of a parameter, handle or session (Part 2 §6.6)
VALUE, HANDLE, AUTH_FAIL, BAD_AUTH, POLICY_FAIL = 0x84, 0x8B, 0x8E, 0xA2, 0x9D
PCR_CHANGED, LOCKOUT = 0x128, 0x921


class ResponseError(RefusedError):
    """The TPM answered `command` with an error; `code` lacks the number of the parameter, handle or session."""

    def __init__(self, message: str, hint: str, command: int, code: int) -> None:
        super().__init__(message, hint)
        self.command, self.code = command, code
