# SPDX-License-Identifier: Apache-2.0
"""What the administrator's verbs share: arguments that several take, the machine's wiring, and the volume's key."""

from __future__ import annotations

import os
import time

from keyquorum import process, speech
from keyquorum.enroll.request import Machine
from keyquorum.errors import KeyquorumError, MalformedError, UsageError
from keyquorum.holders.contract import Tuning
from keyquorum.linux import luks_admin, prompt
from keyquorum.linux.answers import LocalAnswers
from keyquorum.model import strict_json
from keyquorum.secret import Secret, VolumeKey
from keyquorum.settings import load
from keyquorum.unlock.arguments import answer_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from keyquorum.linux.cryptsetup import Header

_MAX_KEY_FILE = 16 * 1024
_TYPING = 300.0  # seconds an administrator has for an answer: a sheet takes longer than a boot would wait


def add_device(parser: ArgumentParser) -> None:
    """Declare DEVICE and --header."""
    parser.add_argument("device", metavar="DEVICE", help="the volume: a path, or UUID=…, PARTUUID=…, LABEL=…, ID=…")
    parser.add_argument("--header", default="", metavar="FILE", help="the detached LUKS2 header")


def add_json(parser: ArgumentParser) -> None:
    """Declare --json."""
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON object")


def add_yes(parser: ArgumentParser) -> None:
    """Declare --yes."""
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask whether to go on")


def add_answers(parser: ArgumentParser) -> None:
    """Declare --pin-fd and --no-prompt."""
    parser.add_argument(
        "--pin-fd",
        action="append",
        default=[],
        metavar="NAME=FD",
        help="read holder NAME's PIN, passphrase or sheet from file descriptor FD; may be given again",
    )
    parser.add_argument("--no-prompt", action="store_true", help="never ask a person")


def answer_fds(arguments: Namespace) -> tuple[tuple[str, int], ...]:
    """Return --pin-fd's pairs."""
    return tuple(answer_descriptor(word) for word in arguments.pin_fd)


def machine(arguments: Namespace) -> Machine:
    """Wire this machine for a story of the administrator's side."""
    settings = load()
    process.warn_of_unlocked_memory()
    return Machine(
        settings=settings,
        tuning=Tuning(
            tpm_device=settings.tpm_device,
            pcr_signatures=settings.pcr_signature,
            pkcs11_modules=settings.pkcs11_module,
            reference_directory=settings.reference,
            machine=settings.machine,
        ),
        answers=LocalAnswers(
            credentials=os.environ.get("CREDENTIALS_DIRECTORY", ""),
            descriptors=dict(answer_fds(arguments)),
            prompt=None if arguments.no_prompt else prompt.choose(),
            seconds=max(settings.prompt_timeout, _TYPING),
            keep=True,
        ),
        now=int(time.time()),
        tell=speech.note,
        warn=speech.warn,
    )


def read_file(path: str, cap: int) -> bytes:
    """Read a file that is no secret, or standard input for "-"; raises `UsageError`, also for more than `cap` bytes."""
    pieces, size = [], 0
    try:
        descriptor = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while size <= cap and (piece := os.read(descriptor, cap + 1 - size)):
                pieces.append(piece)
                size += len(piece)
        finally:
            if descriptor:
                os.close(descriptor)
    except ValueError:
        raise UsageError("a file name holds a zero byte") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if size > cap:
        raise MalformedError(path, "", f"has more than {cap} bytes")
    return b"".join(pieces)


def read_key_file(path: str) -> Secret:
    """Read a key file, or standard input for "-", as cryptsetup does: every byte counts."""
    with Secret(_MAX_KEY_FILE + 1) as buffer:
        used = 0
        try:
            descriptor = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while used < buffer.size and (got := os.readv(descriptor, [buffer.view[used:]])):
                    used += got
            finally:
                if descriptor:
                    os.close(descriptor)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        if not used:
            raise UsageError(f"{path} is empty")
        if used > _MAX_KEY_FILE:
            raise UsageError(f"{path} is larger than {_MAX_KEY_FILE >> 10} KiB")
        return buffer.part(0, used)


def obtain_volume_key(header: Header, arguments: Namespace, answers: Machine) -> VolumeKey:
    """Return the volume key, by key file, volume key file or a passphrase typed; verified against the header."""
    if arguments.volume_key_file:
        with read_key_file(arguments.volume_key_file) as raw:
            volume_key = VolumeKey.from_view(raw.view)
        try:
            header.verify(volume_key)
        except KeyquorumError:
            volume_key.wipe()
            raise UsageError(f"{arguments.volume_key_file} is not the volume key of {header.data_path}") from None
        return volume_key
    if arguments.key_file:
        passphrase = read_key_file(arguments.key_file)
    else:
        passphrase = answers.answers.ask("volume", f"a passphrase that opens {header.data_path}")
    with passphrase:
        return luks_admin.volume_key_by_passphrase(header, passphrase)


def add_key_sources(parser: ArgumentParser) -> None:
    """Declare how the volume's own key is given."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--key-file", default="", metavar="FILE", help="a key file of the volume, - for standard input")
    group.add_argument(
        "--volume-key-file", default="", metavar="FILE", help="the volume key itself, - for standard input"
    )


def say_json(outcome: dict[str, object]) -> None:
    """Print an outcome as one JSON object."""
    speech.say(strict_json.serialise(outcome).decode())


def confirm(question: str) -> None:
    """Ask for YES on the terminal; raises `UsageError` for anything else, or where nobody can answer."""
    try:
        with open("/dev/tty", "r+b", buffering=0) as terminal:
            terminal.write(f"{question}\nType YES to go on: ".encode())
            answer = terminal.readline(64).strip()
    except OSError:
        raise UsageError("there is no terminal to ask on", "give --yes") from None
    if answer != b"YES":
        raise UsageError("not done, nothing was changed")
