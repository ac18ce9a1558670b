# SPDX-License-Identifier: Apache-2.0
"""Judge what a machine says of itself, and explain the judgement.

A machine with a TPM, SEV-SNP, TDX, SGX or Nitro can prove what it is and what it started: that is evidence. verify
judges a file of it by a signed policy and says of every check what it means; collect gets it from the machine that it
runs on. Neither changes anything.

for example:
  keyquorum attest policy check strict.json
  keyquorum attest policy sign strict.json --out strict.signed --public-key owner.pub
  keyquorum attest verify report.bin --policy strict.signed --signer owner.pub --certificates vcek.pem --nonce HEX
  keyquorum attest collect --nonce HEX --out machine.json
  keyquorum attest explain snp.policy.debug
"""

from __future__ import annotations

from keyquorum import speech
from keyquorum.cli import attest_collect, attest_fetch, attest_policy, attest_serve, attest_verify
from keyquorum.errors import UsageError
from keyquorum.evidence import explanation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = "judge what a machine proves of itself"
_VERIFY = """Judge a file of evidence by a signed policy, and say what each check means.

Exit codes: 0 trusted, 2 nothing was judged, 4 untrusted."""
_COLLECT = "Get this machine's evidence and write it into one file, which keyquorum attest verify judges anywhere."
_FETCH = "Get what evidence needs to be judged from AMD or Intel, once, so that verify needs no network."
_SERVE = "Appraise evidence for custodians that leave it to this service, and sign the results, until SIGTERM."
_EXPLAIN = "Say in words what a check asks and what it is good for, or list the checks whose names begin with CHECK."
_POLICY = "Check a policy for evidence, or sign one. What may be in it is on the page of its technology."


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = verbs.add_parser(
        "verify",
        help="judge a file of evidence by a signed policy",
        description=_VERIFY,
        formatter_class=parser.formatter_class,
    )
    attest_verify.configure(verify)
    collect = verbs.add_parser("collect", help="get this machine's evidence", description=_COLLECT)
    attest_collect.configure(collect)
    fetch = verbs.add_parser("fetch", help="get certificates and collateral for evidence", description=_FETCH)
    attest_fetch.configure(fetch)
    policy = verbs.add_parser("policy", help="check and sign policies for evidence", description=_POLICY)
    attest_policy.configure(policy)
    serve = verbs.add_parser("serve", help="appraise evidence for custodians", description=_SERVE)
    attest_serve.configure(serve)
    explain = verbs.add_parser("explain", help="say in words what a check asks", description=_EXPLAIN)
    explain.add_argument("check", metavar="CHECK", help="a check's name, such as snp.policy.debug, or how it begins")


def run(arguments: Namespace) -> int:
    """Do one of them; return 0, or 4 for evidence that is not trusted, 5 if none can be had."""
    if arguments.action == "verify":
        return attest_verify.run(arguments)
    if arguments.action == "collect":
        return attest_collect.run(arguments)
    if arguments.action == "fetch":
        return attest_fetch.run(arguments)
    if arguments.action == "policy":
        return attest_policy.run(arguments)
    if arguments.action == "serve":
        return attest_serve.run(arguments)
    return _explain(arguments.check)


def _explain(name: str) -> int:
    if name in explanation.REFERENCES:
        found = explanation.explain(name)
        speech.say(found.name)
        speech.say(found.words)
        speech.say(f"demanded by: {found.spec}")
        return 0
    names = explanation.beginning_with(name)
    if not names:
        raise UsageError(f"no check is called {name}, and none begins so", "keyquorum attest explain snp. lists some")
    for one in names:
        speech.say(one)
    return 0
