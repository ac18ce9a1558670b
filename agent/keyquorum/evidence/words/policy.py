# SPDX-License-Identifier: Apache-2.0
"""Words for the checks of the policy itself, which every technology has."""

from __future__ import annotations

WORDS = {
    "policy.signature": (
        "The policy is signed by a key that you trust. Whoever could write a policy could let any machine pass."
    ),
    "policy.format": (
        "Every field of the policy is there and known. A policy that is not understood whole counts as a refusal, "
        "since what was not understood may have been the strict part."
    ),
    "policy.validity": (
        "The policy counts at this instant. An end date makes sure that values nobody looked at for long stop counting."
    ),
    "policy.serial": (
        "The policy is not older than one that was seen before. Otherwise an attacker could bring back last year's."
    ),
    "policy.tee": (
        "The policy is for the kind of protection that the quote is of: a trust domain (TDX) or an enclave (SGX)."
    ),
}
