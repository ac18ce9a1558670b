# SPDX-License-Identifier: Apache-2.0
"""How large a policy's LUKS2 token will be, before there is a volume (docs/policy.md §6).

The real serialisers write a set and its fragments with placeholder bytes, so the estimate follows the formats. Only
what a holder notes about itself (`where`) is taken from a table. Enrolment measures the real thing.
"""

from __future__ import annotations

from keyquorum.model import strict_json, tree
from keyquorum.model.fragment import BLIND_SIZE, MAX_EPOCH, Description, Fragment
from keyquorum.model.header import HeaderDescriptor
from keyquorum.model.holder_options import Pkcs11Options, TpmOptions
from keyquorum.model.token import Token
from keyquorum.model.volume_set import KEK_SIZE, MAX_PAYLOAD, WRAPPED, Placement, VolumeSet
from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyquorum.model.policy import HolderSpec, Policy

STOCK_ROOM = 11 * 1024  # 12 KiB of JSON in a header as cryptsetup makes it, less keyslot, segment and digest
_ENC_SIZES = {"x-wing": 1120, "x25519": 32}  # those of envelope.hpke, which a model may not import; a test compares
_TAG_SIZE = 16
_WHERE = {  # bytes
    "disk": 110, "tpm": 510, "pkcs11": 560, "passphrase": 210, "sheet": 40, "custodian": 900, "enclave": 1250,
}  # fmt: skip
_PER_PCR, _SIGNED, _FACTS, _PIN = 51, 400, 130, 35  # what a TPM adds (docs/holders-tpm.md §2)
_UUID = "00000000-0000-0000-0000-000000000000"
_TIME = 1 << 31
_HEADER = HeaderDescriptor(uuid=_UUID, segments="s" * 150, digest="0" * 64, requirements="")


class TokenSize(Record):
    """Bytes: of the signed set, which may have `MAX_PAYLOAD`, and of the whole token."""

    volume_set: int
    token: int

    @property
    def fits_set(self) -> bool:
        """Say whether the set stays below the cap of its reader."""
        return self.volume_set <= MAX_PAYLOAD

    @property
    def fits_stock_header(self) -> bool:
        """Say whether the token fits in a header as cryptsetup makes it by default."""
        return self.token <= STOCK_ROOM


def estimate(policy: Policy) -> TokenSize:
    """Estimate within some ten per cent; without a KEM in the policy, X-Wing is assumed."""
    kem = policy.kem or "x-wing"
    found = VolumeSet(
        volume=_UUID,
        set_id=bytes(16),
        epoch=MAX_EPOCH,
        mode=WRAPPED,
        key_size=64,
        issued=_TIME,
        header=_HEADER,
        policy=policy.tree,
        placements=tuple(_placement(spec) for spec in policy.holders),
        nonce=bytes(24),
        wrapped=bytes(64 + _TAG_SIZE),
        measure_pcr=policy.measure_pcr,
        keyslot=-1,
    )
    payload = found.payload()
    places = {index: (path, node.threshold) for index, path, node in tree.leaves(policy.tree)}
    envelopes = {
        str(spec.index): _envelope("fragment", _fragment(spec, *places[spec.index], len(policy.holders), kem).payload())
        for spec in policy.holders
        if spec.kind != "disk"  # a fragment disk keeps the envelope itself
    }
    token = Token(volume_set=_envelope("set", payload), fragments=envelopes)
    return TokenSize(volume_set=len(payload), token=len(token.to_json()))


def _placement(spec: HolderSpec) -> Placement:
    return Placement(
        index=spec.index,
        name=spec.name,
        kind=spec.kind,
        recipient=bytes(16),
        commitment=bytes(32),
        where={"x": "0" * _where_size(spec)},
    )


def _where_size(spec: HolderSpec) -> int:
    size, options = _WHERE[spec.kind], spec.options
    if isinstance(options, TpmOptions):
        size += _PER_PCR * (len(options.pcrs) - 1)
        size += (_SIGNED if options.public_key else 0) + (_FACTS if options.facts else 0) + (_PIN if options.pin else 0)
    if isinstance(options, Pkcs11Options):
        size += len(options.uri)
    return size


def _fragment(spec: HolderSpec, path: tuple[int, ...], threshold: int, total: int, kem: str) -> Fragment:
    description = Description(
        volume=_UUID,
        set_id=bytes(16),
        epoch=MAX_EPOCH,
        index=spec.index,
        total=total,
        threshold=threshold,
        path=path,
        name=spec.name,
        kind=spec.kind,
        recipient=bytes(16),
        issued=_TIME,
        expires=_TIME,
    )
    ciphertext = bytes(BLIND_SIZE + KEK_SIZE + _TAG_SIZE)
    return Fragment(description=description, kem=kem, enc=bytes(_ENC_SIZES[kem]), ciphertext=ciphertext)


def _envelope(noun: str, payload: bytes) -> dict[str, Any]:
    """Return a DSSE envelope of the right size; the true one is made in `envelope.signing`."""
    return {
        "payloadType": f"application/vnd.keyquorum.{noun}.v1+json",
        "payload": strict_json.to_base64(payload),
        "signatures": [{"keyid": "0" * 32, "sig": strict_json.to_base64(bytes(64))}],
    }
