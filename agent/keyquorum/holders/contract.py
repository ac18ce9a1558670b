# SPDX-License-Identifier: Apache-2.0
"""The contract of every holder: `seal` at enrolment, `open` at unlock (docs/holders.md).

A fragment is sealed to a recipient key made for it alone, its *identity*. A holder keeps that identity (a TPM seals
it, a token wraps it, a passphrase derives it, a sheet prints it) or the fragment's envelope (a disk), so that the
rest of the token opens nothing without it. What the holder needs to find its part again is `where`, a small JSON
table that goes into the signed set.

`open` raises `UnavailableError` when the holder is not there (ask the next), `RefusedError` when it says no. No other
exception leaves a holder.
"""

from __future__ import annotations

from keyquorum.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from keyquorum.envelope.dsse import PublicKey
    from keyquorum.model.volume_set import Placement, VolumeSet
    from keyquorum.secret import Identity, Secret

    class Answers(Protocol):
        """Where PINs, passphrases and sheets come from: a credential, a file descriptor or a person."""

        def ready(self, name: str) -> bool:
            """Say whether the answer for holder `name` is there without asking a person."""

        def ask(self, name: str, question: str) -> Secret:
            """Return the answer; raises `UnavailableError` when nobody can be asked or nothing was typed."""

        def ask_new(self, name: str, question: str) -> Secret:
            """Return a new secret, typed twice by a person unless a credential holds it."""

        def offer(self, name: str, answer: Secret) -> None:
            """Keep an answer that is known already, for the proof of an enrolment."""

        def introduce(self, kinds: Mapping[str, str]) -> None:
            """Say which holders there are and of which kind: some credentials are named after the kind."""

        def cancel(self) -> None:
            """Withdraw a question that still stands, so that the terminal is given back."""

    class Signer(Protocol):
        """An owner who signs: `envelope.signing.Owner`, which no boot imports."""

        public: PublicKey

        def sign(self, payload_type: str, payload: bytes) -> dict[str, Any]:
            """Return the envelope as a JSON table."""

    class Holder(Protocol):
        """One kind of holder."""

        @property
        def keeps_envelope(self) -> bool:
            """True when the holder keeps the envelope and the set keeps the identity; otherwise the reverse."""

        def needs_person(self, where: Mapping[str, Any]) -> bool:
            """Say whether opening asks for a PIN, passphrase or sheet."""

        def seal(self, task: SealTask) -> dict[str, Any]:
            """Take the fragment in; return `where`. Nothing that exists already may be lost on any failure (I6)."""

        def open(self, task: OpenTask) -> Held:
            """Give back what `seal` took in."""

        def erase(self, task: OpenTask) -> None:
            """Forget the fragment, if the holder keeps anything of its own; nothing to forget is no error."""

        def retire(self, task: OpenTask) -> None:
            """Forget fragments of the same volume that belong to other sets; called once the new set is committed."""


class Subject(Record):
    """Which fragment of which volume: the names a holder files it under, and shows."""

    volume: str
    set_id: bytes
    epoch: int
    index: int
    name: str


class Tuning(Record):
    """What of the machine's settings a holder needs. Paths; an empty list means the usual places."""

    tpm_device: str = "/dev/tpmrm0"
    pcr_signatures: tuple[str, ...] = ()
    pkcs11_modules: tuple[str, ...] = ()
    reference_directory: str = "/etc/keyquorum/reference"
    machine: str = "/etc/keyquorum/machine.json"


class Papers(Record):
    """What the owner lays down at a custodian: two signed envelopes, and what a quote has to be of to fit them."""

    release: dict[str, Any]
    reference: dict[str, Any]
    bank: str
    pcrs: tuple[int, ...]


class SealTask(Record):
    """What enrolment hands to a holder. `options` is the kind's record from `model.holder_options`.

    `owner` and `papers` are for custodians: who signs the deposit, and what is laid down with it.
    """

    subject: Subject
    identity: Identity
    envelope: dict[str, Any]
    options: Any
    answers: Answers
    tuning: Tuning
    show: Callable[[str], None]
    owner: Signer | None = None
    papers: Papers | None = None


class OpenTask(Record):
    """What the proxy hands to a holder. `deadline` is on the monotonic clock, in seconds.

    `cancel` is a descriptor that becomes readable when nobody waits for the answer any more, -1 for none. `owner` signs
    what `erase` asks of a custodian; nobody does in an unlock.
    """

    subject: Subject
    where: dict[str, Any]
    answers: Answers
    tuning: Tuning
    deadline: float
    cancel: int = -1
    owner: Signer | None = None


class Held(Record):
    """What a holder gives back: the identity, and the envelope (unverified JSON) if it keeps that.

    `warning` is told with the verdict, though the fragment is right.
    """

    identity: Identity
    envelope: Any = None
    warning: str = ""


def open_task(
    volume_set: VolumeSet, placement: Placement, answers: Answers, tuning: Tuning, deadline: float
) -> OpenTask:
    """Return the task of asking one holder of a set."""
    subject = Subject(
        volume=volume_set.volume,
        set_id=volume_set.set_id,
        epoch=volume_set.epoch,
        index=placement.index,
        name=placement.name,
    )
    return OpenTask(subject=subject, where=placement.where, answers=answers, tuning=tuning, deadline=deadline)
