# SPDX-License-Identifier: Apache-2.0
"""Epochs only go forward (I10): a volume that is enrolled again gets one that this machine has never accepted.

While a volume is enrolled its trust anchor knows the epoch. When it is taken out, the anchor goes and the number stays
beside it (docs/token.md §5), so that an old header put back later, with its old fragments, is refused.
"""

from __future__ import annotations

from keyquorum.errors import MalformedError
from keyquorum.linux import atomic_file
from keyquorum.model import anchor as anchors
from keyquorum.model.fragment import MAX_EPOCH
from keyquorum.unlock.verified_set import anchor_path

_SUFFIX = ".last-epoch"
_MAX_FILE = 64


def next_epoch(uuid: str, volumes: str) -> int:
    """Return the epoch of a volume's next set; raises `MalformedError` when what is remembered cannot be read."""
    epoch = max(_anchored(uuid, volumes), _left(uuid, volumes)) + 1
    if epoch > MAX_EPOCH:
        raise MalformedError(_path(uuid, volumes), "", f"{epoch} is beyond the last epoch, {MAX_EPOCH}")
    return epoch


def remember(uuid: str, volumes: str) -> None:
    """Keep the epoch of a trust anchor that is about to be removed; one that cannot be read leaves nothing to keep."""
    try:
        last = max(_anchored(uuid, volumes), _left(uuid, volumes))
    except MalformedError:
        return
    if last:
        atomic_file.write(_path(uuid, volumes), b"%d\n" % last, 0o644)


def _anchored(uuid: str, volumes: str) -> int:
    path = anchor_path(uuid, volumes)
    data = atomic_file.read(path, anchors.MAX_ANCHOR)
    return anchors.parse(data, path).epoch if data else 0


def _left(uuid: str, volumes: str) -> int:
    path = _path(uuid, volumes)
    text = atomic_file.read(path, _MAX_FILE).strip()
    if not text:
        return 0
    if not text.isdigit() or not 1 <= int(text) <= MAX_EPOCH:
        raise MalformedError(path, "", "is no epoch", "it holds the last epoch of a volume that was taken out")
    return int(text)


def _path(uuid: str, volumes: str) -> str:
    return anchor_path(uuid, volumes).removesuffix(".json") + _SUFFIX
