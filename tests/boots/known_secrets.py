# SPDX-License-Identifier: Apache-2.0
"""What an enrolled volume's secrets are, worked out from its disks and its TPM as whoever holds them all could.

Fragments are opened by `cryptography`, which knows HPKE by itself, and the volume key that comes out of it all is
compared with the one that the test made the volume with: whoever searches for these values searches for the right ones.
"""

import base64
import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from guests.swtpm import TpmState, tpm_on_loopback
from keyquorum.envelope import dsse, wrapping
from keyquorum.envelope.hpke import X25519, X_WING
from keyquorum.envelope.wrapping import WrappedKey
from keyquorum.holders import contract, tpm
from keyquorum.holders.contract import Tuning
from keyquorum.linux import fragment_disk, tpm_device
from keyquorum.linux.answers import LocalAnswers
from keyquorum.model import fragment, tree
from keyquorum.model.fragment import BLIND_SIZE
from keyquorum.model.volume_set import DIRECT, Placement
from keyquorum.secret import KeyEncryptionKey
from keyquorum.sharing import tree as sharing
from keyquorum.tpm2 import commands
from keyquorum.tpm2.client import Tpm
from keyquorum.unlock.verified_set import Enrolment, load_header, verify_enrolment

SECTOR = 512
SEPARATOR = b"\xff" * 4  # what SeaBIOS measures into PCRs 0 to 7 before it hands over
WRAP = b"keyquorum/v1/wrap"
_KEMS = {X25519: hpke.KEM.X25519, X_WING: hpke.KEM.MLKEM768_X25519}


