# SPDX-License-Identifier: Apache-2.0
"""`keyquorum attest verify`: judge a file of evidence and say what each check means (docs/attestation-command.md)."""

from __future__ import annotations

import datetime as dt
import time

from keyquorum import speech
from keyquorum.cli import attest_fetch, attest_policy, shell
from keyquorum.errors import MalformedError, TamperingError, UsageError
from keyquorum.evidence import bundle, carried, certificate, explanation, recognise, result, snp_table, trial
from keyquorum.evidence.instants import shown
from keyquorum.evidence.result import Outcome, Status
from keyquorum.evidence.signed_policy import MAX_ENVELOPE
from keyquorum.evidence.trial import Known
from keyquorum.linux.collateral_store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from keyquorum.evidence.bundle import Bundle
    from keyquorum.evidence.result import AttestationResult, Check

_MAX_AK = 1024
_TITLES = {
    "snp": "a report of AMD SEV-SNP",
    "tdx": "a quote of Intel TDX",
    "sgx": "a quote of Intel SGX",
    "intel": "a quote of Intel",
    "nitro": "a document of AWS Nitro",
    "tpm": "a quote of a TPM",
    "azure-snp": "an Azure machine on SEV-SNP",
    "azure-tdx": "an Azure machine on TDX",
}
_ORDER = (Outcome.FAILED, Outcome.WAIVED, Outcome.PASSED)


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "file", metavar="FILE", help="the evidence as its technology makes it, or a bundle; - for standard input"
    )
    parser.add_argument(
        "--policy", action="append", default=[], metavar="FILE", help="a signed policy; again for each part (Azure)"
    )
    attest_policy.add_signers(parser)
    parser.add_argument(
        "--nonce", default="", metavar="HEX", help="what the evidence must carry because it was asked for"
    )
    parser.add_argument(
        "--certificates",
        action="append",
        default=[],
        metavar="FILE",
        help="certificates of SEV-SNP in DER or PEM: the chip's, the intermediate, the root; may be given again",
    )
    attest_fetch.add_store(parser)
    parser.add_argument("--collateral", default="", metavar="FILE", help="Intel's collateral, as one JSON file")
    parser.add_argument("--log", default="", metavar="FILE", help="the event log of a TPM or trust domain")
    parser.add_argument("--ak", default="", metavar="FILE", help="the enrolled attestation key of a TPM, TPMT_PUBLIC")
    parser.add_argument(
        "--at", default="", metavar="TIME", help="judge for this instant: 2026-06-01T00:00:00Z or seconds"
    )
    parser.add_argument(
        "--roots", default="", metavar="FILE", help="believe these roots instead of the makers' (tests only)"
    )
    shell.add_json(parser)


def run(arguments: Namespace) -> int:
    """Judge; return 0 if trusted and 4 if not."""
    given = _collected(arguments)
    found = trial.judge(given, _known(given, arguments))
    code = 0 if found.status is Status.TRUSTED else TamperingError.exit_code
    if arguments.json:
        shell.say_json(
            {
                "version": 1,
                "command": "attest verify",
                "result": result.to_json(found),
                "exit_code": code,
            }
        )
    else:
        _tell(found)
    return code


def _collected(arguments: Namespace) -> Bundle:
    """Return the evidence with all that was given beside it; an option goes before the bundle's own part."""
    data = shell.read_file(arguments.file, bundle.MAX_BUNDLE)
    whole = recognise.technology(data) == recognise.BUNDLE
    given = bundle.parse(data) if whole else recognise.wrap(data)
    if given is None:
        raise UsageError(
            f"{arguments.file} is no evidence that is known here",
            "known: reports of SEV-SNP, quotes of TDX, SGX and TPMs, documents of Nitro, reports of Azure, bundles",
        )
    parts = {
        "certificates": b"".join(map(_certificates, arguments.certificates)),
        "collateral": shell.read_file(arguments.collateral, bundle.MAX_BUNDLE) if arguments.collateral else b"",
        "log": shell.read_file(arguments.log, bundle.MAX_BUNDLE) if arguments.log else b"",
    }
    try:
        for name, part in parts.items():
            given = given.with_part(name, part) if part else given
    except TamperingError as problem:
        raise UsageError(f"--{problem.where} {problem.problem}") from None
    return Store(arguments.store).completed(given)


def _certificates(path: str) -> bytes:
    data = shell.read_file(path, certificate.MAX_BUNDLE)
    try:
        if snp_table.is_table(data):
            return snp_table.parse(data).chain
        if not data.lstrip().startswith(b"-----"):
            return data
        return b"".join(certificate.from_pem(data.strip(), path, certificate.MAX_BUNDLE))
    except TamperingError as problem:
        raise MalformedError(path, problem.where, problem.problem) from None


def _known(given: Bundle, arguments: Namespace) -> Known:
    signers = attest_policy.signers(arguments)
    if not arguments.policy or not signers:
        raise UsageError("say by what to judge, and who may sign that", "give --policy and --signer")
    roots = None
    if arguments.roots:
        speech.warn(f"the roots in {arguments.roots} are believed instead of the makers': for tests only")
        roots = _roots(arguments.roots)
    return Known(
        policies=tuple(shell.read_file(path, MAX_ENVELOPE) for path in arguments.policy),
        signers=signers,
        nonce=_nonce(given, arguments.nonce),
        now=_at(arguments.at),
        ak=shell.read_file(arguments.ak, _MAX_AK) if arguments.ak else b"",
        roots=roots,
    )


def _roots(path: str) -> tuple[certificate.Certificate, ...]:
    try:
        return certificate.load_bundle(shell.read_file(path, certificate.MAX_BUNDLE), path)
    except TamperingError as problem:
        raise MalformedError(path, problem.where, problem.problem) from None


def _nonce(given: Bundle, text: str) -> bytes:
    if not text:
        found = carried.nonce(given).hex()
        raise UsageError(
            "say with --nonce what was asked for: evidence that answers no question may be anybody's and of any day",
            f"it carries {found}; give that only if you asked for it" if found else "",
        )
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError("--nonce is not hexadecimal") from None


def _at(text: str) -> int:
    """Return the instant of --at, now if there is none; an instant without a zone is of UTC."""
    if not text:
        return int(time.time())
    if text.isdecimal() and len(text) <= 12:
        return int(text)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--at {text} is no instant", "as 2026-06-01T00:00:00Z, or in seconds since 1970") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp())


def _tell(found: AttestationResult) -> None:
    speech.say(f"{found.status}: {_TITLES[found.technology]}, judged for {shown(found.at)}")
    if found.reason:
        speech.say(f"  {found.reason}")
    for outcome in _ORDER:
        made = [check for check in found.checks if check.outcome is outcome]
        if made:
            speech.say("")
            speech.say(f"{outcome}: {len(made)} of {len(found.checks)} checks")
        for check in made:
            _tell_check(check)
    if found.claims:
        speech.say("")
        speech.say("the machine, as it was proven:")
    for name, value in found.claims.items():
        speech.say(f"  {name}: {value}")


def _tell_check(check: Check) -> None:
    speech.say(f"  {check.name}")
    speech.say(f"    asks:     {explanation.explain(check.name).words}")
    if check.outcome is Outcome.FAILED:
        speech.say(f"    expected: {check.expected}")
        speech.say(f"    found:    {check.actual}")
    elif check.outcome is Outcome.WAIVED:
        speech.say(f"    waived:   {check.expected} ({check.actual})")
