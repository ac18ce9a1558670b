# SPDX-License-Identifier: Apache-2.0
"""Steps 1 and 2: read the header once, and believe of its set only what the owner signed (docs/boot.md §4)."""

from __future__ import annotations

import os

from keyquorum.envelope import dsse
from keyquorum.envelope.dsse import PublicKey
from keyquorum.errors import KeyquorumError, TamperingError, UsageError
from keyquorum.linux.private_header import copy_header
from keyquorum.model import anchor as anchors
from keyquorum.model import header, token, volume_set
from keyquorum.record import Record

_MAX_SHOWN = 400

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyquorum.linux.cryptsetup import Header
    from keyquorum.model.anchor import Anchor
    from keyquorum.model.volume_set import VolumeSet


class Enrolment(Record):
    """A volume's verified set, its owners, and the envelopes that lie in the token (unverified, by index)."""

    volume_set: VolumeSet
    owners: tuple[PublicKey, ...]
    envelopes: dict[str, Any]
    token_number: int


def load_header(device: str, header_device: str = "") -> Header:
    """Copy the header. Everything after this works on the copy."""
    return copy_header(device, header_device)


def verify_enrolment(loaded: Header, volumes: str) -> Enrolment:
    """Return what the volume's owner signed; `volumes` is the directory of trust anchors.

    Raises `UsageError` when the volume is not enrolled or nobody here vouches for it, `TamperingError` when header,
    token and signatures do not belong together.
    """
    metadata, uuid = loaded.metadata(), loaded.uuid
    found = token.find(header.tokens(metadata))
    if found is None:
        raise UsageError(
            f"{loaded.data_path} is not enrolled", f"enrol it: keyquorum enroll {loaded.data_path} --policy FILE"
        )
    number, table = found
    parsed = token.parse(table)
    anchor = load_anchor(uuid, volumes)
    owners = tuple(PublicKey(raw=key) for key in anchor.owners)
    payload = dsse.verify(dsse.parse(parsed.volume_set, "set"), dsse.SET_TYPE, owners)
    enrolled = volume_set.parse(payload, "set")
    check_binding(enrolled, loaded, anchor)
    return Enrolment(volume_set=enrolled, owners=owners, envelopes=parsed.fragments, token_number=number)


def check_volume(loaded: Header, wanted: str) -> None:
    """Refuse a volume in the place of the `wanted` one, even if it has an owner here; "" takes any."""
    if wanted and loaded.uuid != wanted:
        raise TamperingError(
            "LUKS2 header",
            "uuid",
            f"is {loaded.uuid}, this boot image opens {wanted}",
            "if that was meant, rebuild the boot image: update-initramfs -u",
        )


def check_binding(enrolled: VolumeSet, loaded: Header, anchor: Anchor) -> None:
    """Refuse a set of another volume, of a past epoch, or for a header that reads data in another way."""
    uuid = loaded.uuid
    if enrolled.volume != uuid:
        raise TamperingError("set", "volume", f"is for {enrolled.volume}, the header is {uuid}")
    if enrolled.epoch < anchor.epoch:
        raise TamperingError("set", "epoch", f"is {enrolled.epoch}, this machine accepts {anchor.epoch} and later")
    actual = header.describe(loaded.metadata(), uuid)
    for field, expected, found in enrolled.header.differences(actual):
        raise TamperingError("LUKS2 header", field, f"is {_shown(found)}, enrolled was {_shown(expected)}")


def _shown(text: str) -> str:
    """Cut what a header says to what a person may read: it may be megabytes long."""
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}... ({len(text)} characters)"


def load_anchor(uuid: str, volumes: str) -> Anchor:
    """Read the trust anchor of a volume."""
    path = anchor_path(uuid, volumes)
    try:
        with open(path, "rb") as file:
            data = file.read(anchors.MAX_ANCHOR + 1)
    except FileNotFoundError:
        raise UsageError(
            f"this machine knows no owner of volume {uuid}",
            f"copy {path} from the machine that enrolled the volume; in a boot image, rebuild it: update-initramfs -u",
        ) from None
    except OSError as error:
        raise KeyquorumError(f"{path} cannot be read: {error.strerror}") from None
    anchor = anchors.parse(data, path)
    if anchor.volume != uuid:
        raise UsageError(f"{path} is about volume {anchor.volume}")
    return anchor


def anchor_path(uuid: str, volumes: str) -> str:
    """Return where the trust anchor of a volume is kept."""
    if not uuid or not set(uuid) <= set("0123456789abcdefABCDEF-"):
        raise TamperingError("LUKS2 header", "uuid", "is not a UUID")
    return os.path.join(volumes, f"{uuid}.json")
