# SPDX-License-Identifier: Apache-2.0
"""Satisfying a policy by a signature over the PCRs as they are (docs/holders-tpm.md §5). Imported only for such."""

from __future__ import annotations

from keyquorum.errors import HolderError, RefusedError, TamperingError
from keyquorum.linux import pcr_signature_files
from keyquorum.tpm2 import commands, pcr_signature, public
from keyquorum.tpm2.response_error import ResponseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.holders.tpm_where import SignedPolicy
    from keyquorum.tpm2.client import Tpm
    from keyquorum.tpm2.session import Session

_MOST_TRIED = 8


def authorize(tpm: Tpm, signed: SignedPolicy, bank: str, paths: tuple[str, ...], policy: Session) -> None:
    """Find a signature of the session's present policy by the enrolled key, and have the TPM accept it.

    Raises `RefusedError` saying where was looked and what was missing.
    """
    present = commands.policy_digest(tpm, policy)
    handle = commands.load_signer(tpm, signed.signer)
    try:
        _try_all(tpm, signed, (bank, present), paths, (policy, handle))
    finally:
        tpm.flush(handle)


def _try_all(
    tpm: Tpm, signed: SignedPolicy, wanted: tuple[str, bytes], paths: tuple[str, ...], using: tuple[Session, int]
) -> None:
    bank, present = wanted
    policy, handle = using
    looked, tried, others = [], 0, 0
    for path, content in pcr_signature_files.contents(paths, pcr_signature.MAX_FILE):
        try:
            entries = pcr_signature.parse(content, path)
        except TamperingError as error:
            looked.append(error.message)
            continue
        looked.append(path)
        for entry in entries:
            if (entry.bank, entry.pcrs, entry.fingerprint) != (bank, signed.pcrs, signed.fingerprint):
                continue
            if entry.digest != present or tried == _MOST_TRIED:
                others += 1
                continue
            tried += 1
            try:
                commands.policy_authorize(tpm, policy, (handle, public.name(signed.signer)), present, entry.signature)
            except ResponseError:
                continue
            return
    raise _refusal(signed, looked, tried, others)


def _refusal(signed: SignedPolicy, looked: list[str], tried: int, others: int) -> HolderError:
    pcrs = "PCR " + "+".join(str(pcr) for pcr in signed.pcrs)
    key = signed.fingerprint.hex()[:16]
    if not looked:
        return RefusedError(
            f"no signed policy for {pcrs} was found",
            f"looked for tpm2-pcr-signature.json in {', '.join(pcr_signature_files.DIRECTORIES)}",
        )
    files = ", ".join(looked)
    if tried:
        return RefusedError(f"the signature over {pcrs} is not one by the enrolled key {key}… ({files})", tampered=True)
    if others:
        return RefusedError(
            f"{pcrs} differs from all {others} values signed by the key {key}… ({files})",
            "boot a system whose vendor signed it with this key, or enrol again",
        )
    return RefusedError(f"nothing there is signed for {pcrs} by the enrolled key {key}… ({files})")
