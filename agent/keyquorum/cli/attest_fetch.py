# SPDX-License-Identifier: Apache-2.0
"""`keyquorum attest fetch`: certificates and collateral for evidence, into the store (docs/attestation-fetch.md)."""

from __future__ import annotations

import time

from keyquorum import speech
from keyquorum.cli import shell
from keyquorum.errors import TryAgainError, UnavailableError, UsageError
from keyquorum.evidence import bundle, recognise
from keyquorum.linux import collateral_fetch, collateral_store, web
from keyquorum.linux.collateral_fetch import Services
from keyquorum.linux.collateral_store import Store

PRODUCTS = ("Milan", "Genoa")  # the processors that a report of version 2 may be of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="the evidence, as for verify; - for standard input")
    add_store(parser)
    parser.add_argument("--again", action="store_true", help="also what the store has already")
    parser.add_argument(
        "--product", default="", choices=PRODUCTS, metavar="NAME", help="of a report of version 2: Milan or Genoa"
    )
    parser.add_argument("--amd", default=collateral_fetch.AMD, metavar="URL", help="AMD's service, or a mirror")
    parser.add_argument("--intel", default=collateral_fetch.INTEL, metavar="URL", help="Intel's service, or a cache")
    parser.add_argument(
        "--intel-root", default=collateral_fetch.INTEL_ROOT, metavar="URL", help="the revocation list of Intel's root"
    )


def add_store(parser: ArgumentParser) -> None:
    """Declare --store."""
    default = collateral_store.DIRECTORY
    parser.add_argument("--store", default=default, metavar="DIR", help=f"fetched certificates (default: {default})")


def run(arguments: Namespace) -> int:
    """Fetch; raises `TryAgainError` if it cannot be had now."""
    data = shell.read_file(arguments.file, bundle.MAX_BUNDLE)
    given = bundle.parse(data) if recognise.technology(data) == recognise.BUNDLE else recognise.wrap(data)
    if given is None:
        raise UsageError(f"{arguments.file} is no evidence that is known here")
    services = Services(
        get=web.get,
        now=time.time,
        sleep=_sleep,
        amd=arguments.amd,
        intel=arguments.intel,
        intel_root=arguments.intel_root,
    )
    try:
        stored = collateral_fetch.fetch(
            given, Store(arguments.store), services, again=arguments.again, product=arguments.product
        )
    except UnavailableError as error:
        raise TryAgainError(error.message, error.hint) from None
    for name in stored:
        speech.say(f"stored {name}")
    if not stored:
        speech.say("nothing is missing")
    return 0


def _sleep(seconds: float) -> None:
    speech.note(f"waiting {seconds:.0f} s, as the server asks for")
    time.sleep(seconds)
