# SPDX-License-Identifier: Apache-2.0
"""The Key Reconstruction Proxy's story, in the order of docs/boot.md §3.

1 read the header once            4 rebuild the volume key from the shares
2 believe what the owner signed   5 hand it to dm-crypt, measure what was opened
3 gather fragments, k are enough  6 report, and forget everything
"""

from __future__ import annotations

import time

from keyquorum.errors import KeyquorumError, QuorumNotReachedError, TamperingError
from keyquorum.linux import block, cryptsetup
from keyquorum.linux.uevents import DeviceEvents
from keyquorum.model.report import HANDED_OUT, Report
from keyquorum.record import Record
from keyquorum.unlock.gather import Context, Gathering, Limits
from keyquorum.unlock.open_volume import Mapping, measure, open_volume, refuse_taken_name
from keyquorum.unlock.reconstruct import quorum_message, rebuild_passphrase, rebuild_volume_key
from keyquorum.unlock.verified_set import check_volume, load_header, verify_enrolment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.linux.cryptsetup import Header
    from keyquorum.secret import Secret
    from keyquorum.settings import Settings
    from keyquorum.unlock.arguments import Arguments
    from keyquorum.unlock.verified_set import Enrolment

_LOOK_AGAIN = 2.0  # seconds between looks for a holder whose arrival the kernel does not announce
_GLANCE, _BLINK = 0.5, 0.01  # seconds of waiting for custodians between looks for a device, and such a look
_TOO_LATE = 1.0  # with fewer seconds left nobody is asked again: no answer would be called silence


