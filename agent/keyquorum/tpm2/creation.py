# SPDX-License-Identifier: Apache-2.0
"""The TPM commands of an enrolment: making a sealed object and keeping a storage root key (Part 3)."""

from __future__ import annotations

from keyquorum.errors import HolderError
from keyquorum.native import libc
from keyquorum.secret import Secret
from keyquorum.tpm2 import commands, public, session
from keyquorum.tpm2.client import EMPTY_PASSWORD
from keyquorum.tpm2.wire import OWNER, SRK_HANDLE, sized, u16, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.tpm2.client import Tpm
    from keyquorum.tpm2.public import StorageKey

_CREATE, _EVICT_CONTROL = 0x153, 0x120
_MAX_PRIVATE = 512


def persist_storage_root_key(tpm: Tpm, handle: int) -> None:
    """Keep a primary key at the SRK's handle, as systemd-tpm2-setup does (TPM2_EvictControl, §28.5)."""
    tpm.run(_EVICT_CONTROL, (OWNER, handle), u32(SRK_HANDLE), EMPTY_PASSWORD)


def create_sealed(
    tpm: Tpm, parent: tuple[int, StorageKey], data: Secret, auth: Secret | None, template: bytes
) -> tuple[bytes, bytes]:
    """Seal `data` below the storage key `parent`; return private and public part (TPM2_Create, §12.1).

    Data and authorisation value travel encrypted, and the answer is verified.
    """
    handle, storage_key = parent
    creating = commands.start_session(tpm, handle, storage_key, session.HMAC_SESSION)
    try:
        creating.renew()
        with _sensitive(data, auth) as sensitive:
            creating.cipher(sensitive.address, sensitive.size, encrypt=True)
            encrypted = bytes(sensitive.view)
        no_outside_info, no_pcrs = sized(b""), u32(0)
        parameters = sized(encrypted) + sized(template) + no_outside_info + no_pcrs
        authorization = creating.authorize(_CREATE, storage_key.name, parameters, session.DECRYPT)
        answer = tpm.run(_CREATE, (handle,), parameters, authorization)
        with tpm.response.part(answer.start, answer.size) as given:
            creating.verify(_CREATE, given, answer.authorization, session.DECRYPT)
        reader = tpm.public(answer, "Create")
        return reader.sized(_MAX_PRIVATE), reader.sized(public.MAX_PUBLIC)
    except HolderError:
        tpm.flush(creating.handle)
        raise
    finally:
        creating.wipe()


def _sensitive(data: Secret, auth: Secret | None) -> Secret:
    """Marshal a TPMS_SENSITIVE_CREATE: authorisation value and data (Part 2 §11.1.15)."""
    size = auth.size if auth else 0
    found = Secret(2 + size + 2 + data.size)
    found.view[:2], found.view[2 + size : 4 + size] = u16(size), u16(data.size)
    if auth is not None:
        libc.copy(found.address + 2, auth.address, size)
    libc.copy(found.address + 4 + size, data.address, data.size)
    return found
