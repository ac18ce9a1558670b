# SPDX-License-Identifier: Apache-2.0
"""Telling evidence by its first bytes (docs/attestation-command.md §1): which reader comes next, and no more."""

from __future__ import annotations

from keyquorum.evidence import hcl_report, snp_report, tpm_attest
from keyquorum.evidence.bundle import TECHNOLOGIES, Bundle

BUNDLE = "bundle"
_TEES = {0x00: "sgx", 0x81: "tdx"}
_COSE = ((0xD2, 0x84), (0x84, 0x44))  # tag 18 and a list of four; or the list, with the protected header of four bytes
_ON = {hcl_report.SNP: "azure-snp", hcl_report.TDX: "azure-tdx"}
_LIKELY = 15  # the highest version or kind of key that somebody may mean; which are taken is the verifier's affair
_KIND_AT = 1224  # where Azure's report says of which hardware it is


def technology(data: bytes) -> str:
    """Return what the bytes seem to be: one of `TECHNOLOGIES`, `BUNDLE`, or "" for nothing that is known."""
    if data.lstrip()[:1] == b"{":
        return BUNDLE
    if int.from_bytes(data[:4], "big") == tpm_attest.MAGIC:
        return "tpm"
    if data[:4] == b"HCLA":
        return _ON.get(int.from_bytes(data[_KIND_AT : _KIND_AT + 4], "little"), "")
    if tuple(data[:2]) in _COSE:
        return "nitro"
    numbers = [int.from_bytes(data[at : at + 2], "little") for at in (0, 2)]
    if not 0 < numbers[0] <= _LIKELY:
        return ""
    if len(data) == snp_report.SIZE and not numbers[1]:
        return "snp"
    if 0 < numbers[1] <= _LIKELY:
        return _TEES.get(int.from_bytes(data[4:8], "little"), "")
    return ""


def wrap(data: bytes) -> Bundle | None:
    """Return evidence as its technology makes it as a bundle of one part; None if it is nothing that is known."""
    found = technology(data)
    if found not in TECHNOLOGIES:
        return None
    return Bundle(technology=found, parts={TECHNOLOGIES[found].main: data})
