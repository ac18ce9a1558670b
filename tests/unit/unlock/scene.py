# SPDX-License-Identifier: Apache-2.0
"""An enrolled volume whose holders live in memory and do what a test tells them: open, lie, refuse, hang.

They are holders of kinds registered like any other: loaded by name, asked in threads of their own, through the same
contract. Nothing between them and the proxy is replaced.
"""

from __future__ import annotations

import sys
import threading
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyquorum import holders, secret, settings
from keyquorum.enroll.plan import Plan, make_plan
from keyquorum.enroll.request import Request
from keyquorum.envelope import dsse, hpke
from keyquorum.envelope.signing import Owner
from keyquorum.errors import TamperingError, UnavailableError
from keyquorum.holders.contract import Held, OpenTask, SealTask, Tuning
from keyquorum.model import tree
from keyquorum.model.fields import Fields
from keyquorum.model.policy import HolderSpec, Policy, Rules
from keyquorum.secret import Identity, Secret, VolumeKey
from keyquorum.unlock.gather import Context, Gathering, Limits
from keyquorum.unlock.reconstruct import rebuild_volume_key
from keyquorum.unlock.verified_set import Enrolment
from unit.model.objects import HEADER, UUID
from unit.sharing.test_tree import grow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pytest

    from keyquorum.model.report import Verdict
    from keyquorum.model.tree import Node

    Behaviour = Callable[[OpenTask], Held]