@dataclass(frozen=True)
class Whole:
    """An enrolled volume from outside: its disks, its trust anchor, and the TPM's name if that is to be asked too."""

    volume: str
    anchor: bytes
    fragment_disks: tuple[str, ...]
    tpm: str = ""

    def secrets(self, volume_key: bytes) -> dict[str, bytes]:
        """Everything that nobody but the proxy may ever see, by name; `volume_key` is what it must lead to.

        Raises `UsageError` when the volume is not enrolled, AssertionError when the quorum does not open it.
        """
        half = len(volume_key) // 2
        found = {"volume key": volume_key, "first half": volume_key[:half], "second half": volume_key[half:]}
        points: dict[int, int] = {}
        with self._enrolment() as enrolment:
            volume_set = enrolment.volume_set
            for placement in volume_set.placements:
                if placement.kind == "disk" or self.tpm:
                    found |= self._open(enrolment, placement)
                    share = found[f"share of {placement.name}"]
                    points[placement.index] = int.from_bytes(share, "little")
            assert not tree.missing(volume_set.policy, points.keys()), "too few fragments"
            size = volume_set.secret_size
            raw = sharing.combine(volume_set.policy, points, size).to_bytes(size, "little")
            if volume_set.mode == DIRECT:
                assert raw == volume_key, "the secrets are those of another volume"
                return found
            found["KEK"], found["wrapping key"] = raw, HKDFExpand(hashes.SHA256(), 32, WRAP).derive(raw)
            wrapped = WrappedKey(nonce=volume_set.nonce, ciphertext=volume_set.wrapped)
            with (
                KeyEncryptionKey.from_view(raw) as kek,
                wrapping.unwrap(kek, wrapped, volume_set.binding()) as unwrapped,
            ):
                assert bytes(unwrapped.view) == volume_key, "the secrets are those of another volume"
        return found

    def _open(self, enrolment: Enrolment, placement: Placement) -> dict[str, bytes]:
        """A fragment's secrets."""
        name = placement.name
        if placement.kind == "disk":
            identity, envelope = self._from_disks(enrolment, placement)
        else:
            identity, envelope = self._from_tpm(enrolment, placement), enrolment.envelopes[str(placement.index)]
        payload = dsse.verify(dsse.parse(envelope, name), dsse.FRAGMENT_TYPE, enrolment.owners)
        parsed = fragment.parse(payload, name)
        key, parts = _private_key(identity, parsed.kem)
        suite = hpke.Suite(_KEMS[parsed.kem], hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
        plain = suite.decrypt(parsed.enc + parsed.ciphertext, key, info=parsed.description.info())
        found = {f"blind of {name}": plain[:BLIND_SIZE], f"share of {name}": plain[BLIND_SIZE:]}
        if placement.kind != "disk":  # a disk's identity lies open in the header, so it is no secret
            found |= {f"{part} of {name}": value for part, value in (parts | {"identity": identity}).items()}
        return found

    def _from_disks(self, enrolment: Enrolment, placement: Placement) -> tuple[bytes, Any]:
        for path in self.fragment_disks:
            with _partition(path) as partition:
                header, entries = fragment_disk.read(partition)
            if header.disk_id.hex() == placement.where["disk"]:
                wanted = (enrolment.volume_set.set_id, placement.index)
                found = [entry.envelope for entry in entries if (entry.set_id, entry.index) == wanted]
                assert len(found) == 1, f"the disk of {placement.name} has {len(found)} of its fragments"
                return base64.b64decode(placement.where["identity"]), found[0]
        raise AssertionError(f"no disk of {placement.name}")

    def _from_tpm(self, enrolment: Enrolment, placement: Placement) -> bytes:
        tuning = Tuning(tpm_device=self.tpm)
        task = contract.open_task(enrolment.volume_set, placement, LocalAnswers(), tuning, time.monotonic() + 60)
        with tpm.HOLDER.open(task).identity as identity:
            return bytes(identity.view)

    @contextlib.contextmanager
    def _enrolment(self) -> Iterator[Enrolment]:
        with tempfile.TemporaryDirectory() as directory, load_header(self.volume) as header:
            with open(os.path.join(directory, f"{header.uuid}.json"), "wb") as file:
                file.write(self.anchor)
            yield verify_enrolment(header, directory)


@contextlib.contextmanager
def booted(chip: TpmState) -> Iterator[str]:
    """A copy of a machine's TPM after a boot of its own, with what SeaBIOS measures; gives its name."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        _, name = stack.enter_context(tpm_on_loopback(chip.clone(os.path.join(directory, "tpm"))))
        digests = {bank: hashlib.new(bank, SEPARATOR).digest() for bank in ("sha1", "sha256")}
        with tpm_device.TpmDevice(name, time.monotonic() + 60) as device, Tpm(device) as talk:
            commands.pcr_extend(talk, 7, digests)
        yield name


def fragments_on(disk: str, volume: str) -> int:
    """How many fragments of a volume a fragment disk holds."""
    with _partition(disk) as partition:
        _, entries = fragment_disk.read(partition)
    return sum(entry.volume == volume for entry in entries)


def _private_key(identity: bytes, kem: str) -> tuple[Any, dict[str, bytes]]:
    """The private key of a seed, and what it consists of beside it (draft-connolly-cfrg-xwing-kem §5.2)."""
    if kem == X25519:
        return x25519.X25519PrivateKey.from_private_bytes(identity), {}
    expanded = hashlib.shake_256(identity).digest(96)
    parts = {"ML-KEM seed": expanded[:64], "X25519 key": expanded[64:]}
    first = mlkem.MLKEM768PrivateKey.from_seed_bytes(parts["ML-KEM seed"])
    second = x25519.X25519PrivateKey.from_private_bytes(parts["X25519 key"])
    return hpke.MLKEM768X25519PrivateKey(first, second), parts


@contextlib.contextmanager
def _partition(disk: str) -> Iterator[str]:
    """The first partition of a disk image, as a file of its own; the image if it has none (UEFI 2.10, §5.3)."""
    with open(disk, "rb") as file, tempfile.NamedTemporaryFile() as copy:
        table = file.read(4 * SECTOR)
        if not table.startswith(b"EFI PART", SECTOR):
            yield disk
            return
        first, last = (int.from_bytes(table[at : at + 8], "little") for at in (2 * SECTOR + 32, 2 * SECTOR + 40))
        file.seek(first * SECTOR)
        copy.write(file.read((last + 1 - first) * SECTOR))
        copy.flush()
        yield copy.name
