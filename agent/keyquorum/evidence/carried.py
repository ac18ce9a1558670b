# SPDX-License-Identifier: Apache-2.0
"""What evidence says it was made for, unverified: to show it to a person who has to say whether that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyquorum.errors import TamperingError
from keyquorum.evidence import intel_quote, nitro_document, snp_report, tpm_attest

if TYPE_CHECKING:
    from keyquorum.evidence.bundle import Bundle


def nonce(given: Bundle) -> bytes:
    """Return the report data or the nonce that evidence carries, b"" if none can be read."""
    try:
        if given.technology == "snp":
            return snp_report.parse(given.part("report"), "the report").report_data
        if given.technology in {"tdx", "sgx"}:
            return intel_quote.parse(given.part("quote")).body.report_data
        if given.technology == "nitro":
            envelope = nitro_document.open_envelope(given.part("document"))
            return nitro_document.parse(envelope.payload).nonce or b""
        return tpm_attest.parse(given.part("attest"), "the quote").extra_data
    except TamperingError:
        return b""
