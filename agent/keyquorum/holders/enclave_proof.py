# SPDX-License-Identifier: Apache-2.0
"""Having an enclave prove what it is, on the connection on which it is then asked (docs/holders-enclave.md §4).

The only file on a boot's way that leads to `cryptography`; it is imported when an enclave is asked, and not before.
"""

from __future__ import annotations

import os
import time

from keyquorum.envelope.dsse import PublicKey
from keyquorum.errors import HolderError, KeyquorumError, RefusedError, UnavailableError
from keyquorum.evidence import bundle, certificate, enclave_binding, trial
from keyquorum.evidence.enclave_binding import EnclaveBinding
from keyquorum.evidence.result import Status
from keyquorum.evidence.signed_policy import MAX_ENVELOPE
from keyquorum.evidence.trial import Known
from keyquorum.holders import custodian_answer
from keyquorum.holders.custodian_call import call
from keyquorum.linux import atomic_file
from keyquorum.linux.collateral_store import Store
from keyquorum.model import enclave_messages
from keyquorum.model.enclave_messages import EVIDENCE_TYPE, EvidenceQuestion
from keyquorum.native import sodium

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.evidence.bundle import Bundle
    from keyquorum.evidence.certificate import Certificate
    from keyquorum.holders.custodian_where import Where
    from keyquorum.holders.enclave_where import Attested
    from keyquorum.linux.tls_connection import Connection, Patience
    from keyquorum.model.fragment_name import FragmentName
    from keyquorum.model.machine_identity import MachineIdentity

PATH = "/v1/attest"
ENCLAVES = tuple(name for name in trial.POLICIES if name != "tpm")  # a plain TPM encloses nothing
_AZURE = "azure-"


class Proof:
    """What one enclave has to prove for one fragment, and by what it is judged."""

    def __init__(
        self, where: Where, attested: Attested, fragment: FragmentName, clock: Callable[[], float] = time.time
    ) -> None:
        self._where, self._attested, self._fragment, self._clock = where, attested, fragment, clock

    def demand(self, connection: Connection, machine: MachineIdentity, patience: Patience) -> None:
        """Return once the enclave has proven itself.

        Raises `HolderError`, which says of test roots that they are, `TamperingError` or `TimeoutError`.
        """
        known = machine.custodian(self._where.custodian)
        if known is None:
            raise UnavailableError(f"this machine is not enrolled at {self._where.custodian}")
        question = EvidenceQuestion(fragment=self._fragment, nonce=os.urandom(enclave_binding.NONCE))
        binding = EnclaveBinding(
            nonce=question.nonce,
            custodian=self._where.custodian,
            signing_key=self._where.key,
            tls_key=connection.peer_key(),
            sealing_key=known.sealing,
            fragment=self._fragment,
        )
        try:
            self._judge(self._ask(connection, question, patience), binding)
        except HolderError as error:
            if self._attested.warning:
                error.message = f"{error.message} (with TEST ROOTS)"
            raise

    def _ask(self, connection: Connection, question: EvidenceQuestion, patience: Patience) -> Bundle:
        where = self._where
        answer = call(connection, where.custodian, PATH, enclave_messages.request(question), patience)
        if answer.status == 404:
            raise UnavailableError(
                f"{where.custodian} does not prove what it is", "keyquorum custodian serve --evidence NAME, there"
            )
        if answer.status != 200:
            raise custodian_answer.unexpected(answer, where)
        payload = custodian_answer.believe(answer.body, EVIDENCE_TYPE, where)
        return bundle.parse(enclave_messages.parse_payload(payload, where.custodian, question))

    def _judge(self, given: Bundle, binding: EnclaveBinding) -> None:
        who = self._where.custodian
        kinds = {one.kind for one in self._attested.policies}
        if given.technology not in ENCLAVES or set(trial.POLICIES[given.technology]) != kinds:
            raise RefusedError(
                f"{who} proves itself by {given.technology}, which its appraisal policy is not for", tampered=True
            )
        whole = Store(self._attested.collateral).completed(given)
        on_tpm = given.technology.startswith(_AZURE)
        known = Known(
            policies=tuple(_read(one.path) for one in self._attested.policies),
            signers=(PublicKey(raw=self._attested.signer),),
            nonce=(enclave_binding.qualifying_data if on_tpm else enclave_binding.report_data)(binding),
            now=int(self._clock()),
            roots=self._roots(),
            lowest_serials={one.kind: one.serial for one in self._attested.policies},
        )
        try:
            found = trial.judge(whole, known)
        except HolderError:
            raise
        except KeyquorumError as error:
            raise RefusedError(f"the evidence of {who} cannot be judged: {error.message}", tampered=True) from None
        if found.status is not Status.TRUSTED:
            raise RefusedError(f"{who} is not the enclave that it should be: {found.reason}", tampered=True)

    def _roots(self) -> tuple[Certificate, ...] | None:
        """Return what is believed instead of the makers' roots, None for those."""
        path = self._attested.test_roots
        if not path:
            return None
        data = atomic_file.read(path, certificate.MAX_BUNDLE)
        if sodium.sha256(data) != self._attested.test_roots_hash:
            raise RefusedError(f"{path} is missing, or another file than at the enrolment", tampered=True)
        return certificate.load_bundle(data, path)


def _read(path: str) -> bytes:
    data = atomic_file.read(path, MAX_ENVELOPE)
    if not data:
        raise RefusedError(
            f"the appraisal policy {path} is missing", "put it back; in a boot image: update-initramfs -u"
        )
    return data
