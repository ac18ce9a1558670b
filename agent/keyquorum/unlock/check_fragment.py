# SPDX-License-Identifier: Apache-2.0
"""What makes a fragment count: signature, place in the set, expiry, seal and commitment (docs/fragment.md §4).

All of it happens before anything is combined, so that a lying holder is named and never used (I2, I7).
"""

from __future__ import annotations

import time

from keyquorum.envelope import dsse, hpke
from keyquorum.errors import RefusedError
from keyquorum.model import fragment
from keyquorum.sharing import commitment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.holders.contract import Held
    from keyquorum.model.volume_set import Placement
    from keyquorum.secret import Share
    from keyquorum.unlock.verified_set import Enrolment


def check_fragment(enrolment: Enrolment, placement: Placement, held: Held, now: int) -> Share:
    """Check a holder's fragment: signature, place, expiry, seal, commitment, in this order (docs/fragment.md §4).

    Returns its share (blinding ‖ point). Raises `RefusedError` or `TamperingError`.
    """
    volume_set, what = enrolment.volume_set, f"fragment {placement.name}"
    raw = held.envelope if held.envelope is not None else enrolment.envelopes.get(str(placement.index))
    if raw is None:
        raise RefusedError("its fragment is not in the token", tampered=True)
    payload = dsse.verify(dsse.parse(raw, what), dsse.FRAGMENT_TYPE, enrolment.owners)
    found = fragment.parse(payload, what)
    mismatch = volume_set.mismatch(found.description, placement.index)
    if mismatch:
        raise RefusedError(f"its fragment is not of this set: {mismatch}", tampered=True)
    description = found.description
    if description.expires and description.issued <= now and now >= description.expires:
        raise RefusedError(_expired(description.expires), "enrol again to issue new fragments")
    share = hpke.open_sealed(found.kem, held.identity, found.enc, found.ciphertext, description.info())
    if share.size != commitment.BLIND_SIZE + volume_set.secret_size:
        share.wipe()
        raise RefusedError("its share has a wrong size", tampered=True)
    actual = commitment.commit(volume_set.set_id, volume_set.epoch, description.path, share)
    if actual != placement.commitment:
        share.wipe()
        raise RefusedError("its share is not the one committed to", tampered=True)
    return share


def _expired(expires: int) -> str:
    return time.strftime("its fragment expired on %Y-%m-%d %H:%M UTC", time.gmtime(expires))
