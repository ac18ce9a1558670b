# SPDX-License-Identifier: Apache-2.0
"""The programs `keyquorum unlock`, `keyquorum check` and, at boot, `keyquorum-unlock`."""

from __future__ import annotations

import os
import sys
import time

from keyquorum import process, speech
from keyquorum.holders import REMOTE
from keyquorum.holders.contract import Tuning
from keyquorum.linux import boot_record
from keyquorum.linux.answers import LocalAnswers
from keyquorum.model import strict_json
from keyquorum.settings import load
from keyquorum.unlock import arguments as words_of
from keyquorum.unlock import telling
from keyquorum.unlock.gather import Context
from keyquorum.unlock.proxy import Proxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyquorum.secret import Secret
    from keyquorum.settings import Settings
    from keyquorum.unlock.arguments import Arguments
    from keyquorum.unlock.standby import Standby
    from keyquorum.unlock.telling import Person


def main(argv: Sequence[str] | None = None) -> int:
    """Run `keyquorum-unlock`: the same words as `keyquorum unlock`."""
    words = list(sys.argv[1:] if argv is None else argv)
    return process.run(lambda: command("unlock", words))


def command(verb: str, words: Sequence[str]) -> int:
    """Run `unlock` or `check` and return the exit code."""
    try:
        arguments = words_of.parse(words, words_of.CHECK_HELP if verb == "check" else words_of.UNLOCK_HELP)
    except words_of.HelpRequestedError as asked:
        sys.stdout.write(asked.message)
        return 0
    settings = load()
    listener = telling.choose(boot=arguments.boot) if verb == "unlock" else telling.Person()
    lingers = arguments.boot and settings.linger
    proxy = make_proxy(arguments, settings, listener).with_(wait_for_custodians=not lingers)
    standby = _stand_by(proxy) if lingers else None  # before threads and memory for secrets
    process.warn_of_unlocked_memory()
    report = proxy.check() if verb == "check" else proxy.unlock()
    listener.outcome(report)
    if arguments.boot or arguments.record:
        boot_record.keep_report(report)
    if arguments.json:
        speech.say(strict_json.serialise(report.to_json()).decode())
    if arguments.boot:
        hand_over_console()
    if standby is not None and report.outcome == "failed":
        standby.watch(at_once=any(verdict.kind in REMOTE for verdict in report.verdicts), asked=_asked())
    elif standby is not None:
        standby.dismiss()
    return report.exit_code


def _stand_by(proxy: Proxy) -> Standby | None:
    """Leave a child that asks again if this boot falls back, and knows then which custodians want to be left alone."""
    from keyquorum.unlock.standby import stand_by

    def watch(at_once: bool, asked: list[list[object]]) -> None:
        from keyquorum.unlock.linger import linger

        if asked:
            from keyquorum.unlock.remote import PACING

            PACING.take(asked)
        linger(proxy, at_once=at_once)

    return stand_by(watch)


def _asked() -> list[list[object]]:
    try:
        from keyquorum.unlock.remote import PACING
    except ImportError:  # an image without custodians
        return []
    return PACING.rows()


def make_proxy(arguments: Arguments, settings: Settings, listener: Person) -> Proxy:
    """Wire the proxy to this machine."""
    tuning = Tuning(
        tpm_device=settings.tpm_device,
        pcr_signatures=settings.pcr_signature,
        pkcs11_modules=settings.pkcs11_module,
        reference_directory=settings.reference,
        machine=settings.machine,
    )
    context = Context(
        answers=LocalAnswers(
            credentials=os.environ.get("CREDENTIALS_DIRECTORY", ""),
            descriptors=dict(arguments.answer_fds),
            prompt=ask_person if arguments.prompt else None,
            seconds=settings.prompt_timeout,
        ),
        tuning=tuning,
        now=int(time.time()),
        tell=listener.verdict,
    )
    return Proxy(arguments=arguments, settings=settings, context=context, warn=speech.warn, begin=listener.begin)


def hand_over_console() -> None:
    """Close standard output: the boot script waits for that, and not for threads stuck with a silent device."""
    try:
        sys.stdout.flush()
    except OSError:  # the script waits all the same
        boot_record.to_kernel_log("nobody reads standard output")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def ask_person(question: str, seconds: float, cancel: int) -> Secret | None:
    """Ask whoever is most likely there; the ways to do it are imported only now."""
    from keyquorum.linux import prompt

    way = prompt.choose()
    return way(question, seconds, cancel) if way is not None else None


if __name__ == "__main__":
    sys.exit(main())
