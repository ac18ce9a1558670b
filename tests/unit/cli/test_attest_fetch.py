# SPDX-License-Identifier: Apache-2.0
"""Fetching from servers on the loopback that speak as AMD and Intel do, and the store that verify takes from."""

from __future__ import annotations

import datetime as dt
import itertools
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from keyquorum.errors import KeyquorumError, MalformedError, TamperingError, UnavailableError
from keyquorum.evidence import bundle, certificate, trial, wanted
from keyquorum.evidence.bundle import Bundle
from keyquorum.evidence.result import Status
from keyquorum.linux import collateral_fetch, web
from keyquorum.linux.collateral_fetch import Services, fetch
from keyquorum.linux.collateral_store import Store
from keyquorum.linux.web_request import Answer
from unit.cli.test_attest import Desk
from unit.evidence import intel_maker, snp_maker
from unit.evidence.bundle_maker import sample
from unit.evidence.tpm_maker import NOW

CHIP = sample("snp").bundle
BARE = Bundle(technology="snp", parts={"report": CHIP.part("report")})
QUOTE = Bundle(technology="tdx", parts={"quote": sample("tdx").bundle.part("quote")})
LEAF, ASK, ARK = bundle.split_certificates(CHIP.part("certificates"))
CRL = snp_maker.revocation_list()
CRL_PATH = "/vcek/v1/Milan/crl"
LEAF_PATH = f"/vcek/v1/Milan/{snp_maker.CHIP.hex()}?blSPL=4&teeSPL=0&snpSPL=24&ucodeSPL=219"


def intels() -> dict[str, Answer]:
    """Return what Intel's service answers."""
    found = intel_maker.Scene().collected()
    assert found is not None

    def signed(name: str, data: bytes, signature: bytes, chain: bytes, header: str) -> Answer:
        body = b'{"%s":%s,"signature":"%s"}' % (name.encode(), data, signature.hex().encode())
        return Answer(200, {header: urllib.parse.quote(chain.decode())}, body)

    fmspc = intel_maker.FMSPC.hex()
    return {
        f"/tdx/certification/v4/tcb?fmspc={fmspc}": signed(
            "tcbInfo", found.tcb_info, found.tcb_info_signature, found.tcb_info_chain, "tcb-info-issuer-chain"
        ),
        "/tdx/certification/v4/qe/identity": signed(
            "enclaveIdentity", found.qe_identity, found.qe_identity_signature, found.qe_identity_chain,
            "sgx-enclave-identity-issuer-chain",
        ),
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der": Answer(200, {}, found.pck_crl),
        "/root.der": Answer(200, {}, found.root_crl),
    }  # fmt: skip


def amds() -> dict[str, Answer]:
    """Return what AMD's service answers."""
    loaded = [certificate.load(one, "x").parsed for one in (ASK, ARK)]
    chain = b"".join(one.public_bytes(Encoding.PEM) for one in loaded)
    return {
        "/vcek/v1/Milan/cert_chain": Answer(200, {}, chain),
        LEAF_PATH: Answer(200, {}, LEAF),
        CRL_PATH: Answer(200, {}, CRL),
    }