NOW = 1_750_000_000
DAY = 86400
OWNER = Owner(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
STRANGER = Owner(Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
SHELF, DRAWER = "shelf", "drawer"  # a shelf keeps envelopes, a drawer keeps identities
FAR = "custodian"  # a drawer in another place


class Answers:
    """A person who answers everything at once, and credentials for the names in `here`."""

    def __init__(self) -> None:
        self.here: set[str] = set()
        self.asked: list[str] = []
        self.kinds: dict[str, str] = {}
        self.cancelled = 0

    def ready(self, name: str) -> bool:
        return name in self.here

    def ask(self, name: str, _question: str) -> Secret:
        self.asked.append(name)
        return Secret.from_view(b"1234")

    def ask_new(self, name: str, question: str) -> Secret:
        return self.ask(name, question)

    def offer(self, name: str, _answer: Secret) -> None:
        self.here.add(name)

    def introduce(self, kinds: Mapping[str, str]) -> None:
        self.kinds = dict(kinds)

    def cancel(self) -> None:
        self.cancelled += 1


class Busy:
    """Counts the holders that are at work."""

    def __init__(self) -> None:
        self._count, self._changed = 0, threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until nobody is at work; who hangs for ever is a fault of the test."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._count, 10), "a holder still hangs"


_SCENES: dict[bytes, Scene] = {}


class MemoryHolder:
    """See the contract in `holders.contract`. What it does is in the set's scene, by the fragment's index."""

    def __init__(self, *, keeps_envelope: bool) -> None:
        self._keeps_envelope = keeps_envelope

    @property
    def keeps_envelope(self) -> bool:
        return self._keeps_envelope

    def needs_person(self, where: Mapping[str, Any]) -> bool:
        return Fields(dict(where), "set", TamperingError, "where").flag("person")

    def seal(self, task: SealTask) -> dict[str, Any]:
        return {"index": task.subject.index, "person": False}

    def open(self, task: OpenTask) -> Held:
        scene = _SCENES[task.subject.set_id]
        scene.opened.append(task.subject.index)
        with scene.busy:
            if self.needs_person(task.where):
                task.answers.ask(task.subject.name, "the PIN").wipe()
            return scene.behaviours[task.subject.index](task)

    def erase(self, task: OpenTask) -> None:
        """Nothing is kept."""

    def retire(self, task: OpenTask) -> None:
        """Nothing is kept."""


class Scene:
    """One volume under `policy`. `behaviours` may be replaced, `opened` lists every call of a holder."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        policy: Node,
        *,
        direct: bool = False,
        kinds: Mapping[int, str] | None = None,
        people: frozenset[int] = frozenset(),
        valid_days: int = 0,
        owner: Owner = OWNER,
    ) -> None:
        self.opened: list[int] = []
        self.busy = Busy()
        self.told: list[Verdict] = []
        self.answers = Answers()
        for kind, keeps in ((SHELF, True), (DRAWER, False), (FAR, False)):
            module = ModuleType(f"unit_holder_{kind}")
            module.__dict__["HOLDER"] = MemoryHolder(keeps_envelope=keeps)
            monkeypatch.setitem(sys.modules, module.__name__, module)
            monkeypatch.setitem(holders.KINDS, kind, module.__name__)
        self.volume_key = VolumeKey.from_view(bytes(range(64)))
        self.kinds = {index: (kinds or {}).get(index, SHELF) for index, _, _ in tree.leaves(policy)}
        self.plan = self._plan(policy, direct=direct, valid_days=valid_days, owner=owner)
        self.fragments = {planned.spec.index: planned for planned in self.plan.fragments}
        wheres = {index: {"index": index, "person": index in people} for index in self.kinds}
        self.volume_set = self.plan.volume_set(wheres, -1)
        envelopes = {str(i): p.envelope for i, p in self.fragments.items() if self.kinds[i] != SHELF}
        self.enrolment = Enrolment(
            volume_set=self.volume_set, owners=(owner.public,), envelopes=envelopes, token_number=0
        )
        _SCENES[self.volume_set.set_id] = self
        self.behaviours: dict[int, Behaviour] = {index: self.honest(index) for index in self.kinds}

    def _plan(self, policy: Node, *, direct: bool, valid_days: int, owner: Owner) -> Plan:
        specs = tuple(
            HolderSpec(
                index=index,
                name=f"holder-{index}",
                holder=f"holder-{index}",
                kind=kind,
                options=None,
                labels=(),
                place=f"place {index}",
            )
            for index, kind in self.kinds.items()
        )
        read = Policy(
            tree=policy,
            holders=specs,
            groups=(),
            rules=Rules(),
            kem=hpke.X25519,
            valid_days=valid_days,
            measure_pcr=-1,
            allow_single_holder=True,
        )
        request = Request(
            settings=settings.parse(""),
            tuning=Tuning(),
            answers=self.answers,
            now=NOW,
            tell=_ignore,
            warn=_ignore,
            device="/dev/null",
            header="",
            policy=read,
            kem=hpke.X25519,
            direct=direct,
            with_keyslot=False,
            owner=owner,
            show=_ignore,
        )
        return make_plan(request, HEADER.with_(uuid=UUID), self.volume_key)

    def identity(self, index: int) -> Identity:
        """A copy of a fragment's identity, as a holder gives it away."""
        return Identity.from_view(self.fragments[index].identity.view)

    def honest(self, index: int) -> Behaviour:
        """Give what was sealed."""
        return self.giving(index, self.fragments[index].envelope if self.kinds[index] == SHELF else None)

    def giving(self, index: int, envelope: Any) -> Behaviour:
        """Give the right identity with an envelope of the test's choice."""
        return lambda _task: Held(identity=self.identity(index), envelope=envelope)

    def gathering(
        self,
        *,
        holder: float = 30.0,
        person: float = 30.0,
        total: float = 60.0,
        kinds: tuple[str, ...] = (),
        everyone: bool = False,
        now: int = NOW,
        custodian: float = 30.0,
    ) -> Gathering:
        """A gathering over this volume's holders."""
        limits = Limits(
            holder=holder,
            person=person,
            deadline=time.monotonic() + total,
            kinds=kinds,
            everyone=everyone,
            custodian=custodian,
        )
        context = Context(answers=self.answers, tuning=Tuning(), now=now, tell=self.told.append)
        return Gathering(self.enrolment, context, limits)

    def close(self) -> None:
        """Wipe what the scene holds, once no holder uses it any more."""
        self.busy.wait()
        self.plan.close()
        self.volume_key.wipe()


def raising(error: BaseException) -> Behaviour:
    """Refuse, or fail, in the way a test says."""

    def behave(_task: OpenTask) -> Held:
        raise error

    return behave


def absent(_task: OpenTask) -> Held:
    """Not be there."""
    raise UnavailableError("it is not there", "attach it")


def payload_of(envelope: dict[str, Any]) -> bytes:
    """What is inside an envelope."""
    return dsse.parse(envelope, "envelope").payload


def _ignore(_words: str) -> None:
    """Nobody listens."""


THREE = grow((2, [None, None, None]))
FIVE = grow((3, [None] * 5))


def free_memory() -> int:
    """The bytes of protected memory that hold nothing."""
    return sum(size for _, size in secret._get_arena()._free)


def verdicts(gathering: Gathering) -> dict[int, str]:
    return {found.index: found.verdict for found in gathering.verdicts}


def rebuilt(scene: Scene, gathering: Gathering) -> bool:
    with rebuild_volume_key(scene.volume_set, gathering.shares) as key:
        return key.equals(scene.volume_key)


def hang(event: threading.Event) -> Any:
    """Be silent until the event is set, then answer like somebody who is not there."""

    def behave(task: OpenTask) -> Held:
        event.wait(60)
        return absent(task)

    return behave


def late(event: threading.Event, then: Any) -> Any:
    def behave(task: OpenTask) -> Held:
        event.wait(60)
        held: Held = then(task)
        return held

    return behave
