# SPDX-License-Identifier: Apache-2.0
"""Depositing a fragment's identity at a custodian, and ending that again (docs/custodian.md §11.3).

Only enrolment imports this file.
"""

from __future__ import annotations

import time

from keyquorum.envelope import recipient_key
from keyquorum.envelope.hpke import X_WING
from keyquorum.errors import KeyquorumError, TamperingError, UnavailableError, UsageError
from keyquorum.holders import custodian_answer, custodian_exchange, custodian_where
from keyquorum.holders.contract import OpenTask
from keyquorum.holders.custodian_call import call
from keyquorum.holders.custodian_exchange import fragment_of
from keyquorum.holders.custodian_where import Where
from keyquorum.linux.tls_connection import Patience
from keyquorum.model import deposit_messages, strict_json
from keyquorum.model.deposit_messages import DepositRequest, Retirement, SealedIdentity
from keyquorum.native import sodium

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.holders.contract import Papers, SealTask, Signer
    from keyquorum.holders.custodian_exchange import Prove
    from keyquorum.model.holder_options import CustodianOptions
    from keyquorum.model.machine_identity import KnownCustodian

_PATIENCE = 60.0  # seconds for the whole: the custodian tries the sealed identity, in a token perhaps


def deposit(task: SealTask, proof_for: Callable[[Where], Prove] | None = None) -> Where:
    """Seal the identity to the custodian and have it acknowledged; return what the set keeps.

    `proof_for` gives what has the custodian prove what it is before the deposit is sent.

    Raises `UsageError` for a machine that is not enrolled there, `HolderError` when the custodian says no.
    """
    options: CustodianOptions = task.options
    papers, owner = task.papers, task.owner
    if papers is None or owner is None:
        raise UsageError(f"{task.subject.name} needs a release policy and reference values")
    machine = custodian_exchange.load_identity(task.tuning.machine)
    known = machine.custodian(options.id)
    if known is None:
        raise UsageError(f"this machine is not enrolled at {options.id}", "keyquorum machine enroll --invitation FILE")
    where = Where(
        custodian=options.id,
        key=known.key,
        authority=known.authority,
        addresses=known.addresses,
        bank=papers.bank,
        pcrs=papers.pcrs,
    )
    payload = deposit_messages.deposit_payload(_request(task, known, papers, owner))
    body = deposit_messages.deposit_body(
        owner.sign(deposit_messages.DEPOSIT_TYPE, payload), papers.release, papers.reference
    )
    deadline = time.monotonic() + _PATIENCE
    asking = OpenTask(subject=task.subject, where={}, answers=task.answers, tuning=task.tuning, deadline=deadline)
    _say(
        where,
        asking,
        ("/v1/deposit", payload, body),
        custodian_exchange.no_proof if proof_for is None else proof_for(where),
    )
    return where


def retire(task: OpenTask) -> None:
    """Have the custodian end the fragment's epoch and those before it; the deposits are then overwritten there.

    Raises `UnavailableError` without an owner to sign it, `HolderError` when the custodian says no.
    """
    if task.owner is None:
        raise UnavailableError("only the owner may end a deposit, and its key is not here")
    where = custodian_where.parse(task.where)
    retirement = Retirement(custodian=where.custodian, owner=task.owner.public.raw, fragment=fragment_of(task.subject))
    payload = deposit_messages.retirement_payload(retirement)
    body = strict_json.serialise(task.owner.sign(deposit_messages.RETIREMENT_TYPE, payload))
    _say(where, task, ("/v1/retire", payload, body), custodian_exchange.no_proof)


def _say(where: Where, task: OpenTask, word: tuple[str, bytes, bytes], prove: Prove) -> None:
    """Bring the owner's word to the custodian, and believe that it was written down only by its signed answer."""
    path, payload, body = word
    machine = custodian_exchange.load_identity(task.tuning.machine)
    patience = Patience(deadline=task.deadline)
    try:
        with custodian_exchange.connect(where, task, machine, patience) as connection:
            prove(connection, machine, patience)
            answer = call(connection, where.custodian, path, body, patience)
    except TimeoutError:
        raise UnavailableError(f"{where.custodian} did not acknowledge in time") from None
    if answer.status != 200:
        raise custodian_answer.unexpected(answer, where)
    acknowledged = custodian_answer.believe(answer.body, deposit_messages.ACKNOWLEDGEMENT_TYPE, where)
    deposit_messages.parse_acknowledgement(acknowledged, where.custodian, sodium.sha256(payload))


def _request(task: SealTask, known: KnownCustodian, papers: Papers, owner: Signer) -> DepositRequest:
    options, fragment = task.options, fragment_of(task.subject)
    info = deposit_messages.sealing_info(options.id, known.machine, fragment)
    try:
        enc, ciphertext = recipient_key.parse(X_WING, known.sealing).seal(task.identity, info)
    except TamperingError as error:
        raise KeyquorumError(f"{task.tuning.machine}: {error.message}", "enrol this machine anew there") from None
    return DepositRequest(
        custodian=options.id,
        owner=owner.public.raw,
        machine=known.machine,
        fragment=fragment,
        sealed=SealedIdentity(enc=enc, ciphertext=ciphertext),
        policy=sodium.sha256(strict_json.serialise(papers.release)),
        reference=sodium.sha256(strict_json.serialise(papers.reference)),
    )