class Played:
    """Servers, a clock and a bed: answers by path, in turn where there are several; what was asked, and slept."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.asked, self.slept = dict(answers), list[str](), list[float]()
        self.time = float(NOW)

    def get(self, url: str) -> Answer:
        path = url.partition("://")[2].partition("/")[2]
        self.asked.append(f"/{path}")
        found: Answer | list[Answer] = self.answers.get(f"/{path}", Answer(404, {}, b"<html>"))
        return found.pop(0) if isinstance(found, list) else found

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    @property
    def services(self) -> Services:
        return Services(
            get=self.get, now=lambda: self.time, sleep=self.sleep, amd="http://amd/", intel="http://intel",
            intel_root="http://intel/root.der",
        )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_chips_certificates_are_fetched_once(store: Store) -> None:
    played = Played(amds())
    names = fetch(BARE, store, played.services)
    assert [name.rpartition(".")[2] for name in names] == ["pem", "der", "crl"]
    assert played.asked == list(amds())
    assert store.completed(BARE) == CHIP.with_part("crl", CRL)
    assert trial.judge(store.completed(BARE), sample("snp").known()).status is Status.TRUSTED
    assert fetch(BARE, store, played.services) == ()
    assert len(played.asked) == 3
    assert len(fetch(BARE, store, played.services, again=True)) == 3


def test_a_list_is_fetched_until_it_ends(store: Store) -> None:
    played = Played(amds())
    fetch(BARE, store, played.services)
    played.time += 40 * 86400
    assert fetch(BARE, store, played.services) == ("snp-Milan.crl",)
    store.put("snp-Milan.crl", b"rubbish")
    assert fetch(BARE, store, played.services) == ("snp-Milan.crl",)
    fresh = Store(f"{store._directory}-fresh")
    with pytest.raises(TamperingError):
        fetch(BARE, fresh, Played(amds() | {CRL_PATH: Answer(200, {}, b"<html>")}).services)
    assert store.names()
    assert "snp-Milan.crl" not in fresh.names()


LISTS = {
    "the authority is on it": snp_maker.revocation_list(65537),
    "it has ended": snp_maker.revocation_list(end=dt.datetime.fromtimestamp(NOW - 60, dt.UTC)),
    "a stranger signed it": snp_maker.revocation_list(signer=snp_maker.STRANGER),
}


@pytest.mark.parametrize("wrong", LISTS)
def test_a_list_that_is_there_counts(wrong: str) -> None:
    found = trial.judge(CHIP.with_part("crl", LISTS[wrong]), sample("snp").known())
    assert [check.name for check in found.failed] == ["snp.chain.revocation"]
    with pytest.raises(TamperingError, match="revocation list"):
        trial.judge(CHIP.with_part("crl", b"rubbish"), sample("snp").known())


def test_what_is_above_a_providers_key_is_fetched(store: Store) -> None:
    """Its own certificate the host sends along; AMD gives it to nobody else."""
    scene = snp_maker.Scene(kind="VLEK")
    leaf, *above = scene.certificates()
    chain = b"".join(certificate.load(one, "x").parsed.public_bytes(Encoding.PEM) for one in above)
    played = Played({"/vlek/v1/Milan/cert_chain": Answer(200, {}, chain), "/vlek/v1/Milan/crl": Answer(200, {}, CRL)})
    bare = Bundle(technology="snp", parts={"report": scene.signed_report()})
    assert fetch(bare, store, played.services) == ("snp-vlek-Milan.pem", "snp-vlek-Milan.crl")
    assert store.completed(bare) == bare.with_part("crl", CRL)
    whole = store.completed(bare.with_part("certificates", leaf))
    assert bundle.split_certificates(whole.part("certificates")) == (leaf, *above)


def test_of_an_old_report_somebody_says_the_product(store: Store) -> None:
    report = b"\x02" + BARE.part("report")[1:0x188] + bytes(24) + BARE.part("report")[0x1A0:]
    old = Bundle(technology="snp", parts={"report": report})
    assert len(fetch(old, store, Played(amds()).services, product="Milan")) == 3
    assert store.completed(old) == old, "verify does not guess"


def test_amd_is_asked_once_in_ten_seconds(store: Store) -> None:
    played = Played(amds())
    fetch(BARE, store, played.services)
    assert played.slept == [10.0, 10.0]  # between chain, leaf and list
    played.time += 4
    fetch(BARE, store, played.services, again=True)
    assert played.slept == [10.0, 10.0, 6.0, 10.0, 10.0]
    played.time -= 5000  # a clock that was set back delays nobody
    fetch(BARE, store, played.services, again=True)
    assert played.slept[5:] == [10.0] * 2
    for rubbish in (b"", b"x", b"9" * 5000):
        store.put("amd.last", rubbish)
        fetch(BARE, store, played.services, again=True)
    assert played.slept[7:] == [10.0] * 6


def test_a_server_that_asks_for_patience_gets_it_for_a_while(store: Store) -> None:
    busy = Answer(429, {"retry-after": "20"}, b"")
    played = Played(amds() | {LEAF_PATH: [busy, Answer(503, {}, b""), Answer(200, {}, LEAF)]})
    fetch(BARE, store, played.services)
    assert played.slept == [10.0, 20.0, 10.0, 10.0]
    played = Played(amds() | {LEAF_PATH: [busy, busy, busy]})
    with pytest.raises(UnavailableError, match=r"amd is asked too often$"):
        fetch(BARE, store, played.services, again=True)
    played = Played(amds() | {LEAF_PATH: [Answer(429, {"retry-after": "3600"}, b"")]})
    with pytest.raises(UnavailableError, match="come back in 3600 seconds"):
        fetch(BARE, store, played.services, again=True)


WRONG = {
    "unknown chip": ({LEAF_PATH: Answer(404, {}, b"")}, KeyquorumError),
    "an error page": ({LEAF_PATH: Answer(200, {}, b"<html>sorry</html>")}, TamperingError),
    "nothing": ({LEAF_PATH: Answer(200, {}, b"")}, TamperingError),
    "elsewhere": ({LEAF_PATH: Answer(302, {"location": "http://other/"}, b"")}, KeyquorumError),
    "no chain": ({"/vcek/v1/Milan/cert_chain": Answer(200, {}, b"<html>")}, TamperingError),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_certificate_is_not_kept(store: Store, case: str) -> None:
    changes, error = WRONG[case]
    with pytest.raises(error):
        fetch(BARE, store, Played(amds() | changes).services)
    assert store.completed(BARE) == BARE


def test_a_platforms_collateral_is_fetched_until_it_ends(store: Store) -> None:
    played = Played(intels())
    assert fetch(QUOTE, store, played.services) == (f"intel-tdx-{intel_maker.FMSPC.hex()}-platform.json",)
    assert sorted(played.asked) == sorted(intels())
    whole = store.completed(QUOTE)
    assert trial.judge(whole, sample("tdx").known()).status is Status.TRUSTED
    assert fetch(QUOTE, store, played.services) == ()
    played.time += 40 * 86400
    assert len(fetch(QUOTE, store, played.services)) == 1
    assert played.slept == []


@pytest.mark.parametrize("path", intels())
def test_what_is_no_collateral_is_not_kept(store: Store, path: str) -> None:
    for wrong in (Answer(200, {}, b"<html>"), Answer(200, intels()[path].headers, b"")):
        with pytest.raises(TamperingError):
            fetch(QUOTE, store, Played(intels() | {path: wrong}).services)
    assert store.completed(QUOTE) == QUOTE


def test_evidence_for_which_nothing_can_be_fetched(store: Store) -> None:
    assert wanted.wanted(sample("tpm").bundle) is None
    assert fetch(sample("nitro").bundle, store, Played({}).services) == ()
    nobody = Bundle(technology="snp", parts={"report": snp_maker.Scene(report={0x48: b"\x1c"}).signed_report()})
    with pytest.raises(TamperingError, match="neither a chip's nor a provider's"):
        fetch(nobody, store, Played({}).services)
    old = Bundle(
        technology="snp",
        parts={"report": b"\x02" + BARE.part("report")[1:0x188] + bytes(24) + BARE.part("report")[0x1A0:]},
    )
    with pytest.raises(TamperingError, match="does not say of which product"):
        fetch(old, store, Played({}).services)
    broken = Bundle(technology="snp", parts={"report": b"cut"})
    assert store.completed(broken) == broken


def test_what_azures_machines_want_is_that_of_their_hardware() -> None:
    snp, tdx = sample("azure-snp").bundle, sample("azure-tdx").bundle
    assert isinstance(wanted.wanted(snp), wanted.ChipWanted)
    assert isinstance(wanted.wanted(tdx), wanted.PlatformWanted)


def test_turin_has_a_short_chip_and_one_part_more() -> None:
    report = snp_maker.Scene(product="Turin").signed_report()
    found = wanted.wanted(Bundle(technology="snp", parts={"report": report}))
    assert isinstance(found, wanted.ChipWanted)
    assert found.leaf_path.startswith(f"/vcek/v1/Turin/{snp_maker.CHIP[:8].hex()}?fmcSPL=1&blSPL=1&")


def test_where_the_makers_are_asked() -> None:
    assert {collateral_fetch.AMD, collateral_fetch.INTEL} == {
        "https://kdsintf.amd.com", "https://api.trustedservices.intel.com",
    }  # fmt: skip


# Over the loopback


class Server(ThreadingHTTPServer):
    """Answers as `answers` say."""

    answers: dict[str, Answer]
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        answer = self.server.answers.get(self.path, Answer(404, {}, b"no"))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        promised = len(answer.content) * (2 if "X-Cut" in answer.headers else 1)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        found.answers = intels() | amds()
        turn = threading.Thread(target=found.serve_forever, daemon=True)
        turn.start()
        yield found
        found.shutdown()
        turn.join()


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_from_evidence_alone_to_the_verdict(server: Server, tmp_path: Path) -> None:
    desk, base = Desk(tmp_path), address(server)
    quote = desk.write("quote", QUOTE.part("quote"))
    words = [*desk.case("tdx"), "--store", "store"]
    assert desk.run("verify", quote, *words).returncode == 4
    urls = ("--store", "store", "--intel", base, "--intel-root", f"{base}/root.der")
    done = desk.run("fetch", quote, *urls)
    assert (done.returncode, done.stdout) == (0, f"stored intel-tdx-{intel_maker.FMSPC.hex()}-platform.json\n"), (
        done.stderr
    )
    server.shutdown()
    assert desk.run("verify", quote, *words).returncode == 0
    assert desk.run("fetch", desk.bundle("tpm"), *urls).stdout == "nothing is missing\n"


def test_a_server_that_is_not_there_or_says_too_much(server: Server, tmp_path: Path) -> None:
    base = address(server)
    server.answers["/large"] = Answer(200, {}, bytes(web.MOST + 1))
    with pytest.raises(UnavailableError, match="more than"):
        web.get(f"{base}/large")
    assert web.get(f"{base}/nothing").status == 404
    server.answers["/cut"] = Answer(200, {"X-Cut": "yes"}, b"half of it")
    with pytest.raises(UnavailableError, match="does not answer"):
        web.get(f"{base}/cut")
    for wrong in ("ftp://host/", "/path", "http://", "http://a:b@host/", "http://host:port/", "http://é/"):
        with pytest.raises(KeyquorumError, match="is no address"):
            web.get(wrong)
    server.shutdown()
    server.server_close()
    with pytest.raises(UnavailableError, match="does not answer"):
        web.get(f"{base}/root.der")
    desk = Desk(tmp_path)
    quote = desk.write("quote", QUOTE.part("quote"))
    done = desk.run("fetch", quote, "--store", "store", "--intel", base)
    assert (done.returncode, done.stdout) == (5, "")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_header_and_a_body_that_drip_end(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is never too slow for one step. Without a length the cut body would look whole."""
    monkeypatch.setattr(web, "BOUNDS", replace(web.BOUNDS, whole=0.5))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(head)
                for byte in itertools.cycle(b"X-More: 1\r\n"):
                    connection.sendall(bytes([byte]))
                    time.sleep(0.05)

        turn = threading.Thread(target=drip, daemon=True)
        turn.start()
        with pytest.raises(UnavailableError, match="does not answer: it takes too long"):
            web.get(f"http://127.0.0.1:{listener.getsockname()[1]}/x")
        turn.join(30)
        assert not turn.is_alive()


def test_brackets_without_an_address_are_a_mistake() -> None:
    with pytest.raises(MalformedError, match="no address"):
        web.get("http://[::1")


def test_a_mirror_that_is_no_address_is_a_mistake(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    done = desk.run("fetch", desk.bundle("snp"), "--store", str(tmp_path / "store"), "--amd", "http://[::1")
    assert done.returncode == 2, done.stderr
