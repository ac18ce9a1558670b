# SPDX-License-Identifier: Apache-2.0
"""What the TPM tests share: tasks for the holder, a second opinion by TSS, and a person who types PINs."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import tpm2_pytss  # type: ignore[import-untyped]  # it has no type hints
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from devices.holder_tasks import OneQuestionAtATime
from keyquorum.holders.contract import OpenTask, SealTask, Subject, Tuning
from keyquorum.holders.tpm import HOLDER
from keyquorum.linux.tpm_device import TpmDevice
from keyquorum.model.holder_options import TpmOptions
from keyquorum.secret import Identity, Secret
from keyquorum.tpm2 import banks, commands, policy
from keyquorum.tpm2.client import Tpm
from keyquorum.tpm2.wire import SRK_HANDLE, u32

OWNER, LOCKOUT = tpm2_pytss.ESYS_TR.OWNER, tpm2_pytss.ESYS_TR.LOCKOUT
SUBJECT = Subject(volume="6d1c7d1e-5ab0-4d6f-8b0e-000000000001", set_id=bytes(16), epoch=1, index=2, name="tpm")


class Person(OneQuestionAtATime):
    """Somebody who types the same thing whenever asked, and counts how often."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer, self.asked = answer, list[str]()

    def ready(self, _name: str) -> bool:
        return False

    def ask(self, _name: str, question: str) -> Secret:
        self.asked.append(question)
        return Secret.from_view(self.answer)

    ask_new = ask


class Enrolment:
    """An identity sealed to a TPM, and what is needed to open it again."""

    def __init__(self, device: str, directory: str, options: TpmOptions, pin: bytes = b"", **tuning: Any) -> None:
        self.tuning = Tuning(tpm_device=device, reference_directory=directory, **tuning)
        self.raw = os.urandom(32)
        self.shown: list[str] = []
        with Identity.from_view(self.raw) as identity:
            self.where = HOLDER.seal(
                SealTask(
                    subject=SUBJECT,
                    identity=identity,
                    envelope={},
                    options=options,
                    answers=Person(pin),
                    tuning=self.tuning,
                    show=self.shown.append,
                )
            )

    def open(
        self,
        pin: bytes = b"",
        *,
        device: str = "",
        where: dict[str, Any] | None = None,
        person: Person | None = None,
        patience: float = 10.0,
    ) -> bytes:
        """Open it and return the identity's bytes; raises what the holder raises."""
        task = OpenTask(
            subject=SUBJECT,
            where=self.where if where is None else where,
            answers=person or Person(pin),
            tuning=self.tuning.with_(tpm_device=device) if device else self.tuning,
            deadline=time.monotonic() + patience,
        )
        with HOLDER.open(task).identity as identity:
            return bytes(identity.view)

    def opens(self, pin: bytes = b"", **how: Any) -> bool:
        """Say whether it opens to the very identity that was sealed."""
        return self.open(pin, **how) == self.raw


@contextmanager
def client(device: str) -> Iterator[Tpm]:
    """Give our own client of a TPM."""
    with TpmDevice(device, time.monotonic() + 10) as opened, Tpm(opened) as tpm:
        yield tpm


@contextmanager
def second_opinion(device: str) -> Iterator[Any]:
    """Give a TSS context of a TPM."""
    with tpm2_pytss.ESAPI(device) as context:
        yield context


def forget_storage_key(device: str) -> None:
    """Take the kept storage root key out of a TPM."""
    with second_opinion(device) as tss:
        tss.evict_control(OWNER, tss.tr_from_tpmpublic(SRK_HANDLE), SRK_HANDLE)


def extend(device: str, pcr: int, data: bytes = b"something new") -> None:
    """Measure something into a PCR, in all banks."""
    with client(device) as tpm:
        active = commands.active_banks(tpm, pcr)
        commands.pcr_extend(tpm, pcr, {bank: banks.digest(bank, data) for bank in active})


def pcr(device: str, number: int, bank: str = "sha256") -> bytes:
    """Return a PCR's value."""
    with client(device) as tpm:
        return commands.pcr_read(tpm, bank, (number,))[number]


def loaded(device: str) -> list[int]:
    """Return the handles of all objects and sessions that a TPM holds at this moment."""
    found = []
    with client(device) as tpm:
        for first in (0x80000000, 0x02000000, 0x03000000):  # objects, loaded sessions, saved sessions
            reader = tpm.public(tpm.run(0x17A, (), u32(1) + u32(first) + u32(16)), "GetCapability")
            reader.take(5)
            found += [reader.u32() for _ in range(reader.count(16))]
    return found


def tidy(device: str) -> None:
    """Flush what an interposer kept us from flushing."""
    for handle in loaded(device):
        with client(device) as tpm:
            tpm.flush(handle)


@cache
def signing_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return a key that signs PCR policies; each number is another key."""
    assert number >= 0
    return rsa.generate_private_key(65537, bits)


def signed_entry(key: rsa.RSAPrivateKey, bank: str, values: dict[int, bytes]) -> dict[str, Any]:
    """Sign PCR values as `systemd-measure sign` does; return an entry of tpm2-pcr-signature.json."""
    digest = policy.after_pcr(policy.START, bank, values)
    encoded = key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return {
        "pcrs": sorted(values),
        "pkfp": hashlib.sha256(encoded).hexdigest(),
        "pol": digest.hex(),
        "sig": base64.b64encode(key.sign(digest, padding.PKCS1v15(), hashes.SHA256())).decode(),
    }
