# SPDX-License-Identifier: Apache-2.0
"""The words of `unlock`, `check` and `keyquorum-unlock`, read without argparse, which a boot cannot afford."""

from __future__ import annotations

from keyquorum.errors import UsageError
from keyquorum.holders import KINDS
from keyquorum.record import Record
from keyquorum.unlock.open_volume import CRYPTTAB_FLAGS, KEY_TYPES, KeyLink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

UNLOCK_HELP = """\
usage: keyquorum unlock DEVICE [--name NAME] [options]

Open an enrolled LUKS2 volume from its fragments, through the kernel keyring. All holders that need no person are
asked at once; PINs, passphrases and sheets are asked for only if they are needed for the quorum.

  DEVICE            the volume: a path, or UUID=…, PARTUUID=…, LABEL=…, PARTLABEL=…, ID=…
  --name NAME       the mapping's name, /dev/mapper/NAME (default: keyquorum-UUID)
  --holder KIND     ask only holders of this kind (disk, tpm, pkcs11, passphrase, sheet,
                    custodian, enclave); may be given again
  --timeout S       keep trying for S seconds while missing holders may still come (default: ask each one once)
  --pin-fd NAME=FD  read holder NAME's PIN, passphrase or sheet from file descriptor FD; may be given again
  --header FILE     the detached LUKS2 header
  --options LIST    crypttab options, separated by commas: discard, read-only, same-cpu-crypt,
                    submit-from-crypt-cpus, no-read-workqueue, no-write-workqueue; others are ignored
  --link-key KEYRING::[%TYPE:]DESCRIPTION
                    also link the volume key into a keyring, e.g. @u::%user:backup (cryptsetup 2.7 and later);
                    TYPE is user (default) or logon
  --no-prompt       never ask a person
  --json            print the outcome as one JSON object

Exit codes: 0 opened (or open already), 1 failed, 2 usage, 3 quorum not reached, 4 tampering refused, 5 try again.

example: keyquorum unlock /dev/vdb --name data --timeout 30
"""

CHECK_HELP = """\
usage: keyquorum check DEVICE [--holder KIND] [--pin-fd NAME=FD] [--header FILE] [--no-prompt] [--json]

Ask every holder for its fragment and say what each one answers, then whether the quorum would open the volume.
Opens nothing and changes nothing. Options as in `keyquorum unlock --help`.

example: keyquorum check /dev/vdb
"""


class Arguments(Record):
    """What was asked for. `timeout` is 0.0 when each holder is asked once; `volume` the UUID the header must have."""

    device: str
    name: str = ""
    volume: str = ""
    kinds: tuple[str, ...] = ()
    timeout: float = 0.0
    answer_fds: tuple[tuple[str, int], ...] = ()
    header: str = ""
    flags: int = 0
    link: KeyLink | None = None
    prompt: bool = True
    json: bool = False
    boot: bool = False
    record: bool = False


class HelpRequestedError(UsageError):
    """`--help` was given; the message is the help text."""


_WITH_VALUE = frozenset(
    {"--name", "--volume", "--holder", "--timeout", "--pin-fd", "--header", "--options", "--link-key"}
)
_FLAGS = {
    "--no-prompt": ("prompt", False),
    "--json": ("json", True),
    "--boot": ("boot", True),
    "--record": ("record", True),
}


def parse(words: Sequence[str], help_text: str) -> Arguments:
    """Read the command line; raises `UsageError`, or `HelpRequestedError` for --help."""
    device, rest = "", list(words)
    values: list[tuple[str, str]] = []
    flags = Arguments(device="-")
    while rest:
        word = rest.pop(0)
        option, separator, value = word.partition("=")
        if word in {"--help", "-h"}:
            raise HelpRequestedError(help_text)
        if word in _FLAGS:
            flags = flags.with_(**dict([_FLAGS[word]]))
        elif option in _WITH_VALUE:
            if not separator:
                if not rest:
                    raise UsageError(f"{option} needs a value", _SEE_HELP)
                value = rest.pop(0)
            values.append((option, value))
        elif word.startswith("-"):
            raise UsageError(f"{word} is no option here", _SEE_HELP)
        elif device:
            raise UsageError(f"one DEVICE at a time, not {device} and {word}", _SEE_HELP)
        else:
            device = word
    if not device:
        raise UsageError("DEVICE is missing", _SEE_HELP)
    return _with_values(flags.with_(device=device), values)


_SEE_HELP = "see --help"


def _with_values(arguments: Arguments, values: list[tuple[str, str]]) -> Arguments:
    for option, value in values:
        if option == "--name":
            arguments = arguments.with_(name=mapping_name(value))
        elif option in {"--header", "--volume"}:
            arguments = arguments.with_(**{option[2:]: value})
        elif option == "--holder":
            if value not in KINDS:
                raise UsageError(f"{value!r} is no kind of holder", "kinds are " + ", ".join(KINDS))
            arguments = arguments.with_(kinds=(*arguments.kinds, value))
        elif option == "--timeout":
            arguments = arguments.with_(timeout=_seconds(value))
        elif option == "--pin-fd":
            arguments = arguments.with_(answer_fds=(*arguments.answer_fds, answer_descriptor(value)))
        elif option == "--link-key":
            arguments = arguments.with_(link=_key_link(value))
        else:
            flags = [CRYPTTAB_FLAGS.get(option_name, 0) for option_name in value.split(",")]
            arguments = arguments.with_(flags=arguments.flags | _union(flags))
    return arguments


def mapping_name(value: str) -> str:
    """Return a name that a mapping may have; raises `UsageError`."""
    if value in {"", ".", ".."} or "/" in value or not value.isprintable() or len(value) > 127:
        raise UsageError(f"{value!r} is no name for a mapping")
    return value


def _union(flags: list[int]) -> int:
    total = 0
    for flag in flags:
        total |= flag
    return total


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise UsageError(f"--timeout {value}: must be seconds, from 0 to 86400")
    return seconds


def _key_link(value: str) -> KeyLink:
    """Read the value of --link-key, which is written as for cryptsetup's --link-vk-to-keyring."""
    keyring, _, key = value.partition("::")
    kind, colon, description = key.removeprefix("%").partition(":") if key.startswith("%") else ("user", ":", key)
    if not keyring or not colon or kind not in KEY_TYPES or not description:
        raise UsageError(
            f"--link-key {value}: must be KEYRING::[%TYPE:]DESCRIPTION, where TYPE is {' or '.join(KEY_TYPES)}",
            "for example @u::%user:backup",
        )
    return KeyLink(keyring=keyring, kind=kind, description=description)


def answer_descriptor(value: str) -> tuple[str, int]:
    """Read the value of --pin-fd; raises `UsageError`."""
    name, _, number = value.partition("=")
    if not name or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise UsageError(f"--pin-fd {value}: must be NAME=FD")
    return name, int(number)
