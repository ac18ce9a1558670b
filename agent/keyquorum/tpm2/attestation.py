# SPDX-License-Identifier: Apache-2.0
"""The attestation key and quotes by it (Part 3 §18.4; docs/custodian.md §7).

The key is a primary key of the endorsement hierarchy, derived anew whenever it is needed: there it needs no memory,
and elsewhere a TPM obscures the counters of its quotes (Part 3 §18.1), which a verifier asks for.
"""

from __future__ import annotations

from keyquorum.errors import RefusedError
from keyquorum.native import sodium
from keyquorum.record import Record
from keyquorum.tpm2 import banks, commands, public
from keyquorum.tpm2.client import EMPTY_PASSWORD
from keyquorum.tpm2.wire import ENDORSEMENT, NULL, sized, u16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.tpm2.client import Tpm

_QUOTE = 0x158
_MAX_ATTEST, _MAX_SIGNATURE = 2048, 1024
_TRIES = 3  # a PCR may be extended by somebody else between reading and quoting


class Quote(Record):
    """TPMS_ATTEST, TPMT_SIGNATURE, and the PCR values it is of, in order of their numbers."""

    attest: bytes
    signature: bytes
    pcrs: tuple[tuple[int, bytes], ...]


def load_key(tpm: Tpm, kind: str, name: bytes) -> int:
    """Derive the attestation key of `kind` ("ecc" or "rsa") and return its handle; flush it after use.

    `name` is the SHA-256 in its Name. Raises `RefusedError` when this TPM has another key.
    """
    handle, area = commands.create_primary(tpm, public.ATTESTATION_TEMPLATES[kind], ENDORSEMENT)
    if sodium.sha256(area) == name:
        return handle
    tpm.flush(handle)
    raise RefusedError(
        "this is another TPM than the one that was enrolled at the custodian, or it was cleared",
        "enrol this machine anew at its custodians",
    )


def quote(tpm: Tpm, handle: int, extra: bytes, bank: str, pcrs: tuple[int, ...]) -> Quote:
    """Return a quote of some PCRs with `extra` (at most 64 bytes) in it, by the key loaded at `handle`."""
    for _ in range(_TRIES):
        before = commands.pcr_read(tpm, bank, pcrs)
        parameters = sized(extra) + u16(NULL) + banks.selection(bank, pcrs)
        reader = tpm.public(tpm.run(_QUOTE, (handle,), parameters, EMPTY_PASSWORD), "Quote")
        attest, signature = reader.sized(_MAX_ATTEST), reader.rest(_MAX_SIGNATURE)
        if commands.pcr_read(tpm, bank, pcrs) == before:
            missing = [pcr for pcr in pcrs if pcr not in before]
            if missing:
                raise RefusedError(f"this TPM has no PCR {missing[0]} in its {bank} bank")
            return Quote(attest=attest, signature=signature, pcrs=tuple(sorted(before.items())))
    raise RefusedError("the PCRs change faster than they can be quoted", "try again")
