# SPDX-License-Identifier: Apache-2.0
"""`keyquorum attest serve`: appraise evidence for custodians and sign the results (docs/attestation-service.md §2)."""

from __future__ import annotations

import os
import signal
import time

from keyquorum import speech
from keyquorum.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--name", required=True, metavar="NAME", help="the service's, by which custodians know it")
    parser.add_argument(
        "--key", required=True, metavar="FILE", help="the private key that signs results (Ed25519, PEM)"
    )
    parser.add_argument("--certificate", required=True, metavar="FILE", help="the server's certificate, in PEM")
    parser.add_argument("--tls-key", required=True, metavar="FILE", help="the server's private key, in PEM")
    parser.add_argument(
        "--clients", required=True, metavar="FILE", help="authorities of the custodians' certificates, in PEM"
    )
    parser.add_argument("--listen", default="[::]:8445", metavar="ADDRESS", help="HOST:PORT; default [::]:8445")


def run(arguments: Namespace) -> int:
    """Serve until SIGTERM."""
    from keyquorum.custodian import counters, server
    from keyquorum.custodian.admission import Limits
    from keyquorum.custodian.appraising import Bureau, Verifier
    from keyquorum.custodian.connection import Manner
    from keyquorum.custodian.site_settings import address
    from keyquorum.linux import listening, owner_key

    at, limits = address(arguments.listen, "--listen"), Limits()
    try:
        signer = owner_key.load(arguments.key)
    except FileNotFoundError:
        raise UsageError(f"there is no key {arguments.key}", "openssl genpkey -algorithm ed25519 makes one") from None
    verifier = Verifier(name=arguments.name, signer=signer, now=lambda: int(time.time()))
    manner = Manner(
        limits=limits,
        counters=counters.make(1)[1],
        respond=Bureau(verifier, limits).respond,
        issued=lambda _certificate: True,  # TLS has looked whose it is, and labels play no part here
    )
    listener = listening.bound(at.host, at.port)
    running = server.Server(
        [listener], lambda: server.tls_context(arguments.certificate, arguments.tls_key, arguments.clients), manner
    )
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)  # the pipe tells that one came
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    speech.note(f"listening on {listening.shown(listener)}")
    speech.note(f"{arguments.name} signs by {signer.public.raw.hex()}")
    running.serve({read_end: lambda: False})
    running.stop()
    return 0
