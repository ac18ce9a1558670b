# SPDX-License-Identifier: Apache-2.0
"""`keyquorum attest collect`: get this machine's evidence (docs/attestation-collect.md)."""

from __future__ import annotations

import string

from keyquorum import settings, speech
from keyquorum.errors import TryAgainError, UnavailableError, UsageError
from keyquorum.evidence import bundle
from keyquorum.evidence.tpm_wire import BANKS
from keyquorum.linux import atomic_file, attester
from keyquorum.linux.tpm_attester import AzureAttester, TpmAttester

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from keyquorum.evidence.bundle import Bundle

_SOURCES = ("tsm", "sev-guest", "nitro", "tpm", "azure")
_MOST_PCRS = 24
_HANDLE_DIGITS = 8


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--nonce", required=True, metavar="HEX", help="what the verifier asks for")
    parser.add_argument("--out", required=True, metavar="FILE", help="where the evidence goes")
    parser.add_argument(
        "--from",
        dest="source",
        default="",
        choices=_SOURCES,
        metavar="NAME",
        help=f"ask {', '.join(_SOURCES[:-1])} or {_SOURCES[-1]} (default: the first of the first three)",
    )
    parser.add_argument("--tpm-key", default="", metavar="HANDLE", help="the attestation key, such as 0x81010002 (tpm)")
    parser.add_argument(
        "--bank", default="sha256", choices=tuple(BANKS), metavar="NAME", help="the PCRs' bank (tpm, azure)"
    )
    parser.add_argument("--pcrs", default="0,1,2,3,4,5,6,7", metavar="LIST", help="the PCRs to quote (tpm, azure)")


def run(arguments: Namespace) -> int:
    """Collect; raises `TryAgainError` if there is no evidence to be had."""
    try:
        nonce = bytes.fromhex(arguments.nonce)
    except ValueError:
        raise UsageError("--nonce is not hexadecimal") from None
    try:
        found = _collect(arguments, nonce)
    except UnavailableError as error:
        raise TryAgainError(f"no evidence can be had: {error.message}", error.hint) from None
    atomic_file.write(arguments.out, bundle.serialise(found))
    parts = ", ".join(f"{name} {len(data)} bytes" for name, data in found.parts.items())
    speech.say(f"{arguments.out} has evidence of {found.technology}: {parts}")
    return 0


def _collect(arguments: Namespace, nonce: bytes) -> Bundle:
    devices = attester.devices()
    if not arguments.source:
        return attester.collect_first(devices, nonce)
    if arguments.source in devices:
        return devices[arguments.source].collect(nonce)
    device, pcrs = settings.load().tpm_device, _pcrs(arguments.pcrs)
    if arguments.source == "azure":
        return AzureAttester(device, arguments.bank, pcrs).collect(nonce)
    return TpmAttester(device, _handle(arguments.tpm_key), arguments.bank, pcrs).collect(nonce)


def _pcrs(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() and len(word) <= len(str(_MOST_PCRS)) and int(word) < _MOST_PCRS for word in words):
        raise UsageError(f"--pcrs {text[:80]} is no list of PCRs", "as 0,2,4,7")
    return tuple(sorted({int(word) for word in words}))


def _handle(text: str) -> int:
    if not text:
        raise UsageError("a TPM is asked by the key it shall sign with", "give --tpm-key")
    digits = text.removeprefix("0x")
    if not 0 < len(digits) <= _HANDLE_DIGITS or not set(digits) <= set(string.hexdigits):
        raise UsageError(f"--tpm-key {text[:80]} is no handle", "as 0x81010002")
    return int(digits, 16)
