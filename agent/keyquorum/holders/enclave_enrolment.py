# SPDX-License-Identifier: Apache-2.0
"""Depositing in an enclave: what it is judged by is read and pinned, then it proves itself, then it gets the deposit.

docs/holders-enclave.md §2, §4. Only enrolment imports this file.
"""

from __future__ import annotations

from keyquorum.envelope import dsse
from keyquorum.errors import MalformedError, TamperingError, UsageError
from keyquorum.evidence import certificate, policy_review, trial
from keyquorum.evidence.signed_policy import MAX_ENVELOPE
from keyquorum.holders import custodian_enrolment, custodian_exchange, enclave_where
from keyquorum.holders.custodian_where import Where
from keyquorum.holders.enclave_proof import ENCLAVES, Proof
from keyquorum.holders.enclave_where import Attested, PolicyFile
from keyquorum.linux import atomic_file
from keyquorum.native import sodium

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyquorum.holders.contract import SealTask
    from keyquorum.model.holder_options import EnclaveOptions


def read(options: EnclaveOptions, owner: dsse.PublicKey | None = None) -> tuple[tuple[PolicyFile, ...], bytes]:
    """Return the appraisal policies, and the SHA-256 of the test roots (b"" without any).

    With `owner`, each must be signed by it. Raises `MalformedError` or `UsageError` naming the file.
    """
    policies = tuple(_policy(path, owner) for path in options.appraisal)
    kinds = {one.kind for one in policies}
    if len(kinds) != len(policies) or not any(set(trial.POLICIES[name]) == kinds for name in ENCLAVES):
        raise UsageError(
            f"the policies {', '.join(options.appraisal)} are not those of one kind of enclave",
            "Azure's machines need three, all others one: docs/attestation-azure.md",
        )
    if not options.test_roots:
        return policies, b""
    data = atomic_file.read(options.test_roots, certificate.MAX_BUNDLE)
    try:
        certificate.load_bundle(data, options.test_roots)
    except TamperingError as error:
        raise MalformedError(options.test_roots, error.where, error.problem) from None
    return policies, sodium.sha256(data)


def _policy(path: str, owner: dsse.PublicKey | None) -> PolicyFile:
    data = atomic_file.read(path, MAX_ENVELOPE)
    if not data:
        raise UsageError(f"there is no appraisal policy {path}", "keyquorum attest policy sign FILE --out PATH")
    try:
        found = policy_review.review(data, (owner,) if owner is not None else ())
    except TamperingError as error:
        hint = "" if owner is None else "the volume's owner signs it: keyquorum attest policy sign"
        raise MalformedError(path, error.where, error.problem, hint) from None
    if not found.signers:
        raise UsageError(f"{path} is not signed", f"keyquorum attest policy sign {path} --out PATH")
    return PolicyFile(path=path, kind=found.kind.payload_type, serial=found.policy.serial)


def deposit(task: SealTask) -> dict[str, Any]:
    """Have the enclave prove itself and take the deposit; return `where`. Raises as a custodian's deposit does."""
    options: EnclaveOptions = task.options
    if task.owner is None:
        raise UsageError(f"{task.subject.name} needs the owner, who signs its appraisal policies")
    policies, roots_hash = read(options, task.owner.public)
    attested = Attested(
        signer=task.owner.public.raw,
        policies=policies,
        collateral=options.collateral,
        test_roots=options.test_roots,
        test_roots_hash=roots_hash,
    )
    fragment = custodian_exchange.fragment_of(task.subject)

    def proof_for(where: Where) -> custodian_exchange.Prove:
        return Proof(where, attested, fragment).demand

    return enclave_where.to_json(custodian_enrolment.deposit(task, proof_for), attested)
