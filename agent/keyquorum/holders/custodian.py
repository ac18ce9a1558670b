# SPDX-License-Identifier: Apache-2.0
"""Holder `custodian`: the identity deposited with a service on the network (docs/custodian.md §7)."""

from __future__ import annotations

from keyquorum.errors import HolderError, KeyquorumError, RefusedError, TamperingError, UnavailableError
from keyquorum.holders import custodian_exchange, custodian_where
from keyquorum.holders.contract import Held, OpenTask, SealTask
from keyquorum.linux.tls_connection import Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class CustodianHolder:
    """See the contract in `holders.contract`."""

    keeps_envelope = False

    def needs_person(self, where: Mapping[str, Any]) -> bool:  # noqa: ARG002 (the contract's)
        """Whoever must approve sits at the custodian and not here."""
        return False

    def seal(self, task: SealTask) -> dict[str, Any]:
        """Deposit the identity at the custodian."""
        from keyquorum.holders.custodian_enrolment import deposit

        return deposit(task).to_json()

    def open(self, task: OpenTask) -> Held:
        """Ask for the identity back."""
        patience = Patience(deadline=task.deadline, cancel=task.cancel)
        try:
            return self._ask(task, patience)
        except HolderError:
            raise
        except TimeoutError:
            raise UnavailableError("the custodian does not answer in time") from None
        except TamperingError as error:
            raise RefusedError(error.message, error.hint, tampered=True) from None
        except KeyquorumError as error:
            raise UnavailableError(error.message, error.hint) from None

    def _ask(self, task: OpenTask, patience: Patience) -> Held:
        return Held(identity=custodian_exchange.ask(custodian_where.parse(task.where), task, patience))

    def erase(self, task: OpenTask) -> None:
        """Have the owner's custodian end this set's epoch."""
        from keyquorum.holders.custodian_enrolment import retire

        retire(task)

    def retire(self, _task: OpenTask) -> None:
        """Nothing to find: other sets of this volume are known here by nobody. Whoever ends one says so (`erase`)."""


HOLDER = CustodianHolder()
