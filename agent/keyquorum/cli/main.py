# SPDX-License-Identifier: Apache-2.0
"""Where the command `keyquorum` starts: find the verb, run it, turn what went wrong into words and an exit code."""

from __future__ import annotations

import sys

from keyquorum import __version__, process
from keyquorum.errors import KeyquorumError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Verbs that a boot or a script may call often do without argparse and everything it imports.
_QUICK = ("unlock", "check")
_HELP = frozenset({"--help", "-h"})

VERBS = {
    "create": "make a new LUKS2 volume under a quorum",
    "enroll": "put an existing LUKS2 volume under a quorum",
    "unlock": "open a volume from its fragments",
    "check": "ask every holder of a volume, open nothing",
    "status": "show what is enrolled here and how it was opened",
    "recover": "regain access with a sheet or passphrase fragment",
    "unenroll": "take a volume out of its quorum",
    "holder": "prepare and look at fragment disks",
    "policy": "check and explain a policy file",
    "attest": "judge what a machine proves of itself",
    "machine": "enrol this machine at custodians",
    "custodian": "keep fragments for other machines, as a service",
    "log": "read and check a custodian's log",
}

HELP = f"""\
usage: keyquorum VERB [arguments]

A LUKS2 volume opens from any k of n key fragments, and no single place holds its key.

{chr(10).join(f"  {verb:<10}{summary}" for verb, summary in VERBS.items())}

  keyquorum VERB --help   explains one verb
  keyquorum --version     shows the version

Exit codes: 0 done, 1 failed, 2 usage, 3 quorum not reached, 4 tampering refused, 5 try again later.

first steps:
  keyquorum holder init-disk /dev/vdb
  keyquorum policy check policy.toml
  keyquorum enroll /dev/vda2 --policy policy.toml
  keyquorum check /dev/vda2
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return process.run(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in {"--help", "-h", "help"}:
        sys.stdout.write(HELP)
        return 0 if words else UsageError.exit_code
    if words[0] in {"--version", "-V"}:
        sys.stdout.write(f"keyquorum {__version__}\n")
        return 0
    verb, *rest = words
    if verb in _QUICK:
        from keyquorum.unlock.main import command

        code = command(verb, rest)
        if verb == "check" and not _HELP.intersection(rest):
            _warn_of_certificates()
        return code
    if verb not in VERBS:
        raise UsageError(f"{verb} is no verb", "keyquorum --help lists them")
    return _run_verb(verb, rest)


def _warn_of_certificates() -> None:
    """Say that a certificate soon ends by which custodians, found in order just now, know this machine."""
    import time

    from keyquorum import speech
    from keyquorum.holders import machine_certificates
    from keyquorum.settings import load

    machine_certificates.warn(load().machine, int(time.time()), speech.warn)


def _run_verb(verb: str, rest: list[str]) -> int:
    from argparse import ArgumentParser, RawDescriptionHelpFormatter
    from importlib import import_module

    module = import_module(f"keyquorum.cli.{verb}")
    parser = ArgumentParser(
        prog=f"keyquorum {verb}",
        description=(module.__doc__ or VERBS[verb]).strip(),
        formatter_class=RawDescriptionHelpFormatter,
    )
    module.configure(parser)
    try:
        arguments = parser.parse_args(rest)
    except SystemExit as stop:  # argparse has already printed help or usage
        return stop.code if isinstance(stop.code, int) else KeyquorumError.exit_code
    code: int = module.run(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
