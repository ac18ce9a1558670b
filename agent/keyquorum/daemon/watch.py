# SPDX-License-Identifier: Apache-2.0
"""Looking at the volumes and doing what the rules say: the only part of keyquorumd that changes anything."""

from __future__ import annotations

import os
import time

from keyquorum import speech
from keyquorum.daemon import boot_reports, questions, units, waiting
from keyquorum.errors import KeyquorumError, MalformedError
from keyquorum.linux import journal, notify
from keyquorum.model import journal_entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyquorum.daemon.waiting import Attempts, Step, Volume

DIRECTORY = "/run/keyquorumd"  # the unit's RuntimeDirectory=
_NOT_ASKING = "KEYQUORUM_PROMPT=--no-prompt\n"  # read by keyquorum-unlock@.service
_AFTER_ERROR = 10.0


class Watch:
    """The volumes of this machine. `look_again` is when to look although nothing happened (monotonic clock)."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._directory = directory
        self._memory: dict[str, Attempts] = {}
        self._unasked: dict[str, float] = {}  # when an attempt was started in which nobody is to be asked
        self._complained = ""
        self.look_again = waiting.NEVER

    def forget(self) -> None:
        """Start all delays anew."""
        self._memory = {}

    def tell_boot(self) -> None:
        """Write to the journal what the initramfs found out."""
        try:
            ran = {units.unescape(v.instance) for v in units.volumes() if v.unlock.started}
        except KeyquorumError as error:
            self._complain(error)
            return
        boot_reports.tell_journal(ran.__contains__, os.path.join(self._directory, "told"))

    def look(self, *, device_came: bool) -> None:
        """See how the volumes stand and act on it; a failure is told, and is looked at again."""
        try:
            asking = questions.asking()
            volumes = tuple(self._known(volume, asking) for volume in units.volumes())
        except KeyquorumError as error:
            self._complain(error)
            self.look_again = time.monotonic() + _AFTER_ERROR
            return
        self._complained = ""
        self._allow_questions_again(volumes)
        plan = waiting.decide(volumes, self._memory, time.monotonic(), device_came=device_came)
        self._memory, self.look_again = plan.memory, plan.look_again
        for step in plan.steps:
            try:
                self._do(step)
            except KeyquorumError as error:
                speech.warn(f"{units.unescape(step.instance)}: {error.message}")
        notify.status(_status(volumes))

    def _complain(self, error: KeyquorumError) -> None:
        if self._complained != error.message:
            self._complained = error.message
            speech.fail(error)

    def _known(self, volume: Volume, asking: frozenset[int]) -> Volume:
        """Add what systemd does not tell: whether a question is open, and what the last attempt found out."""
        volume = volume.with_(asks=volume.prompt.pid in asking)
        if not waiting.waits(volume):
            return volume
        try:
            report = boot_reports.read(units.unescape(volume.instance))
        except MalformedError as error:
            speech.warn(error.message)
            return volume
        return volume.with_(
            worth_waiting=boot_reports.worth_waiting(report), pin_refused=boot_reports.pin_refused(report)
        )

    def _do(self, step: Step) -> None:
        name = units.unescape(step.instance)
        if step.what in {waiting.RETRY, waiting.QUIET_RETRY}:
            quiet = step.what == waiting.QUIET_RETRY
            if quiet:
                self._forbid_questions(step.instance)
            else:
                self._allow_questions(step.instance)
            units.start_unlock(step.instance)
            why = "without asking anybody" if quiet else "a device came"
            _tell(journal_entry.RETRY_ID, name, f"{name} is tried again, {why}")
            return
        if step.what == waiting.WITHDRAW:
            units.restart_prompt(step.instance)
            _tell(journal_entry.WITHDRAWN_ID, name, f"{name} was opened by its fragments; its prompt is withdrawn")
        else:
            units.start_prompt(step.instance)
        units.start_bound(step.instance)

    def _forbid_questions(self, instance: str) -> None:
        """Have the next attempt ask nobody."""
        path = self._environment(instance)
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(_NOT_ASKING)
        except OSError as error:
            raise KeyquorumError(f"{path} cannot be written: {error.strerror}") from None
        self._unasked[instance] = time.monotonic()

    def _allow_questions_again(self, volumes: tuple[Volume, ...]) -> None:
        """Take back what the attempts were told that have begun: whoever starts the unit next may be asked."""
        for volume in volumes:
            if self._unasked.get(volume.instance, waiting.NEVER) < volume.unlock.started:
                self._allow_questions(volume.instance)

    def _allow_questions(self, instance: str) -> None:
        self._unasked.pop(instance, None)
        path = self._environment(instance)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            speech.warn(f"{path} cannot be removed: {error.strerror}")

    def _environment(self, instance: str) -> str:
        return os.path.join(self._directory, f"{instance}.environment")


def _tell(message_id: str, name: str, line: str) -> None:
    if not journal.send(journal_entry.of_event(message_id, name, line)):
        speech.note(line)


def _status(volumes: tuple[Volume, ...]) -> str:
    waiting_names = [units.unescape(volume.instance) for volume in volumes if waiting.waits(volume)]
    if waiting_names:
        return f"waiting for holders of {', '.join(waiting_names)}"
    return f"{len(volumes)} {'volume' if len(volumes) == 1 else 'volumes'}, none waits"
