# SPDX-License-Identifier: Apache-2.0
"""`keyquorum attest policy`: check a policy for evidence and name what it lets pass; sign one with the owner's key."""

from __future__ import annotations

from keyquorum import settings, speech
from keyquorum.cli import shell
from keyquorum.envelope import public_key_file
from keyquorum.errors import MalformedError, TamperingError, UsageError
from keyquorum.evidence import policy_review
from keyquorum.evidence.instants import shown
from keyquorum.evidence.signed_policy import MAX_ENVELOPE
from keyquorum.linux import atomic_file, owner_key
from keyquorum.model import strict_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from keyquorum.envelope.dsse import PublicKey
    from keyquorum.evidence.policy_review import Review

_CHECK = "Read a policy, plain or signed, and say what it is for, when it counts and what it lets pass."
_SIGN = "Check a policy and sign it with the owner's key, for those who verify evidence."


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="ACTION")
    check = verbs.add_parser("check", help="read a policy and say what it lets pass", description=_CHECK)
    check.add_argument("file", metavar="FILE", help="the policy, - for standard input")
    add_signers(check)
    shell.add_json(check)
    sign = verbs.add_parser("sign", help="sign a policy with the owner's key", description=_SIGN)
    sign.add_argument("file", metavar="FILE", help="the policy, - for standard input")
    sign.add_argument("--out", required=True, metavar="FILE", help="where the signed policy goes")
    sign.add_argument("--key", default="", metavar="FILE", help="a private key (default: the setting owner_key)")
    sign.add_argument("--public-key", default="", metavar="FILE", help="also write the public key, for --signer")


def add_signers(parser: ArgumentParser) -> None:
    """Declare --signer."""
    parser.add_argument(
        "--signer",
        action="append",
        default=[],
        metavar="FILE",
        help="public keys in PEM that may sign policies; may be given again",
    )


def signers(arguments: Namespace) -> tuple[PublicKey, ...]:
    """Return the keys of --signer."""
    return tuple(
        key
        for path in arguments.signer
        for key in public_key_file.parse(shell.read_file(path, public_key_file.MAX_FILE), path)
    )


def run(arguments: Namespace) -> int:
    """Check or sign."""
    data = shell.read_file(arguments.file, MAX_ENVELOPE)
    if arguments.what == "sign":
        return _sign(data, arguments)
    keys = signers(arguments)
    found = policy_review.review(data, keys) if keys else _read(data, arguments.file)
    if arguments.json:
        shell.say_json(to_json(found))
        return 0
    speech.say(f"a policy for {found.kind.words}: {found.policy.name}, serial {found.policy.serial}")
    speech.say(f"  counts from {shown(found.policy.issued)} to before {shown(found.policy.expires)}")
    signed = "and the signature holds" if keys else "not verified here: give --signer"
    speech.say(f"  signed by {', '.join(found.signers)}, {signed}" if found.signers else "  not signed")
    speech.say("  lets pass:" if found.loose else "  lets nothing pass unjudged")
    for line in found.loose:
        speech.say(f"    {line}")
    return 0


def _read(data: bytes, path: str) -> Review:
    """Read what the caller gave: here a policy that does not parse is a mistake and no attack."""
    try:
        return policy_review.review(data)
    except TamperingError as problem:
        raise MalformedError(path, problem.where, problem.problem) from None


def _sign(data: bytes, arguments: Namespace) -> int:
    found = _read(data, arguments.file)
    path = arguments.key or settings.load().owner_key
    try:
        owner = owner_key.load(path)
    except FileNotFoundError:
        raise UsageError(f"there is no key {path}", "the first enrolment makes one, or give --key") from None
    envelope = strict_json.serialise(owner.sign(found.kind.payload_type, found.payload))
    atomic_file.write(arguments.out, envelope, 0o644)
    if arguments.public_key:
        atomic_file.write(arguments.public_key, public_key_file.serialise(owner.public), 0o644)
    speech.say(f"{arguments.out} is signed by {owner.public.key_id}")
    return 0


def to_json(found: Review) -> dict[str, object]:
    """Return what `check` says as data."""
    return {
        "version": 1,
        "command": "attest policy check",
        "kind": found.kind.payload_type,
        "name": found.policy.name,
        "serial": found.policy.serial,
        "issued": found.policy.issued,
        "expires": found.policy.expires,
        "signers": list(found.signers),
        "loose": list(found.loose),
        "exit_code": 0,
    }
