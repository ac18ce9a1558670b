# SPDX-License-Identifier: Apache-2.0
"""Renewing certificates: in time, late, and by whom (docs/custodian.md §11.4)."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keyquorum.custodian import authority, checkpoint, connection, renewing
from keyquorum.custodian.authority import Authority
from keyquorum.custodian.enrolling import Door
from keyquorum.custodian.store import Machine, open_store
from keyquorum.envelope import dsse
from keyquorum.errors import KeyquorumError, RefusedError, TamperingError, UsageError
from keyquorum.model import enrolment_messages, renewal_messages
from keyquorum.model.renewal_messages import Renewal
from unit.custodian.notes import LOG, ORIGIN, private
from unit.custodian.offices import NOW, SIGNER, Custodian, WebServer
from unit.custodian.stores import OPERATOR
from unit.custodian.test_enrolling import spki

KEY = private(61)
OWN = authority.found(ORIGIN, NOW)
LABELS = {"region": "eu-north", "country": "NO", "operator": "acme"}
DAY = 86400
YEAR = 365 * DAY
LATE = NOW + 4 * YEAR


@pytest.fixture
def custodian(tmp_path: Path) -> Custodian:
    made = Custodian(tmp_path, WebServer())
    made.store.enrol_machine(Machine("db-1", hashlib.sha256(spki(KEY)).digest(), b"ak"), OPERATOR, NOW)
    made.clock.now = LATE
    return made


def certificate(own: Authority = OWN, name: str = "db-1", key: Any = KEY) -> bytes:
    return own.issue_client(spki(key), name, LABELS, NOW).public_bytes(Encoding.DER)


def renew(custodian: Custodian, old: bytes, key: Any = KEY, origin: str = ORIGIN) -> x509.Certificate:
    payload = renewal_messages.renewal_payload(Renewal(custodian=origin, certificate=old))
    body = renewal_messages.renewal_body(payload, key.sign(renewal_messages.signed_message(payload)))
    said = renewing.renew(custodian.store, custodian.office, Door(authority=OWN), body)
    found = dsse.verify(dsse.parse(said, ""), enrolment_messages.CERTIFICATE_TYPE, (SIGNER.public,))
    given = enrolment_messages.parse_certificate(found, ORIGIN, "db-1")
    assert custodian.store.log.entry(given.number).act == "renewed-machine"
    return x509.load_der_x509_certificate(given.certificate)


@pytest.mark.parametrize("now", [LATE, NOW + 5 * YEAR, NOW + 12 * YEAR])
def test_a_machine_gets_the_same_certificate_with_another_time(custodian: Custodian, now: int) -> None:
    """Four years old, just over, and of a machine that was switched off for seven years after that."""
    custodian.clock.now = now
    found = renew(custodian, certificate())
    assert authority.labels_of(found) == ("db-1", LABELS)
    assert authority.key_der(found) == spki(KEY)
    assert OWN.issued(found)
    assert found.not_valid_after_utc == dt.datetime.fromtimestamp(now + 5 * YEAR, dt.UTC)


def test_nothing_is_good_for_longer_than_what_it_leads_to(custodian: Custodian) -> None:
    custodian.clock.now = NOW + 18 * YEAR
    assert renew(custodian, certificate()).not_valid_after_utc == OWN.certificate.not_valid_after_utc


def of_version(number: int) -> bytes:
    """A certificate that says to be of another version; 2 is the third."""
    found = bytearray(certificate())
    place = found.index(bytes.fromhex("a003020102")) + 4
    found[place] = number
    return bytes(found)


def test_a_client_whose_certificate_cannot_be_read_is_hung_up_on() -> None:
    """Where TLS asks no more than possession of the key, anybody may show anything."""
    assert connection.client_of(of_version(2), "192.0.2.1", OWN.issued).ours
    with pytest.raises(OSError, match="cannot be read"):
        connection.client_of(of_version(3), "192.0.2.1", OWN.issued)


def refused(custodian: Custodian, error: type[KeyquorumError], words: str, *what: Any, **how: Any) -> None:
    before = custodian.store.size
    with pytest.raises(error, match=words):
        renew(custodian, *what, **how)
    assert custodian.store.size == before


def test_who_gets_none(custodian: Custodian) -> None:
    other = private(62)
    stranger = authority.found(ORIGIN, NOW)
    refused(custodian, TamperingError, "not of the certificate's key", certificate(), key=other)
    refused(custodian, TamperingError, "not issued by this custodian", certificate(stranger))
    refused(custodian, TamperingError, "is another.example", certificate(), origin="another.example")
    refused(custodian, TamperingError, "no X.509", b"junk")
    refused(custodian, TamperingError, "no X.509", of_version(3))
    refused(custodian, RefusedError, "no enrolled machine", certificate(key=other), key=other)
    refused(custodian, RefusedError, "no enrolled machine", certificate(name="web-1"))
    custodian.clock.now = NOW + YEAR
    refused(custodian, UsageError, "is not due", certificate())
    custodian.clock.now = LATE
    custodian.store.revoke_machine("db-1", OPERATOR, LATE, "")
    refused(custodian, RefusedError, "is revoked", certificate())


def test_whoever_lost_the_answer_asks_again_and_the_log_does_not_grow(custodian: Custodian) -> None:
    old = certificate()
    first, size = renew(custodian, old), custodian.store.size
    for custodian.clock.now in (LATE, LATE + 1, LATE + DAY - 1):
        again = renew(custodian, old)
        assert again.not_valid_after_utc == first.not_valid_after_utc
        assert authority.labels_of(again) == authority.labels_of(first)
        assert custodian.store.size == size
    custodian.clock.now = LATE + DAY
    assert renew(custodian, old).not_valid_after_utc == first.not_valid_after_utc + dt.timedelta(days=1)
    assert custodian.store.size == size + 1


def test_a_machine_does_not_use_up_anothers_day(custodian: Custodian) -> None:
    other, size = private(62), custodian.store.size
    custodian.store.enrol_machine(Machine("web-9", hashlib.sha256(spki(other)).digest(), b"ak"), OPERATOR, NOW)
    renew(custodian, certificate())
    payload = renewal_messages.renewal_payload(
        Renewal(custodian=ORIGIN, certificate=certificate(name="web-9", key=other))
    )
    body = renewal_messages.renewal_body(payload, other.sign(renewal_messages.signed_message(payload)))
    renewing.renew(custodian.store, custodian.office, Door(authority=OWN), body)
    assert custodian.store.size == size + 3


def test_an_older_copy_learns_when_a_machine_was_renewed(custodian: Custodian, tmp_path: Path) -> None:
    """Also what was renewed after a backup was made counts for the day."""
    custodian.store.backup(str(tmp_path / "copy.db"))
    size = custodian.store.size
    renew(custodian, certificate())
    newest = checkpoint.verify(custodian.store.sign_checkpoint(LOG), LOG.key)
    copy = open_store(str(tmp_path / "copy.db"))
    copy.catch_up(newest, custodian.store.entries(size))
    custodian.store, before = copy, copy.size
    renew(custodian, certificate())
    assert copy.size == before


@pytest.mark.parametrize("before", [False, True])
def test_a_machine_that_is_revoked_meanwhile_gets_none(
    custodian: Custodian, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """An operator revokes it after the request was looked at; also when it was renewed just before."""
    old = certificate()
    if before:
        renew(custodian, old)
    due = renewal_messages.due

    def revoked_here(begins: int, ends: int, now: int) -> bool:
        custodian.store.revoke_machine("db-1", OPERATOR, LATE, "stolen")
        return due(begins, ends, now)

    monkeypatch.setattr(renewal_messages, "due", revoked_here)
    with pytest.raises(RefusedError, match="is revoked"):
        renew(custodian, old)
    assert custodian.store.log.entry(custodian.store.size - 1).act == "revoked-machine"


def test_an_authority_that_is_over_issues_nothing(custodian: Custodian) -> None:
    ends = int(OWN.certificate.not_valid_after_utc.timestamp())
    for custodian.clock.now in (ends, ends + 1, ends + YEAR):
        refused(custodian, UsageError, "authority is over", certificate())
    custodian.clock.now = ends - 1
    assert renew(custodian, certificate()).not_valid_after_utc == OWN.certificate.not_valid_after_utc
    server = OWN.issue_server(OWN.private.public_key(), ["custodian.example"], NOW)
    with pytest.raises(UsageError, match="authority is over"):
        OWN.reissue(server, ends)


def test_only_what_is_ours_is_remembered_as_checked() -> None:
    """Whoever comes without a certificate must not push out those of machines."""
    stranger, ours = authority.found(ORIGIN, NOW), x509.load_der_x509_certificate(certificate())
    assert OWN.issued(ours)
    before = authority._demand_issued.cache_info()
    for _ in range(3):
        assert not OWN.issued(x509.load_der_x509_certificate(certificate(stranger)))
    assert OWN.issued(ours)
    after = authority._demand_issued.cache_info()
    assert (after.currsize, after.hits) == (before.currsize, before.hits + 1)


def test_messages_that_are_not_whole(custodian: Custodian) -> None:
    payload = renewal_messages.renewal_payload(Renewal(custodian=ORIGIN, certificate=certificate()))
    for body in (b"", b"{}", renewal_messages.renewal_body(b"{}", b""), renewal_messages.renewal_body(payload, b"x")):
        with pytest.raises(TamperingError):
            renewing.renew(custodian.store, custodian.office, Door(authority=OWN), body)


@pytest.mark.parametrize(("now", "due"), [(0, False), (199, False), (200, True), (300, True), (999, True)])
def test_the_last_third(now: int, due: bool) -> None:
    assert renewal_messages.due(0, 300, now) is due