class Proxy(Record):
    """One volume to open: what was asked for, the machine's settings, and what the holders are given.

    `begin` hears which volume it is, before the first verdict.
    """

    arguments: Arguments
    settings: Settings
    context: Context
    warn: Callable[[str], None]
    begin: Callable[[Report], None] | None = None
    wait_for_custodians: bool = True  # false at a boot: whoever lingers asks them, while the prompt stands (I4)

    def unlock(self) -> Report:
        """Open the volume; every outcome is a report."""
        return self._reported("unlock", self._unlock)

    def check(self) -> Report:
        """Ask every holder, open nothing."""
        return self._reported("check", self._check)

    def hand_out(self, give: Callable[[Secret], None]) -> Report:
        """Give the passphrase of the keyslot that --with-keyslot added (docs/daemon.md §5); `give` must not keep it."""
        return self._reported("unlock", lambda report, header: self._hand_out(report, header, give))

    def _reported(self, command: str, story: Callable[[Report, Header], Report]) -> Report:
        device = self.arguments.device
        report = Report(
            command=command,
            device=device,
            volume="",
            name=self.arguments.name,
            outcome="failed",
            exit_code=1,
            missing=0,
            verdicts=(),
        )
        try:
            report = report.with_(device=block.resolve(device))
            with load_header(report.device, self.arguments.header) as header:
                report = report.with_(volume=header.uuid)
                self._refuse_another(header)
                if self.begin is not None:
                    self.begin(report)
                return story(report, header)
        except KeyquorumError as error:
            return report.with_(exit_code=error.exit_code, message=error.message, hint=error.hint)

    def _refuse_another(self, header: Header) -> None:
        """Refuse a volume without the UUID it was asked for by: udev's links come from the disk, which is hostile."""
        wanted = "" if self.arguments.header else block.named_uuid(self.arguments.device)
        if wanted and wanted != header.uuid.lower():
            raise TamperingError("LUKS2 header", "uuid", f"is {header.uuid}, asked for was {wanted}")

    def _unlock(self, report: Report, header: Header) -> Report:
        report = report.with_(name=self.arguments.name or f"keyquorum-{header.uuid}")
        if cryptsetup.is_active(report.name):
            refuse_taken_name(report.name, header.uuid)
            return report.with_(outcome="already open", exit_code=0)
        check_volume(header, self.arguments.volume)
        enrolment = verify_enrolment(header, self.settings.volumes)
        mapping = Mapping(name=report.name, flags=self.arguments.flags, link=self.arguments.link)

        def use(gathering: Gathering) -> None:
            with rebuild_volume_key(enrolment.volume_set, gathering.shares) as volume_key:
                gathering.close()
                open_volume(header, enrolment.volume_set, volume_key, mapping)
                measure(enrolment.volume_set, volume_key, mapping, self.settings.tpm_device, self.warn)

        return self._gathered(report, enrolment, use, "opened")

    def _hand_out(self, report: Report, header: Header, give: Callable[[Secret], None]) -> Report:
        enrolment = verify_enrolment(header, self.settings.volumes)

        def use(gathering: Gathering) -> None:
            with rebuild_passphrase(enrolment.volume_set, gathering.shares) as passphrase:
                gathering.close()
                give(passphrase)

        return self._gathered(report, enrolment, use, HANDED_OUT)

    def _gathered(self, report: Report, enrolment: Enrolment, use: Callable[[Gathering], None], outcome: str) -> Report:
        """Gather, and hand what was gathered to `use`."""
        gathering = Gathering(enrolment, self.context, self._limits())
        try:
            self._gather(gathering, report.name)
            use(gathering)
        except KeyquorumError as error:
            return _failed(report, gathering, error)
        finally:
            gathering.close()
        return report.with_(outcome=outcome, exit_code=0, verdicts=gathering.verdicts)

    def _check(self, report: Report, header: Header) -> Report:
        enrolment = verify_enrolment(header, self.settings.volumes)
        gathering = Gathering(enrolment, self.context, self._limits().with_(everyone=True))
        try:
            gathering.ask_unattended()
            gathering.begin_custodians()
            if self.arguments.prompt:
                gathering.ask_person()
            gathering.wait_for_custodians(self.settings.custodian_timeout)
            with rebuild_volume_key(enrolment.volume_set, gathering.shares) as volume_key:
                header.verify(volume_key)
        except KeyquorumError as error:
            return _failed(report, gathering, error)
        finally:
            gathering.close()
        return report.with_(outcome="quorum", exit_code=0, verdicts=gathering.verdicts)

    def _limits(self) -> Limits:
        """Who is there may take its time: however short --timeout is, it counts for holders that are not there."""
        seconds = self.arguments.timeout or self.settings.unlock_timeout
        return Limits(
            holder=self.settings.holder_timeout,
            person=self.settings.prompt_timeout,
            deadline=time.monotonic() + max(seconds, self.settings.holder_timeout),
            kinds=self.arguments.kinds,
            custodian=self.settings.custodian_timeout,
        )

    def _gather(self, gathering: Gathering, name: str) -> None:
        """Ask unattended holders, then custodians and a person, then wait for those that may still come (I3, I4)."""
        end = time.monotonic() + self.arguments.timeout
        gathering.ask_unattended()
        if self.wait_for_custodians:
            gathering.begin_custodians()
        if gathering.missing and self.arguments.prompt and gathering.person_could_help():
            gathering.begin_custodians()
            gathering.ask_person()
        if self.wait_for_custodians:
            _await_custodians(gathering, name)
        if not gathering.missing or not self.arguments.timeout:
            return
        events = DeviceEvents()
        try:
            while gathering.missing and (left := end - time.monotonic()) > 0:
                if not gathering.wait_for_custodians(min(left, _LOOK_AGAIN)):
                    events.wait(min(left, _LOOK_AGAIN))
                if cryptsetup.is_active(name) or end - time.monotonic() < _TOO_LATE:
                    return
                gathering.ask_unattended()
                gathering.begin_custodians()
        finally:
            events.close()


def _await_custodians(gathering: Gathering, name: str) -> None:
    """Wait for custodians up to their deadlines; a device that comes meanwhile is not kept waiting (I3)."""
    if not gathering.wait_for_custodians(0.0):
        return
    events = DeviceEvents()
    try:
        while gathering.wait_for_custodians(_GLANCE):
            if cryptsetup.is_active(name):
                return
            if events.wait(_BLINK):
                gathering.ask_unattended()
    finally:
        events.close()


def _failed(report: Report, gathering: Gathering, error: KeyquorumError) -> Report:
    hint = error.hint
    if isinstance(error, QuorumNotReachedError):
        error = QuorumNotReachedError(quorum_message(gathering.missing))
    return report.with_(
        exit_code=error.exit_code,
        missing=gathering.missing,
        verdicts=gathering.verdicts,
        message=error.message,
        hint=hint,
    )
