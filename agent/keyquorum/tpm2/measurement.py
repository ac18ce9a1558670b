# SPDX-License-Identifier: Apache-2.0
"""Measuring which volume was opened, as systemd-cryptsetup's tpm2-measure-pcr= does (docs/holders-tpm.md §8)."""

from __future__ import annotations

import time

from keyquorum.errors import UnavailableError
from keyquorum.linux.measurement_log import UserspaceLog
from keyquorum.linux.tpm_device import TpmDevice
from keyquorum.native import crypto
from keyquorum.tpm2 import banks, commands
from keyquorum.tpm2.client import Tpm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.secret import VolumeKey

_PATIENCE = 5.0


def volume_string(name: str, uuid: str) -> str:
    """Return what is measured: "cryptsetup:NAME:UUID", with colons and unusual bytes of the name in hexadecimal."""
    escaped = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b":\\" else f"\\x{byte:02x}" for byte in name.encode()
    )
    return f"cryptsetup:{escaped}:{uuid}"


def measure_volume_key(
    device: str, pcr: int, name: str, uuid: str, volume_key: VolumeKey, *, deadline: float | None = None
) -> None:
    """Extend a PCR by the HMAC, under the volume key, of the mapping's name and the volume's UUID, in every bank.

    The deadline is on the monotonic clock; without one it is five seconds from now. Raises `HolderError`.
    """
    text = volume_string(name, uuid)
    end = time.monotonic() + _PATIENCE if deadline is None else deadline
    with TpmDevice(device, end) as opened, Tpm(opened) as tpm:
        found = _banks(tpm, pcr)
        digests = {
            bank: crypto.hmac(bank.upper(), volume_key, text.encode("ascii"), banks.SIZES[bank]) for bank in found
        }
        log = UserspaceLog(end)  # locked before the PCR changes, so that records and extensions keep one order
        try:
            commands.pcr_extend(tpm, pcr, digests)
            log.add(pcr, digests, text, "volume-key")
        finally:
            log.close()


def _banks(tpm: Tpm, pcr: int) -> tuple[str, ...]:
    """Return the banks to extend: those whose PCR is in use already, or else all that hold it, as systemd chooses."""
    holding = commands.active_banks(tpm, pcr)
    if not holding:
        raise UnavailableError(f"the TPM holds PCR {pcr} in no bank that is known here")
    values = {bank: commands.pcr_read(tpm, bank, (pcr,)).get(pcr, b"") for bank in holding}
    used = tuple(bank for bank, value in values.items() if value.strip(b"\x00") and value.strip(b"\xff"))
    return used or holding
