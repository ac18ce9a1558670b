# SPDX-License-Identifier: Apache-2.0
"""Getting certificates from AMD and collateral from Intel into the store (docs/attestation-fetch.md §3).

Network, clock and waiting are arguments. What comes is looked at before it is kept, and believed by nobody here.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

from keyquorum.errors import KeyquorumError, TamperingError, UnavailableError
from keyquorum.evidence import certificate, intel_bundle, snp_certificates
from keyquorum.evidence.wanted import ChipWanted, PlatformWanted, wanted
from keyquorum.model import strict_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyquorum.evidence.bundle import Bundle
    from keyquorum.linux.collateral_store import Store
    from keyquorum.linux.web_request import Answer

AMD = "https://kdsintf.amd.com"
INTEL = "https://api.trustedservices.intel.com"
INTEL_ROOT = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
SPACING = 10.0  # seconds between two requests to AMD
LONGEST_WAIT = 60.0
_TURNS = 3
_LAST = "amd.last"
_LAST_DIGITS = 12
_OK, _BUSY = 200, (429, 503)


@dataclass(frozen=True, kw_only=True)
class Services:
    """Where to ask, and by what: `get` a resource, `now` in seconds since 1970, `sleep` so many seconds."""

    get: Callable[[str], Answer]
    now: Callable[[], float]
    sleep: Callable[[float], None]
    amd: str = AMD
    intel: str = INTEL
    intel_root: str = INTEL_ROOT


def fetch(
    given: Bundle, store: Store, services: Services, *, again: bool = False, product: str = ""
) -> tuple[str, ...]:
    """Get what is wanted for evidence and missing in the store; return the names of what was stored.

    Raises `UnavailableError` if it cannot be had now, `TamperingError` for evidence or answers of no use.
    """
    need = wanted(given, product)
    if isinstance(need, ChipWanted):
        return _fetch_chip(need, store, services, again=again)
    if isinstance(need, PlatformWanted):
        return _fetch_platform(need, store, services, again=again)
    return ()


def _fetch_chip(need: ChipWanted, store: Store, services: Services, *, again: bool) -> tuple[str, ...]:
    stored = []
    if again or not store.get(need.chain):
        chain = _ask_amd(need.chain_path, store, services)
        for one in snp_certificates.from_pem(chain, "AMD's answer"):
            snp_certificates.load_authority(one, "AMD's answer")
        store.put(need.chain, chain)
        stored.append(need.chain)
    if need.leaf and (again or not store.get(need.leaf)):
        leaf = _ask_amd(need.leaf_path, store, services)
        snp_certificates.load_leaf(leaf, "AMD's answer")
        store.put(need.leaf, leaf)
        stored.append(need.leaf)
    if again or not _counts(store.get(need.crl), services.now()):
        revoked = _ask_amd(need.crl_path, store, services)
        certificate.load_list(revoked, "AMD's answer")
        store.put(need.crl, revoked)
        stored.append(need.crl)
    return tuple(stored)


def _counts(data: bytes, now: float) -> bool:
    """Say whether a stored revocation list says of itself that it still counts."""
    try:
        ends = certificate.load_list(data, "the list").ends if data else None
    except TamperingError:
        return False
    return ends is not None and ends.timestamp() > now


def _ask_amd(path: str, store: Store, services: Services) -> bytes:
    """Ask when ten seconds have passed since anybody with this store did."""
    last = store.get(_LAST)
    since = services.now() - (int(last) if last.isdigit() and len(last) <= _LAST_DIGITS else 0)
    if 0 <= since < SPACING:
        services.sleep(SPACING - since)
    try:
        return _ask(services.amd.rstrip("/") + path, services).content
    finally:
        store.put(_LAST, b"%d" % services.now())


def _fetch_platform(need: PlatformWanted, store: Store, services: Services, *, again: bool) -> tuple[str, ...]:
    if not again and _in_force(store.get(need.name), services.now()):
        return ()
    base = services.intel.rstrip("/")
    tcb, identity = _ask(base + need.tcb_path, services), _ask(base + need.identity_path, services)
    lists = [_ask(base + need.crl_path, services).content, _ask(services.intel_root, services).content]
    for one in lists:
        certificate.load_list(one, "Intel's answer")
    info, info_signature = intel_bundle.unwrap(tcb.content, "tcbInfo", "Intel's answer")
    qe, qe_signature = intel_bundle.unwrap(identity.content, "enclaveIdentity", "Intel's answer")
    table = {
        "tcb_info": _text(info),
        "tcb_info_signature": info_signature.hex(),
        "tcb_info_issuer_chain": _chain(tcb, "tcb-info-issuer-chain"),
        "qe_identity": _text(qe),
        "qe_identity_signature": qe_signature.hex(),
        "qe_identity_issuer_chain": _chain(identity, "sgx-enclave-identity-issuer-chain"),
        "pck_crl": lists[0].hex(),
        "root_ca_crl": lists[1].hex(),
    }
    store.put(need.name, strict_json.serialise(table))
    return (need.name,)


def _in_force(data: bytes, now: float) -> bool:
    """Say whether stored collateral says of itself that it is still in force."""
    try:
        return bool(data) and intel_bundle.next_update(intel_bundle.parse_bundle(data)) > now
    except TamperingError:
        return False


def _text(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise TamperingError("Intel's answer", "", "is not in ASCII") from None


def _chain(answer: Answer, header: str) -> str:
    found = urllib.parse.unquote_to_bytes(answer.headers.get(header, ""))
    certificate.from_pem(found, "Intel's answer", certificate.MAX_BUNDLE)
    return _text(found)


def _ask(url: str, services: Services) -> Answer:
    """Ask, and wait where the server says for how long."""
    for turn in range(_TURNS):
        answer = services.get(url)  # which refuses what is no address
        host = urllib.parse.urlsplit(url).hostname
        if answer.status == _OK:
            return answer
        if answer.status not in _BUSY:
            raise KeyquorumError(f"{host} answers {answer.status}: it does not know what was asked for")
        told = answer.headers.get("retry-after", "")
        seconds = float(told) if told.isdecimal() and len(told) < 9 else SPACING
        if seconds > LONGEST_WAIT:
            raise UnavailableError(f"{host} is asked too often; come back in {seconds:.0f} seconds")
        if turn < _TURNS - 1:
            services.sleep(seconds)
    raise UnavailableError(f"{urllib.parse.urlsplit(url).hostname} is asked too often")
