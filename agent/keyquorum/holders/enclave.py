# SPDX-License-Identifier: Apache-2.0
"""Holder `enclave`: a custodian that proves what it runs before it is told anything (docs/holders-enclave.md)."""

from __future__ import annotations

from keyquorum.holders import custodian_exchange, enclave_where
from keyquorum.holders.contract import Held, OpenTask, SealTask
from keyquorum.holders.custodian import CustodianHolder
from keyquorum.linux.tls_connection import Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class EnclaveHolder(CustodianHolder):
    """See the contract in `holders.contract`. What judges evidence is imported when an enclave is asked."""

    def seal(self, task: SealTask) -> dict[str, Any]:
        """Deposit the identity in an enclave that has proven what it is."""
        from keyquorum.holders.enclave_enrolment import deposit

        return deposit(task)

    def _ask(self, task: OpenTask, patience: Patience) -> Held:
        from keyquorum.holders.enclave_proof import Proof

        where, attested = enclave_where.parse(task.where)
        proof = Proof(where, attested, custodian_exchange.fragment_of(task.subject))
        return Held(identity=custodian_exchange.ask(where, task, patience, proof.demand), warning=attested.warning)

    def erase(self, task: OpenTask) -> None:
        """Have the owner's enclave end this set's epoch; what it is need not be proven for that."""
        from keyquorum.holders.custodian_enrolment import retire

        where, _ = enclave_where.parse(task.where)
        retire(task.with_(where=where.to_json()))


HOLDER = EnclaveHolder()
