# SPDX-License-Identifier: Apache-2.0
"""Enrolling a token: is the key fit, and sealing to its public part (docs/holders-pkcs11.md §3). Not for the boot."""

from __future__ import annotations

import os

from keyquorum.errors import KeyquorumError, UsageError
from keyquorum.holders import pkcs11_agreement as agreement
from keyquorum.holders.pkcs11_token import Key, Login, Modules, Place, find_keys
from keyquorum.model import pkcs11_key
from keyquorum.native import cryptoki_abi as abi
from keyquorum.native.cryptoki import CallError, Session
from keyquorum.record import Record
from keyquorum.secret import Secret, wipe_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyquorum.model.pkcs11_uri import KeyUri


class Sealed(Record):
    """A public value for the token, and the material that it gets back from it."""

    mechanism: str
    encapsulated: bytes
    material: Secret


def choose_place(modules: Modules, uri: KeyUri, text: str) -> Place:
    """Return the one token that is meant; raises `UsageError` when several may be."""
    places = modules.places(uri)
    if not places:
        raise modules.nothing_fits(text)
    if len(places) > 1:
        showing = [place for place in places if _shows(place, uri)]
        places = showing if len(showing) == 1 else places
    if len(places) > 1:
        raise UsageError(
            f"{len(places)} tokens fit {text}: {', '.join(place.words() for place in places)}",
            "add serial= to the URI",
        )
    return places[0]


def _shows(place: Place, uri: KeyUri) -> bool:
    try:
        with Session(place.module, place.token.slot) as session:
            return bool(find_keys(session, abi.CKO_PUBLIC_KEY, uri))
    except CallError:
        return False


def choose_key(session: Session, place: Place, uri: KeyUri) -> Key:
    """Return the one private key that is meant, if it is fit; raises `UsageError` with the reason otherwise."""
    keys = find_keys(session, abi.CKO_PRIVATE_KEY, uri)
    if not keys:
        raise UsageError(
            f"{place.words()} has no private {uri.key_words()}",
            "list its keys by pkcs11-tool --login --list-objects --type privkey",
        )
    if len(keys) > 1:
        ids = ", ".join(sorted(f"id={_escaped(key.key_id)}" if key.key_id else "one without id" for key in keys))
        raise UsageError(f"{place.words()} has {len(keys)} private keys that fit: {ids}", "name one by id= in the URI")
    problems = _unfit(session, keys[0])
    if problems:
        raise UsageError(
            f"the {uri.key_words()} on {place.words()} is not fit: {'; '.join(problems)}",
            "make one on the token that is sensitive, not extractable and may decrypt (RSA) or derive (EC)",
        )
    return keys[0]


def _escaped(key_id: bytes) -> str:
    return "".join(f"%{byte:02x}" for byte in key_id)


def _unfit(session: Session, key: Key) -> list[str]:
    problems = []
    if session.flag(key.handle, abi.CKA_EXTRACTABLE, default=True):
        problems.append("it can be copied out of the token (CKA_EXTRACTABLE is true)")
    if not session.flag(key.handle, abi.CKA_SENSITIVE, default=False):
        problems.append("it can be read in plaintext (CKA_SENSITIVE is false)")
    kind = session.number(key.handle, abi.CKA_KEY_TYPE)
    if kind == abi.CKK_RSA:
        bits = pkcs11_key.rsa_bits(session.attribute(key.handle, abi.CKA_MODULUS) or b"")
        if not pkcs11_key.MIN_RSA_BITS <= bits <= pkcs11_key.MAX_RSA_BITS:
            problems.append(f"an RSA key of {bits} bits, not from 2048 to 16384")
        if not session.flag(key.handle, abi.CKA_DECRYPT, default=False):
            problems.append("it may not decrypt (CKA_DECRYPT is false)")
    elif kind == abi.CKK_EC:
        if pkcs11_key.curve_of(session.attribute(key.handle, abi.CKA_EC_PARAMS)) is None:
            problems.append("its curve is neither P-256 nor P-384")
        elif not key.public:
            problems.append("the token does not show its public key (an object with the same CKA_ID)")
        if not session.flag(key.handle, abi.CKA_DERIVE, default=False):
            problems.append("it may not derive (CKA_DERIVE is false)")
    else:
        problems.append("it is neither an RSA nor an EC key")
    return problems


def seal_to(login: Login, key: Key) -> Sealed:
    """Make material for a key and prove that the token gives it back; raises `KeyquorumError` when it does not.

    A token may know RSA-OAEP with SHA-1 only. That is safe, OAEP does not rest on collisions, and recorded.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        public = load_der_public_key(key.public)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError("the token shows a public key that is none") from None
    words = []
    for mechanism in agreement.OAEP if isinstance(public, rsa.RSAPublicKey) else agreement.ECDH:
        sealed = _encapsulate(public, mechanism)
        if sealed is None:
            continue
        try:
            with agreement.agree(login.session, key.handle, mechanism, sealed.encapsulated, login.pin) as got:
                if got.equals(sealed.material):
                    return sealed
            words.append(f"{mechanism} gives something else back")
        except CallError as problem:
            words.append(f"{mechanism}: {problem.message}")
        sealed.material.wipe()
    raise KeyquorumError(f"the token does not give back what is sealed to its key ({'; '.join(words)})")


def _encapsulate(public: Any, mechanism: str) -> Sealed | None:
    """Seal fresh material to a public key; None when key and mechanism do not fit."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if mechanism in agreement.OAEP:
        digest = hashes.SHA256() if mechanism.endswith("sha256") else hashes.SHA1()  # noqa: S303 (OAEP needs no collision resistance)
        seed = os.urandom(agreement.SEED_SIZE)
        encapsulated = public.encrypt(seed, padding.OAEP(padding.MGF1(digest), digest, None))
        material = Secret.from_view(seed)
        wipe_bytes(seed)
        return Sealed(mechanism=mechanism, encapsulated=encapsulated, material=material)
    curve = {"ecdh-p256": ec.SECP256R1, "ecdh-p384": ec.SECP384R1}[mechanism]
    if not isinstance(public.curve, curve):
        return None
    one_time = ec.generate_private_key(curve())
    shared = one_time.exchange(ec.ECDH(), public)
    material = Secret.from_view(shared)
    wipe_bytes(shared)
    point = one_time.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return Sealed(mechanism=mechanism, encapsulated=point, material=material)
